"""The windows of stage 2: robot episodes, each with the human clips that resemble it most."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from handloom.errors import ConfigError
from handloom.schemas.tables.robot import TABLE
from handloom.store.filters import both
from handloom.store.search.arvrm import retrieve
from handloom.train import checkpoint as checkpoints
from handloom.train.arvrm.data.hands import check_rate, plain_spread, spread_of
from handloom.train.arvrm.data.human_library import Replay, human_windows, read_inputs, spread_keypoints
from handloom.train.arvrm.data.retrieval import FeatureMaker, all_features, at_random
from handloom.train.arvrm.data.robot_sample import Retrieved, RobotSample, image_name
from handloom.train.arvrm.network.backbone import image_spec, text_spec
from handloom.train.arvrm.settings import ArvrmSettings
from handloom.train.parts.encoders import ImageEncoder, TextEncoder, image_encoder, text_encoder
from handloom.train.parts.hand_clips import usable
from handloom.train.parts.robot_state import StateForm, check_things, form_of, plain_name, thing_name
from handloom.train.parts.scales import LEAST_STD, moments
from handloom.train.parts.table_checks import STATISTICS_WINDOWS, evenly
from handloom.train.parts.weights import is_fitting
from handloom.train.recipe import RecipeData

if TYPE_CHECKING:
    from handloom.api import Database
    from handloom.windows.api import Windows

GRIPPER_WORDS = ("gripper", "finger")


def robot_data(db: Database, settings: ArvrmSettings, version: int | None = None) -> RecipeData:
    """Training and held-out windows of robot episodes, with the human clips that were retrieved for each.

    facts: `state_names`, `gripper` (indices of the gripper's numbers), `state_mean`, `state_std`, `state_step_std` (S
    numbers each), with `things` their names, `things_mean` and `things_std`, the statistics of human keypoints as in
    stage 1, and `counts`. For acting: `robot_types`, and with
    images `camera`, `picture_size` (width, height; None without pictures) and `picture_share` of the first window's
    steps that have one.

    Raises:
        ConfigError: there are no robot episodes or none with states; their states have different names, or no things
            where they are asked for; an episode lacks the camera, or all lack pictures; steps come faster than frames;
            no window is as long as a sample; fewer than `topk` human clips show a hand.
        StoreError: the version of the episodes or of the clips no longer exists.
    """
    version, episodes, names, form = _asked(db, settings, version)
    size = settings.image_size if settings.image_encoder != "none" else 0
    sample = RobotSample(settings.camera, settings.phases, size, form=form)
    facts: dict[str, Any] = {"things": [thing_name(names[index]) for index, _ in form.things] if form else []}
    names = [plain_name(names[index]) for index in form.own] if form else names
    facts |= {"state_names": names, "gripper": _gripper(names), "counts": {"episodes": len(episodes["keys"])}}
    facts |= {"robot_types": sorted({kind or "unknown" for kind in episodes["robot_type"]})}
    facts |= _pictures(db, settings, version, episodes)
    plain = _windows(db, settings, version, "train", replace(sample, image_size=0))
    facts |= state_spread(plain, len(names), len(facts["things"]))
    if settings.retrieval:
        settings = settings.model_copy(update={"human_version": settings.human_version or db.version})
        usable(db, settings.human_where, settings.human_version)
        retrieved, counts = _retrieve(db, settings, version, episodes["keys"])
        sample = replace(sample, retrieved=retrieved)
        facts["counts"] |= counts
    # With `init`, the statistics come with the weights of stage 1.
    is_new = settings.retrieval and not settings.init
    facts |= spread_of(human_windows(db, settings, False, whole=False)) if is_new else plain_spread()
    train, held_out = (_windows(db, settings, version, split, sample) for split in ("train", "held_out"))
    facts["counts"] |= {"train": dict(train.counts), "held_out": dict(held_out.counts)}
    return RecipeData(train, held_out, version, facts)


def check_robot(db: Database, settings: ArvrmSettings, version: int | None = None) -> None:
    """Raise ConfigError as `robot_data`, where that can be told of episodes and clips without reading windows."""
    version, _, _, form = _asked(db, settings, version)
    _windows(db, settings, version, "train", RobotSample(settings.camera, settings.phases, 0, form=form))
    if settings.retrieval:
        usable(db, settings.human_where, settings.human_version or db.version)


def _asked(
    db: Database, settings: ArvrmSettings, version: int | None
) -> tuple[int, dict[str, Any], list[str], StateForm | None]:
    """The version of the episodes, what they are, the names of their states, and how these are told."""
    table = db.table(TABLE, version or settings.version)
    if table is None:
        raise ConfigError(
            f"there are no robot episodes in {db.uri}", "fill the table with `handloom ingest lerobot DIR --db DB`"
        )
    version = table.version
    episodes = _episodes(db, settings, version)
    check_rate(settings, min(episodes["fps"]))
    return version, episodes, *_names(db, settings, version, episodes)


def _episodes(db: Database, settings: ArvrmSettings, version: int) -> dict[str, Any]:
    columns = ["episode_id", "source_key", "state_names", "cameras", "fps", "robot_type"]
    rows = db.read(TABLE, columns, both(settings.where, "state IS NOT NULL"), version)
    if not rows.num_rows:
        total = db.read(TABLE, ["episode_id"], None, version).num_rows
        raise ConfigError(
            f"none of the {total} robot episodes of {db.uri} has states and passes where = {settings.where!r}",
            "change the filter, or ingest with the dataset's own key: `handloom ingest lerobot DIR --state KEY`",
        )
    values = {name: rows.column(name).to_pylist() for name in columns}
    pairs = zip(values["episode_id"], values["cameras"], strict=True)
    lacking = [episode for episode, cameras in pairs if settings.camera not in cameras]
    there = sorted({camera for cameras in values["cameras"] for camera in cameras})
    if settings.camera and lacking:
        raise ConfigError(
            f"{len(lacking)} episodes have no camera {settings.camera!r}, the first of them {min(lacking)}",
            f"cameras that are there: {', '.join(there) or 'none'}",
        )
    if settings.image_encoder != "none" and not there:
        problem = f"image_encoder is {settings.image_encoder}, and no robot episode of {db.uri} has pictures"
        raise ConfigError(problem, "train with image_encoder = none, or ingest a dataset with pictures")
    return values | {"keys": dict(zip(values["episode_id"], values["source_key"], strict=True))}


def _names(
    db: Database, settings: ArvrmSettings, version: int, episodes: Mapping[str, Any]
) -> tuple[list[str], StateForm | None]:
    """Names of a state's numbers, and with `things` which of them are the robot's own."""
    kinds = {tuple(names) if names else None for names in episodes["state_names"]}
    if len(kinds) > 1:
        listed = "; ".join(", ".join(kind or ("no names",)) for kind in list(kinds)[:3])
        raise ConfigError(f"the episodes' states differ: {listed}", "choose with --set \"where=dataset = '...'\"")
    names = next(iter(kinds))
    form = form_of(names, things=True) if settings.things else None
    if settings.things:
        check_things(form, names, db.uri)
    if names is None:
        width = _windows(db, settings, version, None, RobotSample())[0]["state"].shape[1]
        names = tuple(f"state {number}" for number in range(width))
    if len(names) < 2:
        raise ConfigError(f"the state has one number, {names[0]!r}; the map needs an arm and a gripper")
    return list(names), form


def _gripper(names: list[str]) -> list[int]:
    """Indices of the gripper's numbers: those with its name, or the last where no name or every name has it."""
    gripper = [i for i, name in enumerate(names) if any(word in name.lower() for word in GRIPPER_WORDS)]
    return gripper if 0 < len(gripper) < len(names) else [len(names) - 1]


def _windows(db: Database, settings: ArvrmSettings, version: int, split: str | None, sample: RobotSample) -> Windows:
    fields = ["state", "task", "num_frames", "fps", *([image_name(settings.camera)] if sample.image_size else [])]
    return db.windows(
        past=1,
        future=(settings.steps - 1) * settings.phases,
        fields=fields,
        rate_hz=settings.rate_hz * settings.phases,
        stride=settings.stride,
        pad=settings.pad,
        where=both(settings.where, "state IS NOT NULL"),
        split=split,
        held_out_share=settings.held_out_share,
        seed=settings.seed,
        version=version,
        table=TABLE,
        image_size=sample.image_size or None,
        transform=sample,
    )


def _pictures(db: Database, settings: ArvrmSettings, version: int, episodes: Mapping[str, Any]) -> dict[str, Any]:
    """Facts about the images that the network sees; none without an image encoder."""
    first = settings.camera or next((names[0] for names in episodes["cameras"] if names), "")
    if settings.image_encoder == "none" or not first:
        return {}
    name = image_name(settings.camera)
    windows = db.windows(
        past=1, future=settings.steps * settings.phases - 1, fields=[name], rate_hz=settings.rate_hz * settings.phases,
        pad=True, where=both(settings.where, "state IS NOT NULL"), version=version, table=TABLE,
    )  # fmt: skip
    window = windows[0]
    there = window[f"{name}_valid"][window["valid"]]
    size = [window[name].shape[2], window[name].shape[1]] if there.any() else None
    return {"camera": first, "picture_size": size, "picture_share": float(there.mean())}


def state_spread(windows: Windows, size: int, num_things: int) -> dict[str, list[float]]:
    """Mean, deviation and deviation of a step of every number, and mean and deviation of what is told of things.

    From at most 512 training windows. A number that hardly changes in them is not scaled up: what is learned of it is
    that it stays. Its steps have the least deviation.
    """
    if not len(windows):  # the loop refuses to train on none
        found = {f"state_{name}": [1.0] * size for name in ("mean", "std", "step_std")}
        return found | {f"things_{name}": [1.0] * num_things for name in ("mean", "std")}
    picked = [windows[index] for index in evenly(len(windows), STATISTICS_WINDOWS)]
    states = np.stack([one["state"] for one in picked]).astype(np.float64)
    if not np.isfinite(states).any((0, 1)).all():
        raise ConfigError("a number of the robot's state is unknown in all training windows", "leave it out at ingest")
    steps = np.nan_to_num(np.sqrt(np.nanmean(np.diff(states, axis=1) ** 2, axis=(0, 1))))
    facts = _scaled("state", states) | {"state_step_std": np.maximum(steps, LEAST_STD).tolist()}
    if num_things:
        facts |= _scaled("things", np.stack([one["things"] for one in picked]).astype(np.float64))
    return facts


def _scaled(name: str, values: NDArray[np.float64]) -> dict[str, list[float]]:
    """Mean and deviation of each of the last axis's numbers; a deviation of 1 for one that hardly changes."""
    mean, std = moments(values.reshape(-1, values.shape[-1]))
    return {f"{name}_mean": mean.tolist(), f"{name}_std": np.where(std > LEAST_STD, std, 1.0).tolist()}


def _retrieve(
    db: Database, settings: ArvrmSettings, version: int, episodes: Mapping[str, str]
) -> tuple[Retrieved, dict[str, Any]]:
    """The `topk` clips of every episode, and counts for the report."""
    with_images = settings.image_encoder != "none"
    clips = human_windows(db, settings, with_images, whole=True)
    of_robots = _clips_of_episodes(db, version) & set(clips.clip_ids)
    human_keys = _run_keys(db, set(clips.clip_ids) - of_robots, clips.version)
    if len(human_keys) < settings.topk:
        raise ConfigError(
            f"topk is {settings.topk}, but there are {len(human_keys)} human clips with hands",
            "lower topk, widen human_where, or extract more clips",
        )
    maker = FeatureMaker(*encoders(db, settings))
    read_human = lambda ids: read_inputs(clips, ids, "images", "narration")
    human = all_features(db, "clips", human_keys, read_human, maker, settings.steps)
    whole = _whole_episodes(db, settings, version)
    read_robot = lambda ids: read_inputs(whole, ids, image_name(settings.camera), "task")
    robot = all_features(db, TABLE, episodes, read_robot, maker, settings.steps)
    is_random = settings.retrieve == "random"
    found = (
        at_random(robot, human, settings.topk, settings.seed) if is_random else retrieve(robot, human, settings.topk)
    )
    ids = tuple(sorted({clip for clips_ in found.values() for clip, _ in clips_}))
    number = {clip: place for place, clip in enumerate(ids)}
    places = {episode: np.array([number[clip] for clip, _ in near]) for episode, near in found.items()}
    replay = Replay(human_windows(db, settings, with_images, whole=False)) if settings.replay else None
    keypoints = spread_keypoints(human_windows(db, settings, False, whole=True), ids)
    counts: dict[str, Any] = {
        "human_clips": len(human.ids),
        "clips_of_robots": len(of_robots),
        "retrieved_clips": len(ids),
    }
    counts |= {"human_version": clips.version, "features_key": maker.key}
    counts["mean_similarity"] = float(np.mean([value for near in found.values() for _, value in near]))
    counts["without_text"] = int((~np.isfinite(human.text.astype(np.float32)).any(1)).sum())
    return Retrieved(places, ids, keypoints, replay), counts


def _clips_of_episodes(db: Database, version: int) -> set[str]:
    """Clips of the episodes' own videos, not to be retrieved: an episode resembles its own video most, and hands found
    in a video of a robot are not hands."""
    listed = db.read(TABLE, ["clip_ids"], None, version).column("clip_ids").to_pylist()
    return {clip for clips in listed for clip in clips or []}


def _run_keys(db: Database, ids: set[str], version: int) -> dict[str, str]:
    keys = db.clips(["clip_id", "run_key"], version=version).to_pydict()
    return {id_: key for id_, key in zip(keys["clip_id"], keys["run_key"], strict=True) if id_ in ids}


def _whole_episodes(db: Database, settings: ArvrmSettings, version: int) -> Windows:
    with_images = settings.image_encoder != "none"
    return db.windows(
        past=1,
        future=settings.steps - 1,
        fields=["task", *([image_name(settings.camera)] if with_images else [])],
        stride=1 << 20,
        pad=True,
        where=both(settings.where, "state IS NOT NULL"),
        version=version,
        table=TABLE,
        image_size=settings.image_size if with_images else None,
    )


def encoders(db: Database, settings: ArvrmSettings) -> tuple[TextEncoder, ImageEncoder | None]:
    """The encoders of text and of images that retrieval compares with: published ones, the small ones of `init`, or new
    small ones. No image encoder where the settings use none."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        of_text = text_encoder(text_spec(settings))
        of_images = image_encoder(image_spec(settings)) if settings.image_encoder != "none" else None
    every = {"backbone.words.": of_text, "backbone.eyes.encoder.": of_images}
    own = {prefix: part for prefix, part in every.items() if part is not None and not part.frozen}
    if settings.init and own:
        start = checkpoints.load_start(settings.init, db.storage_options, "arvrm")
        for prefix, part in own.items():
            _load_small(part, prefix, start.network, start.uri)
    return of_text, of_images


def _load_small(part: nn.Module, prefix: str, weights: Mapping[str, torch.Tensor], uri: str) -> None:
    """Load a small encoder from the weights of a network. Raises ConfigError where they are of another one."""
    given = {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}
    unfit = next((name for name in part.state_dict() if not is_fitting(part, given, [name])), None)
    if unfit is not None:
        raise ConfigError(
            f"{uri} does not hold the small encoder of these settings: {prefix}{unfit} is missing or has another shape",
            "give the encoders, dim, image_size and image_width that the checkpoint was trained with",
        )
    part.load_state_dict(given)
