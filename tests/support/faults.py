"""Faults in a worker without a patch: a setting that misbehaves when it is read for some clips."""

from __future__ import annotations

import os
import re
import resource
import signal
import sys
import time

import ray

from handloom.schemas.clip import Clip
from handloom.schemas.settings import HandsConfig, Resources, RunConfig


class Faults(HandsConfig):
    """`keypoint_scale` is read once or twice a clip in the stage `hand_fit`: misbehaves by the dataset of that clip."""

    def __getattribute__(self, name: str):
        if name == "keypoint_scale" and (dataset := dataset_of_caller()) is not None:
            misbehave(dataset)
        return super().__getattribute__(name)


def dataset_of_caller() -> str | None:
    """The dataset of the clip that a function further up works on."""
    frame = sys._getframe(2)
    while frame is not None:
        if isinstance(frame.f_locals.get("clip"), Clip):
            return frame.f_locals["clip"].dataset
        frame = frame.f_back
    return None


def misbehave(dataset: str) -> None:
    if dataset == "bug":
        raise TypeError("injected")
    if dataset == "memory":
        raise MemoryError("injected")
    if dataset == "spoilt":  # no file can be opened any more, such as those of the models
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
        raise TypeError("injected")
    if dataset == "hang":
        time.sleep(3600)
    if dataset == "spin":
        re.match("(a|aa)+$", "a" * 200 + "b")  # takes very long, and holds the interpreter's lock
    if dataset == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if dataset == "stop":
        os.kill(os.getpid(), signal.SIGSTOP)


class SlowToLoad(str):
    """`hands.device`, compared before the models of the hands are loaded; in an actor elsewhere that takes for ever.

    Not in the task that asks a node for its versions, which compares it too.

    where: a variable; only where the environment has it.
    """

    __hash__ = str.__hash__

    def __new__(cls, text: str, where: str = ""):
        made = super().__new__(cls, text)
        made.pid, made.where = os.getpid(), where
        return made

    def __eq__(self, other: object) -> bool:
        elsewhere = os.getpid() != self.pid and (not self.where or self.where in os.environ)
        if elsewhere and ray.get_runtime_context().get_actor_id() is not None:
            time.sleep(3600)
        return str.__eq__(self, other)

    def __getnewargs__(self) -> tuple[str, str]:
        return str(self), self.where


def slow_to_load(where: str = "", **resources: object) -> RunConfig:
    """The usual settings, with models that workers cannot load."""
    hands = HandsConfig().model_copy(update={"device": SlowToLoad("cpu", where)})
    return RunConfig(hands=hands, resources=Resources(**resources))


def faulty(**resources: object) -> RunConfig:
    """The usual settings, whose rows are the usual ones, with faults for the datasets above."""
    return RunConfig(hands=Faults(), resources=Resources(**resources))
