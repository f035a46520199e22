"""A row of `robot_episodes` as a LeRobot episode: one that came from LeRobot goes back unchanged."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from handloom.errors import ConfigError
from handloom.export.images import Fit, decode_jpeg
from handloom.export.lerobot.dataset import Episode, Layout
from handloom.export.lerobot.meta import Feature, video_feature
from handloom.export.steps import steps_at

IMAGES = "observation.images."
SIGNALS = {"state": "observation.state", "action": "action"}
PICTURE_VALID, SUCCESS = "picture_valid", "next.success"
SOURCE = pa.schema(
    [
        pa.field("episode_id", pa.string()),
        pa.field("source_dataset", pa.string()),
        pa.field("source_episode_index", pa.int64()),
        pa.field("source_split", pa.string()),
        pa.field("licence", pa.string()),
        pa.field("source_version", pa.string()),
    ]
)
_RENAMED = {"source_dataset": "dataset", "source_episode_index": "episode_index", "source_split": "split"}


@dataclass(frozen=True)
class Shape:
    """What all episodes of one LeRobot dataset have in common."""

    cameras: tuple[str, ...]
    state: tuple[str | None, ...] | None
    action: tuple[str | None, ...] | None
    robot_type: str | None
    has_images: bool

    def __str__(self) -> str:
        state, action = ("none" if words is None else len(words) for words in (self.state, self.action))
        images = "" if self.has_images else " without images"
        cameras = ", ".join(self.cameras) or "none"
        return f"robot {self.robot_type}, state of {state}, action of {action}, cameras {cameras}{images}"


def shape_of(row: Mapping[str, Any], has_images: bool) -> Shape:
    """The shape of a row; `state` and `action` as their names, None for each element without one."""
    signals = {}
    for name in SIGNALS:
        width, names = row[f"{name}_width"], row[f"{name}_names"]
        signals[name] = None if width is None else tuple(names or (None,) * width)
    return Shape(tuple(row["cameras"]), signals["state"], signals["action"], row["robot_type"], has_images)


def one_shape(shapes: Iterable[Shape]) -> Shape:
    """The shape of all episodes. Raises ConfigError, with each shape and how many have it, where they differ."""
    counts: dict[Shape, int] = {}
    for shape in shapes:
        counts[shape] = counts.get(shape, 0) + 1
    if len(counts) == 1:
        return next(iter(counts))
    found = "; ".join(f"{count} episodes with {shape}" for shape, count in counts.items())
    raise ConfigError(
        f"the robot episodes do not fit one LeRobot dataset: {found}",
        "export them one by one: --where \"dataset = 'NAME'\"",
    )


def robot_layout(
    hz: float,
    shape: Shape,
    sizes: Mapping[str, tuple[int, int]],
    units: Mapping[str, Sequence[str | None] | None],
    success: bool = False,
) -> Layout:
    """The features of robot episodes. sizes: (width, height) of each camera's images; units: of `state`, `action`.
    success: whether it is known of all: LeRobot's features have no unknown values."""
    features: dict[str, Feature] = {}
    for name, key in SIGNALS.items():
        words = getattr(shape, name)
        if words is not None:
            names = None if None in words else tuple(str(word) for word in words)
            unit = units.get(name)
            features[key] = Feature("float32", (len(words),), names, None if unit is None else tuple(unit))
    for camera in shape.cameras if shape.has_images else ():
        features[video_key(camera)] = video_feature(*sizes[camera])
    if shape.has_images:
        features[PICTURE_VALID] = Feature("bool", (len(shape.cameras),), tuple(map(video_key, shape.cameras)))
    if success:
        features[SUCCESS] = Feature("bool", (1,))
    return Layout(features, hz, SOURCE, shape.robot_type)


def video_key(camera: str) -> str:
    """`observation.images.NAME`, where LeRobot looks for cameras."""
    return camera if camera.startswith(IMAGES) else IMAGES + camera.replace("/", "_")


def robot_episode(row: Mapping[str, Any], layout: Layout) -> Episode:
    """The episode of one row (of `handloom.schemas.tables.robot.episode_arrays`).

    If its times are on the grid it stays as it is. Otherwise a step takes the nearest one within half a step; without
    one, states and actions are NaN. In place of a missing image the last one is repeated (black before the first), and
    `picture_valid` is false. Where success is known, `next.success` is true in the last step of a success.
    """
    index = steps_at(row["frame_s"], layout.hz)
    values: dict[str, NDArray[Any]] = {}
    for name, key in SIGNALS.items():
        if key in layout.features:
            signal = row[name][index].astype(np.float32)
            signal[index < 0] = np.nan
            values[key] = signal
    images = {}
    if SUCCESS in layout.features:
        values[SUCCESS] = np.zeros((len(index), 1), bool)
        values[SUCCESS][-1] = row["success"]
    if PICTURE_VALID in layout.features:
        values[PICTURE_VALID] = np.stack([_there(jpegs, index) for jpegs in row["frame_jpeg"]], axis=1)
        for camera, jpegs in zip(row["cameras"], row["frame_jpeg"], strict=True):
            feature = layout.features[video_key(camera)]
            what = f"of camera {camera} of episode {row['episode_id']}"
            size = feature.shape[1], feature.shape[0]
            images[video_key(camera)] = partial(_images, jpegs, index, size, what)
    source = {field.name: row[_RENAMED.get(field.name, field.name)] for field in SOURCE}
    return Episode(row["task"] or "", len(index), values, images, source)


def _there(jpegs: Sequence[bytes | None], index: NDArray[np.intp]) -> NDArray[np.bool_]:
    return np.array([at >= 0 and jpegs[at] is not None for at in index.tolist()], bool)


def _images(
    jpegs: Sequence[bytes | None], index: NDArray[np.intp], size: tuple[int, int], what: str
) -> Iterator[NDArray[np.uint8]]:
    image = np.zeros((size[1], size[0], 3), np.uint8)
    last = -1
    for at in index.tolist():
        if at >= 0 and at != last and jpegs[at] is not None:
            image = decode_jpeg(jpegs[at], f"image {at} {what}")
            image, last = Fit.into(size, image.shape[1], image.shape[0]).image(image), at
        yield image
