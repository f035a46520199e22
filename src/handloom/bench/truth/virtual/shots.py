"""The virtual camera's shots, over the images and videos of a folder."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from handloom.bench.images import Images
from handloom.bench.truth.files import files_below
from handloom.bench.truth.virtual.camera import Panel, Sprite, VirtualClip
from handloom.errors import ConfigError
from handloom.schemas.values import Camera
from handloom.synth.follow import LEFT_HAND, RIGHT_HAND
from handloom.synth.render.render import render_clip
from handloom.synth.script.scene import SceneSpec
from handloom.video.container.packets import NotAVideoError, read_packet_index
from handloom.video.decode.readers import DecodeFailedError, ImageSizeError
from handloom.video.grid import sample_frames

IMAGES, VIDEOS = {".jpg", ".jpeg", ".png", ".webp", ".bmp"}, {".mp4", ".mkv", ".mov", ".avi", ".webm"}
MOST_IMAGES, MOST_VIDEOS = 36, 3  # read at most; a video's frames take 200 MB
TEXTURE_PX = 1600  # columns of every texture, so that a texel is about a pixel of the shots
MOVING_LEVELS = 14  # grey levels; where a video differs more from its median, something moves
_WALL_M, _TABLE_M, _CARD_M = (
    2.0,
    0.5,
    1.3,
)  # distance of the wall, height of the camera over the table, distance of the card


@dataclass(frozen=True)
class Shot:
    """What a virtual camera does.

    turn_deg: yaw, pitch and roll from start to end; within_s: duration of the turn, in the middle of the shot (None:
    all of it). shake_deg, shake_m: size of a head's shaking. move_m: motion to the right, down and forward. zoom: last
    over first focal length. lens: key of `LENSES`. room: a wall, a table and a card instead of one wall. exposure:
    share of a frame's time. dark: gain for a third of the time. video: over a video, if there is one.
    """

    name: str
    turn_deg: tuple[float, float, float] = (0.0, 0.0, 0.0)
    within_s: float | None = None
    shake_deg: float = 0.0
    shake_m: float = 0.0
    move_m: tuple[float, float, float] = (0.0, 0.0, 0.0)
    zoom: float = 1.0
    lens: str = "pinhole"
    fov_deg: float = 60.0  # differs from the pipeline's assumption for unknown cameras
    room: bool = False
    exposure: float = 0.0
    dark: float | None = None
    noise: float = 2.0
    hand: bool = False
    video: bool = False


LENSES: dict[str, tuple[str, tuple[float, ...]]] = {
    "pinhole": ("opencv", ()),
    "radial": ("opencv", (-0.26, 0.07, 0.0, 0.0)),
    "fisheye": ("fisheye", (0.04, -0.01, 0.002, 0.0)),
}
SHOTS = (
    Shot("rest", hand=True, video=True),
    Shot("pan", turn_deg=(32, 4, 0), fov_deg=80),
    Shot("look_around", shake_deg=7, turn_deg=(0, 0, 12), exposure=0.4),
    Shot("fast_turn", turn_deg=(40, 0, 0), within_s=0.6, exposure=0.5),
    Shot("zoom", zoom=1.6, shake_deg=1),
    Shot("pan_radial", turn_deg=(26, -6, 5), lens="radial", fov_deg=95),
    Shot("look_around_fisheye", shake_deg=7, turn_deg=(14, 0, 5), lens="fisheye", fov_deg=110),
    Shot("turn_lighting", shake_deg=4, dark=0.45, noise=4),
    Shot("turn_hand", turn_deg=(20, 0, 0), shake_deg=2, hand=True, video=True),
    Shot("wall", move_m=(0.4, 0.0, 0.25), shake_deg=2, fov_deg=80),
    Shot("room", move_m=(0.35, -0.05, 0.2), shake_deg=3, room=True, exposure=0.3),
    Shot("room_radial", move_m=(-0.3, 0.0, 0.25), turn_deg=(-12, 0, 0), shake_deg=2, lens="radial", fov_deg=95,
         room=True),
    Shot("room_fisheye", move_m=(0.3, 0.05, 0.2), shake_deg=4, lens="fisheye", fov_deg=110, room=True, exposure=0.3),
    Shot("room_hand", move_m=(0.25, 0.05, 0.1), shake_deg=4, room=True, hand=True, exposure=0.3),
)  # fmt: skip


@dataclass(frozen=True)
class Texture:
    """An image, or the video of a camera at rest at the shots' times. frames: (1 or T, h, w, 3) uint8, `TEXTURE_PX`
    wide; moving: (T, h / n, w / n) bool where something hides the static scene, or None."""

    name: str
    frames: NDArray[np.uint8]
    moving: NDArray[np.bool_] | None = None


def read_textures(folder: Path, seconds: float, hz: float) -> list[Texture]:
    """The first images and videos below a folder, by name; every video is assumed to be of a camera at rest.

    Raises:
        ConfigError: none can be read.
    """
    images: list[Any] = []
    videos: list[Any] = []
    for path in files_below(folder):
        if path.suffix.lower() in IMAGES and len(images) < MOST_IMAGES:
            image = cv2.imread(str(path), cv2.IMREAD_COLOR)
            if image is not None:
                images.append(still(path.stem, cv2.cvtColor(image, cv2.COLOR_BGR2RGB)))
        elif path.suffix.lower() in VIDEOS and len(videos) < MOST_VIDEOS:
            frames = _frames_of(path, seconds, hz)
            if frames is not None:
                videos.append(_of_video(path.stem, frames))
    if not images and not videos:
        known = " ".join(sorted(IMAGES | VIDEOS))
        raise ConfigError(f"{folder} holds no image or video that can be read", f"expected files of {known}")
    return images + videos


def hand_sprite(size: tuple[int, int]) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """A rendered hand with forearm: an image of `size` and its alpha."""
    spec = SceneSpec(
        "reach", hands="main", seed=4, width=size[0], height=size[1], duration_s=1.2, fps=5.0, distractors=0
    )
    frames = list(render_clip(spec).frames())
    masks = [np.isin(frame.ids, (LEFT_HAND, RIGHT_HAND)) for frame in frames]
    largest = int(np.argmax([mask.sum() for mask in masks]))
    alpha = cv2.GaussianBlur(masks[largest].astype(np.float32), (0, 0), 0.7)
    return frames[largest].image, alpha


def still(name: str, image: NDArray[np.uint8]) -> Texture:
    """An image as a texture."""
    return Texture(name, _resized(image)[None])


def make_clips(
    textures: Sequence[Texture],
    shots: Sequence[Shot] = SHOTS,
    size: tuple[int, int] = (640, 360),
    seconds: float = 3.0,
    hz: float = 15.0,
    seed: int = 0,
    sprite: tuple[NDArray[np.uint8], NDArray[np.float32]] | None = None,
) -> list[VirtualClip]:
    """One clip per shot, each over the next of the textures.

    sprite: a hand's image (h, w, 3) and alpha (h, w), of `size`; without one no shot has a hand.
    """
    frame_s = np.arange(max(round(seconds * hz), 2)) / hz
    videos = [texture for texture in textures if len(texture.frames) > 1]
    images = [texture for texture in textures if len(texture.frames) == 1] or list(textures)
    clips = []
    for number, shot in enumerate(shots):
        some = videos if shot.video and videos else images
        chosen = [some[(number + i) % len(some)] for i in range(3)]
        clips.append(_clip(shot, chosen, frame_s, size, seed + number, sprite))
    return clips


def _clip(
    shot: Shot, textures: list[Texture], frame_s: NDArray, size: tuple[int, int], seed: int, sprite
) -> VirtualClip:
    rng = np.random.default_rng([seed, 3])
    half = math.radians(shot.fov_deg) / 2
    focal_px = size[0] / 2 / (half if shot.lens == "fisheye" else math.tan(half))
    zooms = shot.zoom ** _share(frame_s, None) if shot.zoom != 1 else np.ones(1)
    hand = None
    if shot.hand and sprite is not None:
        aside, below = (
            _unrest(frame_s, rng),
            np.abs(_unrest(frame_s, rng)),
        )  # upwards, the end of the forearm would be visible
        shift = np.stack([0.22 * size[0] * aside, 0.18 * size[1] * below], axis=1)
        hand = Sprite(sprite[0], sprite[1], shift)
    gain = None
    if shot.dark is not None:
        third = len(frame_s) // 3
        gain = np.where((np.arange(len(frame_s)) >= third) & (np.arange(len(frame_s)) < 2 * third), shot.dark, 1.0)
    return VirtualClip(
        f"{shot.name}:{textures[0].name}",
        frame_s,
        size,
        tuple(_camera(focal_px * zoom, shot.lens, size) for zoom in zooms),
        _path(shot, frame_s, rng),
        _room(textures, focal_px) if shot.room else (_wall(textures[0], focal_px),),
        hand,
        shot.exposure * float(frame_s[1] - frame_s[0]),
        gain,
        shot.noise,
        seed=seed,
    )


def _camera(focal_px: float, lens: str, size: tuple[int, int]) -> Camera:
    matrix = np.array([[focal_px, 0, (size[0] - 1) / 2], [0, focal_px, (size[1] - 1) / 2], [0, 0, 1]])
    model, numbers = LENSES[lens]
    return Camera(matrix, "given", np.array(numbers) if numbers else None, model)


def _path(shot: Shot, frame_s: NDArray, rng: np.random.Generator) -> NDArray[np.float64]:
    """(T, 4, 4) poses; the turn is centred on the first camera's direction."""
    share = _share(frame_s, shot.within_s) - 0.5
    angles = np.radians(np.array(shot.turn_deg) * share[:, None])
    angles += np.radians(shot.shake_deg) * np.stack([_unrest(frame_s, rng) for _ in range(3)], axis=1) * [1, 0.7, 0.5]
    centres = np.array(shot.move_m) * (_share(frame_s, None) - 0.5)[:, None]
    centres += shot.shake_m * np.stack([_unrest(frame_s, rng) for _ in range(3)], axis=1)
    poses = np.tile(np.eye(4), (len(frame_s), 1, 1))
    for t, (yaw, pitch, roll) in enumerate(angles):
        turns = [cv2.Rodrigues(np.array(axis))[0] for axis in ((0, yaw, 0), (pitch, 0, 0), (0, 0, roll))]
        poses[t, :3, :3] = turns[0] @ turns[1] @ turns[2]
    poses[:, :3, 3] = centres
    return poses


def _share(frame_s: NDArray, within_s: float | None) -> NDArray[np.float64]:
    """From 0 to 1, smoothly, within so many seconds in the middle."""
    length = float(frame_s[-1] - frame_s[0])
    within = length if within_s is None else min(within_s, length)
    x = np.clip((frame_s - frame_s[0] - (length - within) / 2) / within, 0, 1)
    return x * x * (3 - 2 * x)


def _unrest(frame_s: NDArray, rng: np.random.Generator) -> NDArray[np.float64]:
    """(T,) slow waves of about unit size."""
    out = np.zeros(len(frame_s))
    for hz, size in ((0.25, 0.6), (0.6, 0.35), (1.3, 0.15)):
        out += size * np.sin(2 * np.pi * (hz * rng.uniform(0.8, 1.2) * frame_s + rng.random()))
    return out


def _wall(texture: Texture, focal_px: float) -> Panel:
    """A wall straight ahead; a texel is one pixel from the world's origin."""
    height, width = texture.frames.shape[1:3]
    step = _WALL_M / focal_px
    origin = np.array([-(width - 1) / 2 * step, -(height - 1) / 2 * step, _WALL_M])
    across, down = np.eye(3)[:2]
    return Panel(texture.frames, origin, across, down, step, moving=texture.moving)


def _room(textures: list[Texture], focal_px: float) -> tuple[Panel, ...]:
    """The wall, a table from the wall to below the camera, and a card standing on the table."""
    right, down, forward = np.eye(3)
    table, card = textures[1 % len(textures)], textures[2 % len(textures)]
    step = 0.8 / focal_px
    width = table.frames.shape[2]
    on_table = Panel(
        table.frames, np.array([-(width - 1) / 2 * step, _TABLE_M, _WALL_M]), right, -forward, step, moving=table.moving
    )
    angle = math.radians(25)
    along = np.array([math.cos(angle), 0, math.sin(angle)])
    image = card.frames[:, ::2, ::2]
    step = 0.5 / image.shape[2]
    origin = np.array([-0.45, _TABLE_M - image.shape[1] * step, _CARD_M])
    standing = Panel(np.ascontiguousarray(image), origin, along, down, step, endless=False, moving=card.moving)
    return _wall(textures[0], focal_px), on_table, standing


def _resized(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    height, width = image.shape[:2]
    scale = TEXTURE_PX / width
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    return cv2.resize(image, (TEXTURE_PX, max(round(height * scale), 2)), interpolation=method)


def _of_video(name: str, frames: NDArray[np.uint8]) -> Texture:
    """A texture of a camera at rest; what differs from the median over time, with a margin, is moving."""
    small = [cv2.resize(frame, (320, max(frame.shape[0] * 320 // frame.shape[1], 2))) for frame in frames]
    small = np.stack([cv2.GaussianBlur(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), (0, 0), 1.2) for frame in small])
    away = np.abs(small.astype(np.int16) - np.median(small, axis=0).astype(np.int16)) > MOVING_LEVELS
    near = np.ones((5, 5), np.uint8)
    moving = np.stack([cv2.dilate(mask.astype(np.uint8), near) > 0 for mask in away])
    return Texture(name, np.stack([_resized(frame) for frame in frames]), moving)


def _frames_of(path: Path, seconds: float, hz: float) -> NDArray[np.uint8] | None:
    """The first `seconds` of a video, its last frame repeated if it is shorter; None if it cannot be read."""
    try:
        packets = read_packet_index(str(path))
        index = sample_frames(packets.times_s, packets.info.start_s, packets.info.start_s + seconds, hz)
        size = (packets.info.width, packets.info.height)
        images = Images(str(path), packets, index, size)
        chunks: list[NDArray[np.uint8]] = []
        for chunk in images.chunks(chunks.clear):
            chunks.append(chunk)
    except (NotAVideoError, DecodeFailedError, ImageSizeError):
        return None
    frames = np.concatenate(chunks)
    missing = max(round(seconds * hz), 2) - len(frames)
    return np.concatenate([frames, np.repeat(frames[-1:], max(missing, 0), axis=0)])
