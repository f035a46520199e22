"""Windows of motion with the clip's intent: which clips have one, by which encoder, and its statistics."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from handloom.errors import ConfigError
from handloom.store.embodiment import HUMAN, narrowed
from handloom.store.filters import both, quoted
from handloom.train.parts.hand_clips import WITH_HANDS
from handloom.train.parts.table_checks import STATISTICS_WINDOWS, evenly
from handloom.train.recipe import RecipeData
from handloom.train.robomirror.data.motion import MotionLayout
from handloom.train.robomirror.data.windows import DECIMALS, MotionSample, both_sides, scales_of
from handloom.train.robomirror.settings import RobomirrorSettings

if TYPE_CHECKING:
    from handloom.api import Database
    from handloom.windows.api import Windows

STATISTICS_VECTORS = 2048
DECLARE = (
    "declare a stage of captions and run it (docs/captions.md): a vision-language model, or without one the image "
    'embedding over time: [stages.caption] class = "handloom.stages.learned:RuleCaption" in a TOML file, and '
    "`handloom run --db DB --config FILE`"
)


@dataclass(frozen=True)
class IntentSample:
    """A transform that adds to `base`'s: `intent` (L, d) float32, `intent_s` (L,) float32 their times in seconds since
    the window's first frame, and `intent_valid` (L,): the `steps` vectors nearest to the window's middle, in order;
    fewer are there where the clip has fewer, and the rest is 0.
    """

    base: MotionSample
    column: str
    steps: int

    def __call__(self, sample: Mapping[str, Any]) -> dict[str, Any]:
        vectors = np.asarray(sample[self.column], np.float32)
        times = np.asarray(sample[f"{self.column}_s"], np.float64)
        frame_s = sample["frame_s"][sample["valid"]]
        middle_s = (frame_s[0] + frame_s[-1]) / 2
        near = np.sort(np.argsort(np.abs(times - middle_s), kind="stable")[: self.steps])
        intent, intent_s = np.zeros((self.steps, vectors.shape[1]), np.float32), np.zeros(self.steps, np.float32)
        intent[: len(near)], intent_s[: len(near)] = vectors[near], times[near] - frame_s[0]
        out = {"intent": intent, "intent_s": intent_s, "intent_valid": np.arange(self.steps) < len(near)}
        return self.base(sample) | out


def intent_data(db: Database, settings: RobomirrorSettings, version: int | None = None) -> RecipeData:
    """Training and held-out windows of the clips that have hands and an intent.

    facts: those of `motion_data`, `intent_source`, and the results of `intent_statistics` over training windows;
    `counts` also has `without_intent`.

    Raises:
        ConfigError: as `motion_data`; there is no `init`, no intent, or intents of several encoders.
    """
    train, held_out, found = intent_sides(db, settings, version)
    scales = scales_of(train, MotionLayout(settings.body))
    facts = {name: value for name, value in scales.items() if name != "motion_components"}
    facts |= found | intent_statistics(train, settings.intent_components)
    return RecipeData(train, held_out, train.version, facts)


def intent_sides(
    db: Database, settings: RobomirrorSettings, version: int | None = None
) -> tuple[Windows, Windows, dict[str, Any]]:
    """Training and held-out windows, none of which is read, and the facts `intent_source` and `counts`. Raises as
    `intent_data`."""
    version = version or settings.version or db.version
    if not settings.init:
        raise ConfigError(
            "stage understand makes latents of a trained motion, and `init` names none",
            "train stage motion first, then --set init=OUT",
        )
    source, without = _source(db, settings, version)
    sample = MotionSample(MotionLayout(settings.body))
    changed = {
        "fields": (*sample.columns["fields"], settings.intent, f"{settings.intent}_s"),
        "transform": IntentSample(sample, settings.intent, settings.intent_steps),
    }
    only = settings.model_copy(update={"where": both(settings.where, f"{settings.intent} IS NOT NULL")})
    train, held_out, counts = both_sides(db, only, version, **changed)
    return train, held_out, {"intent_source": source, "counts": counts | {"without_intent": without}}


def intent_statistics(windows: Windows, number: int) -> dict[str, Any]:
    """Over at most 2,048 vectors of 512 windows: `intent_dim`, d; `intent_mean` (d,); `intent_components` (k, d), the
    `number` principal components, or fewer where there are fewer vectors. Their values keep their weight against each
    other: the first has a deviation of 1.
    """
    if not len(windows):
        return {"intent_dim": 1, "intent_mean": [0.0], "intent_components": [[1.0]]}
    samples = [windows[index] for index in evenly(len(windows), STATISTICS_WINDOWS)]
    vectors = np.concatenate([sample["intent"][sample["intent_valid"]] for sample in samples])
    vectors = vectors[evenly(len(vectors), STATISTICS_VECTORS)].astype(np.float64)  # windows share most of theirs
    mean = vectors.mean(axis=0)
    std = vectors.std(axis=0)
    scale = np.where(std > 1e-9, std, 1.0)
    values = (vectors - mean) / scale
    # By the smaller of both products: a vector may have thousands of numbers.
    sizes, weights = np.linalg.eigh(values @ values.T)
    kept = slice(-1, -min(number, len(mean), len(vectors)) - 1, -1)
    components = (weights[:, kept].T @ values) / np.sqrt(np.maximum(sizes[kept], 1e-12))[:, None]
    first = max(float(sizes[-1]) / len(vectors), 1e-18) ** 0.5
    found: dict[str, NDArray] = {"intent_mean": mean, "intent_components": components / scale / first}
    return {"intent_dim": len(mean)} | {name: np.round(values, DECIMALS).tolist() for name, values in found.items()}


def _source(db: Database, settings: RobomirrorSettings, version: int | None) -> tuple[str, int]:
    """What the intents are, and how many clips with hands have none."""
    name, table = settings.intent, db.table("clips", version)
    if table is None or f"{name}_source" not in table.schema.names:
        raise ConfigError(f"the table of {db.uri} has no column {name}", DECLARE)
    asked = narrowed(db, both(settings.where, WITH_HANDS), HUMAN)
    found = Counter(db.read("clips", [f"{name}_source"], asked, version).column(0).to_pylist())
    without = found.pop(None, 0)
    if not found and without:
        raise ConfigError(f"{name} is null in all {without} clips with hands", DECLARE)
    if len(found) > 1:
        listed = ", ".join(f"{number} of {source}" for source, number in found.most_common())
        wanted = found.most_common(1)[0][0]
        raise ConfigError(
            f"{name} is of several encoders, which cannot be compared: {listed}",
            f'choose one: --set "where={name}_source = {quoted(wanted)}", or compute the others again',
        )
    return next(iter(found), ""), without
