"""Checkpoints: folders that are complete or do not exist, and that are read without running code.

`checkpoints/step-00000120/` holds `network.pt` (weights without those of frozen encoders), `training.pt` (optimiser,
loader and random states of every rank), `history.jsonl`, and `checkpoint.json`, which is written last and names the
others with their sizes and CRC-32. A local folder is written under another name and then renamed; S3 cannot rename: a
folder there is a checkpoint if it has a `checkpoint.json`.
"""

from __future__ import annotations

import io
import logging
import pickle
import random
import zipfile
import zlib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import MISSING, asdict, dataclass, field, fields
from datetime import UTC, datetime
from typing import IO, Any, TypeVar, cast

import numpy as np
import torch
from pydantic import BaseModel, ValidationError
from torch import Tensor, nn

from handloom import __version__
from handloom.errors import ConfigError, StoreError
from handloom.io.atomic import UNFINISHED, atomic_folder
from handloom.io.folder import Crc32, Folder
from handloom.schemas.json_format import explain
from handloom.schemas.settings import differing
from handloom.schemas.training import TrainSettings
from handloom.train.history import parse_lines

log = logging.getLogger(__name__)

S = TypeVar("S", bound=BaseModel)
FOLDER = "checkpoints"
FACTS, NETWORK, TRAINING, HISTORY = "checkpoint.json", "network.pt", "training.pt", "history.jsonl"
JOB = "job.json"
"""In `--out`: `variants` names the jobs' folders, the asked one first."""
STALE = "it is damaged, or of another version of handloom: give another checkpoint, or train again"
NO_RESUME = "start again with --no-resume, which removes the checkpoints, or give another --out"


def seed_all(seed: int, rank: int = 0) -> None:
    """Seed Python's, NumPy's and torch's generators, differently on every rank."""
    words = np.random.SeedSequence([seed, rank]).generate_state(3)
    random.seed(int(words[0]))
    np.random.seed(int(words[1]))
    torch.manual_seed(int(words[2]))


def random_state(device: torch.device) -> dict[str, Any]:
    """The state of all generators, in types that `torch.load(weights_only=True)` accepts."""
    of_numpy: Any = np.random.get_state()  # a tuple, by default
    kind, keys, position, has_gauss, gauss = of_numpy
    version, words, next_gauss = random.getstate()
    state = {
        "python": [version, list(words), next_gauss],
        "numpy": [str(kind), keys.tolist(), int(position), int(has_gauss), float(gauss)],
        "torch": torch.get_rng_state(),
    }
    return state | ({"cuda": torch.cuda.get_rng_state(device)} if device.type == "cuda" else {})


def set_random_state(state: dict[str, Any], device: torch.device) -> None:
    """Restore the result of `random_state`; the GPU's state only if the job had and has a GPU."""
    version, words, next_gauss = state["python"]
    random.setstate((version, tuple(words), next_gauss))
    kind, keys, position, has_gauss, gauss = state["numpy"]
    np.random.set_state((kind, np.array(keys, np.uint32), position, has_gauss, gauss))
    torch.set_rng_state(state["torch"])
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], device)


class _Stored(dict[str, Any]):
    """An object of `checkpoint.json` that was read. A name that it lacks raises StoreError, which says where."""

    problem = ""

    def __missing__(self, name: str) -> Any:
        raise StoreError(f"{self.problem}.{name}", STALE)


@dataclass(frozen=True)
class CheckpointFacts:
    """The content of `checkpoint.json`: job, position and versions. JSON values only.

    step: finished optimiser steps. epoch: finished epochs. batches: of the current epoch, taken by every rank.
    finished: training has ended. data_version: of the table. windows_key: of the settings of the windows. facts: the
    recipe's (`RecipeData.facts`), which with the settings define its network. frozen: {name of a frozen part: name of
    its encoder}; their weights are not in the checkpoint. train_s: seconds of training so far.
    """

    recipe: str
    settings: dict[str, Any]
    settings_key: str
    step: int
    epoch: int
    batches: int
    finished: bool
    data_version: int
    windows_key: str
    workers: int
    facts: dict[str, Any]
    frozen: dict[str, str]
    train_s: float
    stage: str = ""
    handloom: str = __version__
    at: str = ""
    files: dict[str, dict[str, int]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The folder's name; names sort by step."""
        return f"step-{self.step:08d}"


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that was read. uri: of its folder. network: the trained weights. training: the content of
    `training.pt` (optimizer, loaders, random, epoch_began). history: lines."""

    uri: str
    facts: CheckpointFacts
    network: dict[str, Tensor]
    training: dict[str, Any]
    history: list[dict[str, Any]]

    def settings_as(self, kind: type[S]) -> S:
        """Its settings; those that it lacks are at their defaults, which is logged where training may have had others.

        Raises ConfigError for those of another version, such as names that this one lacks.
        """
        try:
            settings = kind(**self.facts.settings)
            missing = sorted(kind.model_fields.keys() - self.facts.settings.keys())
            if missing and isinstance(settings, TrainSettings) and settings.settings_key() != self.facts.settings_key:
                log.warning("%s/%s has no settings %s: defaults are taken", self.uri, FACTS, ", ".join(missing))
            return settings
        except ValidationError as error:
            problem = f"{self.uri} was trained by handloom {self.facts.handloom} with other settings: {explain(error)}"
            raise ConfigError(
                problem, f"train again, or open it with the version that made it; this is {__version__}"
            ) from error


def save(
    folder: Folder, facts: CheckpointFacts, network: nn.Module, training: Mapping[str, Any], history: str, keep: int
) -> str:
    """Write a checkpoint and remove all but the newest `keep`; returns its URI.

    Raises StoreError where the folder cannot be written.
    """
    files = {}
    contents = ((NETWORK, trained_weights(network)), (TRAINING, dict(training)), (HISTORY, history.encode()))
    with atomic_folder(folder.sub(FOLDER), facts.name) as place:
        for name, content in contents:
            crc = Crc32()
            with place.open(name, crc) as sink:
                if isinstance(content, bytes):
                    sink.write(content)
                else:
                    torch.save(content, cast(IO[bytes], sink))  # it only writes
            files[name] = {"bytes": sink.num_bytes, "crc32": crc.value}
        at = datetime.now(UTC).isoformat(timespec="seconds")
        place.write_json(FACTS, asdict(facts) | {"files": files, "at": at})
    _prune(folder, keep)
    return f"{folder.uri}/{FOLDER}/{facts.name}"


def newest(folder: Folder) -> str | None:
    """Name of the newest complete checkpoint; unfinished and damaged ones are skipped, with a line in the log."""
    for name in reversed(_names(folder)):
        problem = _problem(folder, name)
        if not problem:
            return name
        log.warning("skipping the checkpoint %s/%s/%s: %s", folder.uri, FOLDER, name, problem)
    return None


def peek(folder: Folder) -> tuple[CheckpointFacts, str] | None:
    """Facts and URI of the newest checkpoint, without reading its weights: to refuse a job before it starts."""
    for name in reversed(_names(folder)):
        place = folder.sub(FOLDER).sub(name)
        with suppress(ValueError):
            return _facts(place), place.uri
    return None


def load(folder: Folder, name: str) -> Checkpoint:
    """The checkpoint `name` of a job's folder. Raises StoreError where it is damaged."""
    return _load(folder.sub(FOLDER).sub(name))


def load_start(uri: str, storage_options: Mapping[str, str], recipe: str) -> Checkpoint:
    """The checkpoint that `init` names. Raises ConfigError: there is none at `uri`, or it is of another recipe.
    StoreError: it is damaged."""
    found = load_weights(uri, storage_options)
    _check_recipe(found.facts, found.uri, recipe)
    return found


def find_start(uri: str, storage_options: Mapping[str, str], recipe: str) -> tuple[CheckpointFacts, str]:
    """Facts and URI of the checkpoint that `init` names, without reading its weights: to refuse a job before it starts.
    Raises as `load_start`."""
    folder = _job_of(Folder.parse(uri, storage_options))
    if folder.read(FACTS) is None:
        found = peek(folder)
    else:
        try:
            found = _facts(folder), folder.uri
        except ValueError as error:
            raise _damaged(folder, error) from error
    if found is None:
        raise _none_at(uri)
    _check_recipe(*found, recipe)
    return found


def load_weights(uri: str, storage_options: Mapping[str, str]) -> Checkpoint:
    """The checkpoint at `uri`: its own folder, a variant's folder, or an `--out` (the newest of the asked variant).

    Raises:
        ConfigError: there is no checkpoint at `uri`.
    """
    folder = _job_of(Folder.parse(uri, storage_options))
    if folder.read(FACTS) is not None:
        return _load(folder)
    name = newest(folder)
    if name is None:
        raise _none_at(uri)
    return load(folder, name)


def _job_of(folder: Folder) -> Folder:
    """The folder of the asked variant of an `--out`; any other folder as it is."""
    job = folder.read_json(JOB)
    return folder.sub(job["variants"][0]) if isinstance(job, dict) and job.get("variants") else folder


def _none_at(uri: str) -> ConfigError:
    hint = "give a folder checkpoints/step-NNNNNNNN of a job, or the --out of one"
    return ConfigError(f"there is no complete checkpoint at {uri}", hint)


def _check_recipe(facts: CheckpointFacts, uri: str, recipe: str) -> None:
    if facts.recipe != recipe:
        problem = f"{uri}, which `init` names, is a checkpoint of the recipe {facts.recipe}, not of {recipe}"
        raise ConfigError(problem, f"give an --out of `handloom train {recipe}`, or leave `init` out")


def check_fits(facts: CheckpointFacts, uri: str, recipe: str, settings: TrainSettings, workers: int) -> None:
    """Refuse to resume from a checkpoint of another job.

    Raises:
        ConfigError: the recipe, settings or the number of workers differ; it names each difference.
    """
    if facts.recipe != recipe:
        raise ConfigError(f"{uri} is a checkpoint of the recipe {facts.recipe}, not of {recipe}", NO_RESUME)
    asked = settings.model_dump(mode="json")
    if facts.settings_key != settings.settings_key():
        listed = "; ".join(
            f"{name} is {_show(old)} in the checkpoint, {_show(new)} now"
            for name, old, new in differing(_weighty(facts.settings, settings), _weighty(asked, settings))
        )
        listed = listed or f"handloom {facts.handloom} has other settings than {__version__}"
        raise ConfigError(f"{uri} was made with other settings: {listed}", f"give those settings, or {NO_RESUME}")
    if facts.workers != workers:
        raise ConfigError(
            f"{uri} was made by {facts.workers} workers, {workers} were asked for: the batches would differ",
            f"give --workers {facts.workers}, or {NO_RESUME}",
        )


def trained_weights(network: nn.Module) -> dict[str, Tensor]:
    """The state of `network` without its frozen parts, on the CPU."""
    frozen = tuple(f"{name}." for name in frozen_parts(network))
    alone = {name for name, value in network.named_parameters() if not value.requires_grad}
    state = {name: value for name, value in network.state_dict().items() if name not in alone}
    return {name: value.detach().cpu() for name, value in state.items() if not name.startswith(frozen or "\0")}


def put_weights(network: nn.Module, weights: Mapping[str, Tensor], uri: str) -> None:
    """Load the result of `trained_weights`. Raises ConfigError where names or shapes do not fit."""
    expected = trained_weights(network)
    other = sorted(expected.keys() ^ weights.keys())
    other += [name for name in expected.keys() & weights.keys() if expected[name].shape != weights[name].shape]
    if other:
        raise ConfigError(
            f"the weights of {uri} do not fit the network: {', '.join(other[:5])}{' ...' if len(other) > 5 else ''}",
            f"they were made by another version of handloom or of the table; {NO_RESUME}",
        )
    network.load_state_dict(dict(weights), strict=False)


def frozen_parts(network: nn.Module) -> dict[str, str]:
    """`{name: encoder}` of the largest submodules with all parameters frozen; encoder: its `name`, or its class."""
    found: dict[str, str] = {}
    for name, module in network.named_modules():
        parameters = list(module.parameters())
        inside = any(name.startswith(f"{outer}.") for outer in found)
        if name and parameters and not inside and not any(p.requires_grad for p in parameters):
            found[name] = str(getattr(module, "name", type(module).__name__))
    return found


def _load(place: Folder) -> Checkpoint:
    try:
        facts = _facts(place)
        data = {name: _whole(place, name, sizes) for name, sizes in facts.files.items()}
        network, training = (_read(data[name]) for name in (NETWORK, TRAINING))
        return Checkpoint(place.uri, facts, network, training, parse_lines(data[HISTORY]))
    except (AttributeError, TypeError, KeyError, ValueError, pickle.UnpicklingError, zipfile.BadZipFile) as error:
        raise _damaged(place, error) from error


def _facts(place: Folder) -> CheckpointFacts:
    """The content of `checkpoint.json`. Raises ValueError where facts are missing."""
    content = place.read_json(FACTS)
    if not isinstance(content, dict):
        raise ValueError(f"{FACTS} is no JSON object")
    known = fields(CheckpointFacts)
    needed = [one.name for one in known if one.default is MISSING and one.default_factory is MISSING]
    missing = [name for name in needed if name not in content or (name == "settings" and not content[name])]
    if missing:
        raise ValueError(f"{FACTS} has no {', '.join(missing)}")
    found = {one.name: content[one.name] for one in known if one.name in content}
    for name in ("settings", "facts"):
        if not isinstance(found[name], dict):
            raise ValueError(f"{name} in {FACTS} is {found[name]!r}, no JSON object")
        found[name] = _Stored(found[name])
        found[name].problem = f"{place.uri}/{FACTS}, of handloom {content.get('handloom', 'unknown')}, has no {name}"
    return CheckpointFacts(**found)


def _damaged(place: Folder, error: Exception) -> StoreError:
    return StoreError(f"the checkpoint {place.uri} is damaged: {error}", "use an older one")


def _read(data: bytes) -> Any:
    try:
        return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except RuntimeError as error:  # torch raises it for a file that torch did not write
        raise ValueError(str(error).splitlines()[0]) from error


def _whole(place: Folder, name: str, expected: Mapping[str, int]) -> bytes:
    data = place.read(name)
    if data is None or len(data) != expected["bytes"] or zlib.crc32(data) != expected["crc32"]:
        raise ValueError(f"{name} is {'absent' if data is None else 'not what was written'}")
    return data


def _problem(folder: Folder, name: str) -> str:
    """Why `name` is not a complete checkpoint; empty if it is. Reads every byte: damage may not change the size."""
    place = folder.sub(FOLDER).sub(name)
    content = place.read_json(FACTS)
    if not isinstance(content, dict) or not isinstance(content.get("files"), dict):
        return f"{FACTS} is absent or damaged: it was not finished"
    try:
        for file, expected in content["files"].items():
            _whole(place, file, expected)
    except (ValueError, KeyError, TypeError) as error:
        return str(error)
    return ""


def _names(folder: Folder) -> list[str]:
    return [name for name in folder.names(FOLDER) if name.startswith("step-")]


def _prune(folder: Folder, keep: int) -> None:
    stale = [name for name in folder.names(FOLDER) if name.endswith(UNFINISHED)]
    for name in (*_names(folder)[:-keep], *stale):
        folder.remove(f"{FOLDER}/{name}")


def _weighty(values: Mapping[str, Any], settings: TrainSettings) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name not in settings.COSTS}


def _show(value: Any) -> str:
    return "not set" if value is None else repr(value)
