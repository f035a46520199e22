"""From a configuration file and `--set key=value` to the settings of a run, checked against those of the database."""

from __future__ import annotations

import difflib
import json
import logging
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from handloom.errors import ConfigError
from handloom.schemas.settings import RunConfig, Settings, differing, flatten, of_any_version
from handloom.schemas.versions import differing_versions
from handloom.store.runs.runs import StoredSettings

log = logging.getLogger(__name__)
MAX_NEAR = 3
SECTION_ERRORS = ("model_type", "dict_type", "model_attributes_type")


def load_config(path: Path | None, assignments: Sequence[str]) -> RunConfig:
    """Defaults, then the TOML file, then the assignments.

    Raises:
        ConfigError: the file cannot be read, or a name or value is wrong; it names them and what was expected.
    """
    values = merged_values([path] if path else [], assignments, "video.sample_hz=10")
    try:
        return RunConfig(**values)
    except ValidationError as error:
        listed = "`handloom run --db DB --show-settings` prints all settings, docs/settings.md explains them"
        raise ConfigError(explain(error), settings_hint(error, flatten(RunConfig().model_dump()), listed)) from error


def merged_values(paths: Sequence[Path], assignments: Sequence[str], example: str) -> dict[str, Any]:
    """The TOML files one over the other, then the assignments. Raises ConfigError as `load_config` does."""
    values: dict[str, Any] = {}
    for path in paths:
        _lay_over(values, _read_toml(path))
    for assignment in assignments:
        name, equals, text = assignment.partition("=")
        if not equals or not name:
            raise ConfigError(f"--set {assignment!r} is no assignment", f"write --set {example}")
        _assign(values, name.strip().split("."), _value(text.strip()), assignment)
    return values


def check_stored(stored: StoredSettings | None, settings: Settings, versions: dict[str, str], run_key: str) -> None:
    """Refuse to mix rows of different settings in one database.

    Raises:
        ConfigError: naming every setting and version that differs, and the two ways on.
    """
    if stored is None:
        return
    if stored.run_key == run_key:
        return _tell_releases(stored.versions, versions)
    before = of_any_version(stored.settings)
    differ = differing(before, settings.model_dump(mode="json"))
    known = flatten(before)
    changed = [found for found in differ if found[0] in known]
    others = [found for found in differ if found[0] not in known]  # a setting that came with this version
    others += [(f"version of {k}", a, b) for k, a, b in differing_versions(stored.versions, versions)]
    listed = "; ".join(
        f"{name} is {_show(old)} in the database, {_show(new)} now" for name, old, new in [*changed, *others]
    )
    if changed:
        raise ConfigError(
            f"the rows of this database were made with other settings: {listed}",
            "go on with the database's own settings (leave out --config and --set), or ingest into another --db",
        )
    listed = listed or f"the run key is {stored.run_key} in the database, {run_key} now (another schema version)"
    raise ConfigError(
        f"the rows of this database were made by another version of handloom, or of its packages: {listed}",
        "they stay readable; to process clips with this version, ingest into another --db",
    )


def _tell_releases(stored: Mapping[str, str], versions: Mapping[str, str]) -> None:
    """Say once a run that packages have other releases, which count as the same (`schemas.versions`)."""
    both = [name for name in versions if name in stored and name != "handloom"]
    others = [f"{name} {stored[name]} -> {versions[name]}" for name in both if stored[name] != versions[name]]
    if others:
        log.warning("the rows so far were made with other releases, which count as the same: %s", ", ".join(others))


def _lay_over(values: dict[str, Any], newer: dict[str, Any]) -> None:
    for name, value in newer.items():
        if isinstance(value, dict) and isinstance(values.get(name), dict):
            _lay_over(values[name], value)
        else:
            values[name] = value


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text())
    except OSError as error:
        hint = "name a TOML file of settings; `handloom run --db DB --show-settings` prints what may stand in it"
        raise ConfigError(f"the configuration file {path} cannot be read: {error.strerror}", hint) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        hint = "a line is `name = value`, a section is `[video]`, and text stands in quotes"
        raise ConfigError(f"{path} is no TOML: {error}", hint) from error


def _assign(values: dict[str, Any], keys: list[str], value: Any, assignment: str) -> None:
    for key in keys[:-1]:
        values = values.setdefault(key, {})
        if not isinstance(values, dict):
            raise ConfigError(
                f"--set {assignment!r}: {key} is a value, not a section", "give it one value, or its parts"
            )
    values[keys[-1]] = value


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def settings_hint(error: ValidationError, known: Iterable[str], listed: str, prefix: str = "") -> str:
    """What was probably meant, and where all settings are (`listed`). prefix: goes before `known`."""
    names = [f"{prefix}{name}" for name in known]
    near: dict[str, None] = {}
    for item in error.errors():
        word = prefix + ".".join(str(part) for part in item["loc"])
        if item["type"] == "extra_forbidden":
            near |= dict.fromkeys(near_names(_whole(word, item["input"]), names))
        elif item["type"] in SECTION_ERRORS:
            near |= dict.fromkeys([name for name in names if name.startswith(f"{word}.")][:MAX_NEAR])
    return f"did you mean {', '.join(near)}? {listed}" if near else listed


def _whole(word: str, value: Any) -> str:
    """`resource` of `--set resource.commit_s=3` as it was written: pydantic names the section alone."""
    while isinstance(value, dict) and len(value) == 1:
        ((key, value),) = value.items()
        word = f"{word}.{key}"
    return word


def near_names(word: str, names: Sequence[str]) -> list[str]:
    """The names most like `word`, with or without their section, best first."""
    last = {name: name.rpartition(".")[2] for name in names}
    own = word.rpartition(".")[2]
    found = [name for name in names if last[name] == own]
    found += difflib.get_close_matches(word, names, MAX_NEAR, 0.75)
    similar = difflib.get_close_matches(own, list(last.values()), MAX_NEAR, 0.75)
    found += sorted((name for name in names if last[name] in similar), key=lambda name: similar.index(last[name]))
    found += [name for name in names if len(own) > 2 and own in last[name]]
    return list(dict.fromkeys(found))[:MAX_NEAR]


def explain(error: ValidationError, prefix: str = "") -> str:
    """Every wrong name and value of a settings error, on one line."""
    problems = []
    for item in error.errors():
        name = ".".join(str(part) for part in item["loc"])
        if item["type"] == "extra_forbidden":
            problems.append(f"there is no setting {prefix}{name}")
        elif item["type"] in SECTION_ERRORS:
            problems.append(f"{prefix}{name} = {_show(item['input'])}: it is a section of settings, no setting")
        else:
            problems.append(f"{prefix}{name} = {_show(item['input'])}: {item['msg'][:1].lower()}{item['msg'][1:]}")
    return "; ".join(problems)


def _show(value: Any) -> str:
    return "absent" if value is None else json.dumps(value, default=str)
