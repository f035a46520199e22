"""Who reads a skill: rules, or a vision-language model that settings name, here or behind an endpoint."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from handloom.api import Database
from handloom.errors import HandloomError
from handloom.pipelines.configure import checked, merged_values
from handloom.schemas.towers import AskSettings
from handloom.sim.tabletop.reasoning import ModelReasoner
from handloom.skills.model_reader import Ask, Image, ModelReader, NoAnswer
from handloom.skills.reader import Reader, RuleReader

EXAMPLE = "base_url=http://localhost:8000/v1"
LISTED = "docs/captions.md explains these settings"
COUNTED = ("requests", "failed_requests", "prompt_tokens", "completion_tokens")
NO_REMEDY = "run it again when it does; without --config and --set, in another --out, rules choose remedies"
NOTHING = "nothing was written; without --config and --set the skill is read by rules"


def load_ask_settings(config: Path | None, assignments: Sequence[str]) -> AskSettings | None:
    """The settings of the model that reads, from a TOML file and `--set`; None where neither is given: rules read.

    Raises ConfigError if the file cannot be read, or a name or value is wrong.
    """
    if config is None and not assignments:
        return None
    values = merged_values([] if config is None else [config], assignments, EXAMPLE)
    return checked(AskSettings, values, LISTED)


class Reading:
    """A reader, and what its questions have cost. counts: requests, failed_requests, prompt_tokens and
    completion_tokens of an endpoint; empty for rules and for a model of this machine."""

    def __init__(self, db: Database, settings: AskSettings | None) -> None:
        """settings: None: rules. Raises ConfigError if the model is not there, or its address or key is wrong."""
        self.counts: Counter[str] = Counter()
        self.reader: Reader = RuleReader()
        if settings is not None:
            self.reader = _model_reader(db, settings, self.counts)

    @property
    def notes(self) -> list[str]:
        """A sentence about the cost; none without one."""
        return cost_of(self.reader.name, self.counts)


def cost_of(name: str, counts: Counter[str]) -> list[str]:
    """A sentence about what a model's questions have cost; none without any."""
    told = ", ".join(f"{one.replace('_', ' ')} {counts[one]:,}" for one in COUNTED if counts[one])
    return [f"{name} was asked: {told}"] if told else []


def _model_reader(db: Database, settings: AskSettings, counts: Counter[str]) -> ModelReader:
    from handloom.draw.skill import interactions_picture

    name, ask = _ask_of(settings, counts, "the skill was not read", NOTHING)
    return ModelReader(name, ask, interactions_picture, _frames_of(db))


def model_reasoner(settings: AskSettings, counts: Counter[str]) -> ModelReasoner:
    """What reasons about failed attempts. counts: as those of `Reading`. Raises ConfigError as `Reading`."""
    return ModelReasoner(*_ask_of(settings, counts, "the model has not answered yet", NO_REMEDY))


def _ask_of(settings: AskSettings, counts: Counter[str], problem: str, hint: str) -> tuple[str, Ask]:
    """The model's name, and what puts questions to it: its errors begin with `problem`."""
    from handloom.models.vision_language.asking import Asking, planned
    from handloom.models.vision_language.questions import AskError, Question

    plan = planned(settings, "")

    def count(name: str, amount: float) -> None:
        counts[name] += int(amount)

    def spend() -> bool:
        may = counts["requests"] < settings.max_requests
        counts["requests"] += int(may)
        return may

    opened = cache(lambda: Asking(settings, plan, "", spend, count))  # weights are loaded for the first question

    def ask(
        text: str,
        images: Sequence[Image],
        schema: Mapping[str, Any],
        check: Callable[[Any], str | None] | None = None,
    ) -> Any:
        try:
            return opened()(Question(text, images, None, schema, check)).value
        except AskError as error:
            kind = HandloomError if error.reason == "answer_invalid" else NoAnswer
            raise kind(f"{problem}: {error.problem}", hint) from error

    return settings.model if plan is None or plan.files.revision else Path(settings.model).name, ask


def _frames_of(db: Database) -> Callable[[str, Sequence[float]], list[Image]]:
    """Stored frames of clips by time."""
    from handloom.video.stored_frames import decode_jpeg

    def frames(clip_id: str, times: Sequence[float]) -> list[Image]:
        row = db.row(clip_id, ["frame_s", "frame_jpeg"])
        frame_s, jpegs = row.column("frame_s")[0].values, row.column("frame_jpeg")[0]
        if not jpegs.is_valid or not len(jpegs.values):
            return []
        at = np.abs(frame_s.to_numpy(zero_copy_only=False)[None] - np.asarray(times)[:, None]).argmin(axis=1)
        return [decode_jpeg(jpegs.values[int(index)].as_py()) for index in dict.fromkeys(at.tolist())]

    return frames
