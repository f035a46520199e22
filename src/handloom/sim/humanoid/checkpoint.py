"""A student's checkpoint: the network with its robot, its latents and the settings that it was trained with."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from handloom.errors import ConfigError
from handloom.io.folder import Folder
from handloom.sim.humanoid.dagger import StudentPolicy, Trained
from handloom.sim.humanoid.robot import Body, Humanoid
from handloom.sim.humanoid.settings import ImitateSettings
from handloom.train.checkpoint import CheckpointFacts, load_weights, put_weights, save
from handloom.train.robomirror.imitation import Actor
from handloom.train.robomirror.latents import Latents, latents_from
from handloom.train.robomirror.network.student import Student

RECIPE = "imitate"
"""Of `checkpoint.json`: no recipe of `handloom train`."""


@dataclass(frozen=True)
class OpenedStudent:
    """A student that acts.

    videos: `{dataset}/{video_id}` of the table's that it was trained on, at `data_version` (0: without a table).
    data_uri: of the table's database; None without one, and in older checkpoints.
    latents_uri: of its auto-encoder when it was trained, None for linear latents. rounds: the course of the training,
    `dagger.Round` as JSON; train_s: seconds of CPU time that it took.
    """

    uri: str
    policy: StudentPolicy
    latents: Latents
    settings: ImitateSettings
    videos: frozenset[str]
    data_version: int
    data_uri: str | None
    latents_uri: str | None
    rounds: list[dict[str, Any]]
    train_s: float


def save_student(
    folder: Folder, trained: Trained, body: Body, latents: Latents, settings: ImitateSettings, data_version: int,
    data_uri: str | None, videos: Iterable[str], train_s: float,
) -> str:  # fmt: skip
    """Write the checkpoint below `folder`; its address. Raises StoreError where it cannot be written."""
    imitator = trained.imitator
    facts = CheckpointFacts(
        recipe=RECIPE,
        settings=settings.model_dump(mode="json"),
        settings_key="",
        step=imitator.step,
        epoch=len(trained.rounds),
        batches=0,
        finished=True,
        data_version=data_version,
        windows_key="",
        workers=1,
        facts={
            "robot": body.humanoid.model_dump(mode="json"),
            "joints": list(body.joints),
            "latents": latents.facts(),
            "widths": list(imitator.widths),
            "videos": sorted(set(videos)),
            "data_uri": data_uri,
        },
        frozen={},
        train_s=train_s,
        stage="imitate",
    )
    lines = "".join(json.dumps(vars(one)) + "\n" for one in trained.rounds)
    return save(folder, facts, imitator.network, imitator.state(), lines, keep=1)


def open_student(
    uri: str, body: Body, storage_options: Mapping[str, str] | None = None, motion: str | None = None
) -> OpenedStudent:
    """Read a student.

    Args:
        uri: an `--out` of `sim imitate`, or one checkpoint. motion: the auto-encoder's address, where it has moved.

    Raises:
        ConfigError: there is no checkpoint, or one of something else, or of another robot.
    """
    found = load_weights(uri, storage_options or {})
    if found.facts.recipe != RECIPE:
        hint = "give an --out of `handloom sim imitate`"
        raise ConfigError(f"{found.uri} is a checkpoint of the recipe {found.facts.recipe}, not of a student", hint)
    facts: dict[str, Any] = found.facts.facts
    robot = Humanoid.model_validate(facts["robot"])
    if (robot.name, tuple(facts["joints"])) != (body.humanoid.name, body.joints):
        differing = sorted(set(facts["joints"]) ^ set(body.joints))
        told = f": {', '.join(differing[:3])} in one of them only" if differing else ""
        problem = f"{found.uri} is of the robot {robot.name}, not of {body.humanoid.name}{told}"
        raise ConfigError(problem, f"give --robot {robot.name}, or train a student of {body.humanoid.name}")
    settings = found.settings_as(ImitateSettings)
    network = Student(settings.student, *facts["widths"])
    put_weights(network, found.network, found.uri)
    latents = latents_from(facts["latents"], motion)
    policy = StudentPolicy(Actor(network), body)
    return OpenedStudent(
        uri=found.uri,
        policy=policy,
        latents=latents,
        settings=settings,
        videos=frozenset(facts["videos"]),
        data_version=found.facts.data_version,
        data_uri=facts.get("data_uri"),
        latents_uri=facts["latents"].get("uri"),
        rounds=found.history,
        train_s=found.facts.train_s,
    )
