"""The windows of stage 1: which clips can be used, how many cannot, and statistics of their keypoints."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from handloom.errors import ConfigError
from handloom.store.embodiment import HUMAN, narrowed
from handloom.store.filters import both
from handloom.train.arvrm.data.hand_sample import FIELDS, HandSample
from handloom.train.arvrm.settings import ArvrmSettings
from handloom.train.parts.hand_clips import WITH_HANDS, usable
from handloom.train.parts.table_checks import STATISTICS_WINDOWS, TOLERANCE, evenly, has_images, rates_of
from handloom.train.recipe import RecipeData

if TYPE_CHECKING:
    from handloom.api import Database
    from handloom.windows.api import Windows


def hand_data(db: Database, settings: ArvrmSettings, version: int | None = None) -> RecipeData:
    """Training and held-out windows of human clips in which a hand was seen.

    facts: `counts`, and mean and deviation of the keypoints' three coordinates, `keypoint_mean`, `keypoint_std`, of
    their steps, `keypoint_step_std`, and of goals, `goal_std`.

    Raises:
        ConfigError: there are no clips, none with hands or none as long as a window; images were not stored; steps come
            faster than the clips' frames.
        StoreError: the version no longer exists.
    """
    train, held_out, counts = hand_sides(db, settings, version)
    plain = hand_windows(db, settings, train.version, "train", with_images=False)
    return RecipeData(train, held_out, train.version, spread_of(plain) | {"counts": counts})


def hand_sides(
    db: Database, settings: ArvrmSettings, version: int | None = None
) -> tuple[Windows, Windows, dict[str, Any]]:
    """Training and held-out windows, none of which is read, and counts of clips. Raises as `hand_data`."""
    version = version or settings.version or db.version
    counts: dict[str, Any] = {**usable(db, settings.where, version)}
    if settings.image_encoder != "none" and not has_images(db, version):
        problem = f"image_encoder is {settings.image_encoder}, and no clip of {db.uri} has stored images"
        raise ConfigError(problem, "train with image_encoder = none, or extract with frames.store = true")
    of_people = narrowed(db, both(settings.where, WITH_HANDS), HUMAN)
    hz, slower = rates_of(db, of_people, version, settings.rate_hz * settings.phases)
    check_rate(settings, hz)
    counts["slower"] = slower
    train, held_out = (hand_windows(db, settings, version, split) for split in ("train", "held_out"))
    counts |= {"train": dict(train.counts), "held_out": dict(held_out.counts)}
    return train, held_out, counts


def hand_windows(
    db: Database,
    settings: ArvrmSettings,
    version: int | None,
    split: str | None,
    with_images: bool = True,
    **changed: Any,
) -> Windows:
    """Windows of the clips with hands. changed: parameters of `Database.windows` that replace those given here."""
    size = settings.image_size if with_images and settings.image_encoder != "none" else 0
    later = round(settings.goal_s * settings.rate_hz * settings.phases)
    asked: dict[str, Any] = {
        "past": 1,
        "future": (settings.steps - 1) * settings.phases + later,
        "fields": [*FIELDS, *(["images"] if size else [])],
        "rate_hz": settings.rate_hz * settings.phases,
        "stride": settings.stride,
        "where": both(settings.where, WITH_HANDS),
        "split": split,
        "held_out_share": settings.held_out_share,
        "seed": settings.seed,
        "version": version,
        "image_size": size or None,
        "transform": HandSample(settings.phases, size, settings.steps if later else None),
    }
    return db.windows(**(asked | changed))


def spread_of(windows: Windows) -> dict[str, list[float]]:
    """Mean, deviation and deviation of a step for each coordinate (x, y, depth), from at most 512 windows.

    0, 1 and 1 where there are no windows: the loop refuses to train on none.
    """
    if not len(windows):
        return plain_spread()
    picked = evenly(len(windows), STATISTICS_WINDOWS)
    places = np.stack([windows[index]["keypoints"] for index in picked]).astype(np.float64)
    steps = np.diff(places, axis=1)
    step_std = [_deviation(steps[..., c], 0.0) for c in range(3)]
    means = [float(np.nanmean(places[..., c])) if np.isfinite(places[..., c]).any() else 0.0 for c in range(3)]
    stds = [_deviation(places[..., c], mean) for c, mean in enumerate(means)]
    facts = {"keypoint_mean": means, "keypoint_std": stds, "keypoint_step_std": step_std}
    if "goals" in windows[0]:
        goals = np.stack([windows[index]["goals"] for index in picked])
        facts["goal_std"] = [_deviation(goals[..., c], 0.0) for c in range(3)]
    return facts


def plain_spread() -> dict[str, list[float]]:
    """Means of 0 and deviations of 1, which change nothing."""
    return {"keypoint_mean": [0.0] * 3, "keypoint_std": [1.0] * 3, "keypoint_step_std": [1.0] * 3}


def check_rate(settings: ArvrmSettings, hz: float) -> None:
    """Raise ConfigError where steps come faster than frames: many steps would have no frame."""
    asked = settings.rate_hz * settings.phases
    if asked > TOLERANCE * hz:
        raise ConfigError(
            f"rate_hz {settings.rate_hz:g} times phases {settings.phases} is {asked:.3g}, and the frames come at "
            f"{hz:.3g} Hz",
            "lower phases or rate_hz, or extract with a higher video.sample_hz",
        )


def _deviation(values: NDArray, mean: float) -> float:
    """Root mean square of the known differences to `mean`; 1 where no value is known or all are equal."""
    known = values[np.isfinite(values)]
    found = float(np.sqrt(np.mean((known - mean) ** 2))) if known.size else 0.0
    return found if found > 1e-9 else 1.0
