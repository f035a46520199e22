"""A published model's files on this machine: found or fetched once, identified by their bytes, loaded whole."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from handloom.errors import ConfigError, with_extra
from handloom.models.hub.files import local_model
from handloom.models.hub.fingerprints import LETTERS, file_digest, hub_folder, hub_revision

WEIGHTS = (r"model(-\d+-of-\d+)?\.safetensors", r"pytorch_model(-\d+-of-\d+)?\.bin")
"""Names of weights that transformers reads, those that it prefers first."""
PREPROCESSING = ("video_preprocessor_config.json", "preprocessor_config.json", "processor_config.json")


@dataclass(frozen=True)
class PretrainedFiles:
    """One model on this machine.

    name: as it was asked for. source: what `from_pretrained` takes, a folder or an id of the hub. revision: the hub's
    commit, None for a folder. folder: where the files lie.
    """

    name: str
    source: str
    revision: str | None
    folder: Path

    def digest(self) -> str:
        """SHA-256 over the names and bytes of configuration, preprocessing and weights, 16 hex digits.

        The same for a model of the hub and for a folder with the same files; other files beside them (tokenizers,
        weights in further formats) do not count.

        Raises:
            ConfigError: a file cannot be read.
        """
        return self.digest_of([*weight_names(self.folder), "config.json", *PREPROCESSING])

    def digest_of(self, names: Iterable[str]) -> str:
        """SHA-256 over the names and bytes of those of the files that are there, 16 hex digits. Raises ConfigError as
        `digest`."""
        paths = [self.folder / name for name in sorted(names) if (self.folder / name).is_file()]
        try:
            lines = [f"{path.relative_to(self.folder).as_posix()} {file_digest(path)}" for path in paths]
        except OSError as error:
            problem = f"a file of the model {self.name!r} cannot be read: {error}"
            raise ConfigError(problem, "check who may read its files") from None
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:LETTERS]

    def weights(self) -> str:
        """The weights' version, for people: `revision COMMIT` of the hub, or `files DIGEST`."""
        return f"revision {self.revision}" if self.revision else f"files {self.digest()}"

    def preprocessing(self) -> dict[str, Any]:
        """What the model's authors say about its images; empty where they say nothing.

        Raises:
            ConfigError: the file cannot be read as JSON.
        """
        for name in PREPROCESSING:
            path = self.folder / name
            if not path.is_file():
                continue
            try:
                found = json.loads(path.read_text())
            except (OSError, ValueError) as error:
                problem = f"{path}, the preprocessing of the model {self.name!r}, cannot be read: {error}"
                raise ConfigError(problem, "copy the model's files again") from None
            if isinstance(found, dict):
                return found.get("video_processor") or found.get("image_processor") or found
        return {}


def weight_names(folder: Path) -> list[str]:
    """The files of weights in a folder that transformers would read; empty where there are none."""
    names = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    found = ([name for name in names if re.fullmatch(pattern, name)] for pattern in WEIGHTS)
    return next((each for each in found if each), [])


def find_pretrained(setting: str, model: str, revision: str = "") -> PretrainedFiles:
    """The files of a model: a folder, an s3:// URI of one, or an id of the hub, whose files are fetched if need be.

    Args:
        setting: name of the setting that names the model, for errors.
        revision: branch, tag or commit of a model of the hub; empty: its main branch as this machine's cache has it.

    Raises:
        ConfigError: transformers is not installed; the model does not exist, cannot be fetched, or has no weights; a
            revision is given for a folder.
    """
    require_transformers(setting, model)
    source = local_model(model)
    folder = Path(source)
    if folder.is_dir():
        if revision:
            raise ConfigError(f"{setting} is the folder {model!r}, which has no revision {revision!r}", "leave it out")
        return _with_weights(setting, PretrainedFiles(model, source, None, folder))
    if folder.is_file():
        raise ConfigError(f"{setting} is the file {model!r}, expected a folder that save_pretrained wrote, or a hub id")
    return _with_weights(setting, _of_hub(setting, model, revision))


def _with_weights(setting: str, files: PretrainedFiles) -> PretrainedFiles:
    lacks = [what for what, found in {
        "config.json": (files.folder / "config.json").is_file(),
        "weights (model.safetensors or pytorch_model.bin)": weight_names(files.folder),
    }.items() if not found]  # fmt: skip
    if lacks:
        problem = f"{setting}: {files.name!r} has no {' and no '.join(lacks)} (looked in {files.folder})"
        raise ConfigError(problem, "give a folder that save_pretrained wrote, or a hub id")
    return files


def fetch_card(model: str) -> None:
    """Fetch the README.md of a model of the hub, whose files have just been fetched, if there is one: it names the
    licence."""
    from transformers.utils import cached_file

    optional = {"_raise_exceptions_for_missing_entries": False, "_raise_exceptions_for_connection_errors": False}
    with contextlib.suppress(OSError):
        cached_file(model, "README.md", revision=hub_revision(model), **optional)


def _of_hub(setting: str, model: str, revision: str) -> PretrainedFiles:
    folder = hub_folder(model, revision)
    if folder is None or not weight_names(folder):
        folder = _fetched(setting, model, revision or ("main" if folder is None else folder.name))
    return PretrainedFiles(model, model, folder.name, folder)


def _fetched(setting: str, model: str, revision: str) -> Path:
    from transformers.utils import cached_file

    optional: dict[str, Any] = {"_raise_exceptions_for_missing_entries": False}
    try:
        folder = Path(cached_file(model, "config.json", revision=revision)).parent
        options = {"revision": folder.name, **optional}
        for name in (*PREPROCESSING, "README.md"):
            cached_file(model, name, **options, _raise_exceptions_for_connection_errors=False)
        _fetch_weights(model, options)
    except (OSError, ValueError) as error:
        raise unavailable(setting, model, str(error)) from error
    return folder


def _fetch_weights(model: str, options: dict[str, Any]) -> None:
    from transformers.utils import cached_file, cached_files

    for single in ("model.safetensors", "pytorch_model.bin"):
        if cached_file(model, single, **options):
            return
        index = cached_file(model, f"{single}.index.json", **options)
        if index:
            shards = sorted(set(json.loads(Path(index).read_text())["weight_map"].values()))
            cached_files(model, shards, revision=options["revision"])
            return


def find_with_config(
    setting: str, model: str, revision: str = "", beside: Iterable[str] = ()
) -> tuple[PretrainedFiles, Any]:
    """The files of a model as `find_pretrained` finds them, and its configuration as transformers reads it.

    beside: names of more files, which are fetched from the hub where the model has them.

    Raises:
        ConfigError: as `find_pretrained`; or the configuration cannot be read.
    """
    files = find_pretrained(setting, model, revision)
    if files.revision is not None:
        _fetch_beside(setting, files, beside)
    from transformers import AutoConfig  # it is installed, or the line above has said so

    try:
        config = AutoConfig.from_pretrained(files.folder)
    except (OSError, ValueError, KeyError) as error:
        raise unavailable(setting, model, str(error)) from error
    if (
        config.model_type == "clip"
    ):  # the width of both its networks: their own configurations have one that is not used
        config.text_config.projection_dim = config.vision_config.projection_dim = config.projection_dim
    return files, config


def _fetch_beside(setting: str, files: PretrainedFiles, names: Iterable[str]) -> None:
    from transformers.utils import cached_file

    optional: dict[str, Any] = {"_raise_exceptions_for_missing_entries": False}
    optional |= {"_raise_exceptions_for_connection_errors": False, "revision": files.revision}
    try:
        for name in names:
            cached_file(files.source, name, **optional)
    except (OSError, ValueError) as error:
        raise unavailable(setting, files.name, str(error)) from error


def require_transformers(setting: str, model: str) -> None:
    """Raise ConfigError unless transformers and torch are installed."""
    try:
        import torch  # noqa: F401
        import transformers  # noqa: F401
    except ImportError as error:
        problem = f"{setting} = {model!r} needs {error.name}, which is not installed"
        raise ConfigError(problem, with_extra("models")) from None


def load_network(kind: Any, name: str, source: str | None, unneeded: Iterable[str] = (), **options: Any) -> Any:
    """The network with all of its weights; transformers alone would initialise missing ones at random.

    Args:
        kind: class of transformers. name: of the model, for errors. unneeded: beginnings of the names of weights that
            nobody asks for: they may be missing. options: of `from_pretrained`.

    Raises:
        ConfigError: weights are missing.
        OSError, ValueError, KeyError, RuntimeError: the files cannot be read, or do not fit.
    """
    with _quiet():
        network, found = kind.from_pretrained(source, output_loading_info=True, ignore_mismatched_sizes=True, **options)
    differing = sorted(found["mismatched_keys"])
    if differing:
        raise RuntimeError(f"size mismatch: {_difference(differing[0])} ({len(differing)} in all)")
    missing = sorted(each for each in found["missing_keys"] if not each.startswith(tuple(unneeded)))
    if missing:
        raise ConfigError(f"{name} lacks weights of {kind.__name__}: {', '.join(missing[:5])} ({len(missing)} in all)")
    return network


def _difference(found: str | tuple[str, Sequence[int], Sequence[int]]) -> str:
    """transformers 4 gives the name alone, 5 both shapes, too."""
    if isinstance(found, str):
        return found
    name, there, expected = found
    return f"{name} is {list(there)}, expected {list(expected)}"


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without progress bars and a table of the weights that are not needed: what is wrong becomes an error."""
    from transformers.utils import logging

    level, has_bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if has_bars:
            logging.enable_progress_bar()


def unavailable(setting: str, model: str, why: str) -> ConfigError:
    """The error for a model that cannot be loaded."""
    return ConfigError(
        f"{setting}: the model {model!r} cannot be loaded: {' '.join(why.split())[:300]}",
        f"fetch it once where there is a network (`hf download {model}`), or name a folder or an s3:// URI "
        "with its files",
    )
