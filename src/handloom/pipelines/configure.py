"""From a configuration file and `--set key=value` to the settings of a run, checked against those of the database."""

from __future__ import annotations

import difflib
import json
import logging
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from handloom.errors import ConfigError
from handloom.schemas.json_format import SECTION_ERRORS, explain
from handloom.schemas.settings import (
    OWN_STAGE,
    RENAMED,
    RunConfig,
    Settings,
    StageConfig,
    differing,
    flatten,
    of_any_version,
    renamed_note,
    with_names_of_today,
)
from handloom.schemas.version_policy import LICENCE, differing_versions
from handloom.store.runs.runs import StoredSettings

log = logging.getLogger(__name__)
MAX_NEAR = 3

Model = TypeVar("Model", bound=BaseModel)


def load_config(path: Path | None, assignments: Sequence[str], stored: Mapping[str, Any] | None = None) -> RunConfig:
    """The settings of the database or else the defaults, then the TOML file, then the assignments. An assignment of
    null to a stage of one's own, `stages.gripper=null`, takes it out. A stage that comes with its class is declared
    anew: nothing of the database's stage of that name stays. An `env` is never mixed with another one.

    Args:
        stored: settings that a run has recorded, of any version.

    Raises:
        ConfigError: the file cannot be read, or names or values are wrong; it lists them, and what was expected.
    """
    values: dict[str, Any] = of_any_version(dict(stored or {}))
    newer = merged_values([path] if path else [], assignments, "video.sample_hz=10")
    _forget_declared(values.get("stages"), newer.get("stages"))
    _lay_over(values, newer)
    if isinstance(values.get("stages"), dict):
        values["stages"] = {name: stage for name, stage in values["stages"].items() if stage is not None}
    listed = "`handloom run --db DB --show-settings` prints all settings, docs/settings.md explains them"
    return checked(RunConfig, values, listed)


def merged_values(paths: Sequence[Path], assignments: Sequence[str], example: str) -> dict[str, Any]:
    """The TOML files, later ones over earlier ones, then the assignments. Raises ConfigError as `load_config` does."""
    values: dict[str, Any] = {}
    for path in paths:
        read, old_names = with_names_of_today(_read_toml(path))
        for old in old_names:
            log.warning("%s: %s", path, renamed_note(old))
        _lay_over(values, read)
    given: dict[str, tuple[Any, str]] = {}
    for assignment in assignments:
        name, equals, text = assignment.partition("=")
        if not equals or not name:
            raise ConfigError(f"--set {assignment!r} is not an assignment", f"write --set {example}")
        name = name.strip()
        if name in RENAMED:
            log.warning("--set %s: %s", assignment, renamed_note(name))
        today, value = RENAMED.get(name, name), _value(text.strip())
        before, first = given.setdefault(today, (value, assignment))
        if before != value:
            raise ConfigError(f"--set gives {today} two values, {first!r} and {assignment!r}", "give it one")
        _assign(values, today.split("."), value, assignment)
    return values


def describe_change(stored: StoredSettings, settings: Settings, versions: Mapping[str, str]) -> tuple[str, str]:
    """What differs from the stored settings and versions, each as a sentence: settings that the user has changed; and
    versions, with settings that came with this one."""
    before = of_any_version(stored.settings)
    had = before.get("stages", {})
    resources = {f"stages.{name}.{field}" for name in {*settings.stages, *had} for field in StageConfig().resources()}
    differ = differing(before, settings.model_dump(mode="json"))
    new = [name for name in settings.stages if name not in had]
    gone = [name for name in had if name not in settings.stages and had[name].get("class")]  # it outdates no other
    apart = tuple(f"stages.{name}." for name in (*new, *gone))
    differ = [found for found in differ if not found[0].startswith(apart) and found[0] != "stages"]
    differ = [found for found in differ if not any(found[0].startswith(name) for name in resources)]
    known = flatten(before)
    changed = [found for found in differ if found[0] in known or found[0].startswith("stages.")]
    others = [found for found in differ if found not in changed]  # a setting that came with this version
    for name, old, now in differing_versions(stored.versions, versions):
        if not name.startswith(OWN_STAGE):
            others.append((f"version of {name}", old, now))
        elif old is not None and now is not None:  # a new stage is missing in all rows, and changes none
            told, tells = json.loads(old), json.loads(now)
            both = sorted(told.keys() | tells.keys())
            others += [
                (f"{part} of {name}", told.get(part), tells.get(part))
                for part in both
                if told.get(part) != tells.get(part)
            ]
    return _differences(changed), _differences(others)


def _differences(found: Iterable[tuple[str, Any, Any]]) -> str:
    return "; ".join(f"{name} is {_show(old)} in the database, {_show(new)} now" for name, old, new in found)


def warn_of_releases(stored: Mapping[str, str], versions: Mapping[str, str]) -> None:
    """Warn that packages have other releases, even if they count as the same (`schemas.version_policy`)."""
    both = [name for name in versions if name in stored and name != "handloom" and not name.startswith(LICENCE)]
    others = [f"{name} {stored[name]} -> {versions[name]}" for name in both if stored[name] != versions[name]]
    if others:
        log.warning("the rows so far were made with other releases, which count as the same: %s", ", ".join(others))


def _lay_over(values: dict[str, Any], newer: dict[str, Any]) -> None:
    for name, value in newer.items():
        if isinstance(value, dict) and isinstance(values.get(name), dict):
            _lay_over(values[name], value)
        else:
            values[name] = value


def _forget_declared(stages: Any, newer: Any) -> None:
    """Remove from `stages` what `newer` declares whole: settings of another class, packages of another environment."""
    if not (isinstance(stages, dict) and isinstance(newer, dict)):
        return
    for name, stage in newer.items():
        if isinstance(stage, dict) and "class" in stage:
            stages.pop(name, None)
        elif isinstance(stage, dict) and "env" in stage and isinstance(stages.get(name), dict):
            stages[name] = {key: value for key, value in stages[name].items() if key != "env"}


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text())
    except OSError as error:
        hint = "name a TOML file of settings; `handloom run --db DB --show-settings` prints what it may contain"
        raise ConfigError(f"the configuration file {path} cannot be read: {error.strerror}", hint) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        hint = "a line is `name = value`, a section is `[video]`, and text is in quotes"
        raise ConfigError(f"{path} is not TOML: {error}", hint) from error


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


def checked(kind: type[Model], values: Mapping[str, Any], listed: str, prefix: str = "") -> Model:
    """Settings of a type from their values.

    Args:
        listed: where all settings are, for the error. prefix: of their names in it, `resources.`.

    Raises:
        ConfigError: a name or value is wrong; it names all that are, and names that were probably meant.
    """
    try:
        return kind(**values)
    except ValidationError as error:
        raise ConfigError(explain(error, prefix), _hint(error, names_of(kind, prefix), listed, prefix)) from error


def names_of(kind: type[BaseModel], prefix: str = "") -> list[str]:
    """The names of all settings of a type, with those of its sections: `video.sample_hz`."""
    names: list[str] = []
    for name, field in kind.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            names += names_of(inner, f"{prefix}{name}.")
        else:
            names.append(f"{prefix}{name}")
    return names


def _hint(error: ValidationError, names: Sequence[str], listed: str, prefix: str) -> str:
    """The names that were probably meant, and where all settings are."""
    near: dict[str, None] = {}
    for item in error.errors():
        word = prefix + ".".join(str(part) for part in item["loc"])
        if item["type"] == "extra_forbidden":
            near |= dict.fromkeys(near_names(_whole(word, item["input"]), names))
        elif item["type"] in SECTION_ERRORS:
            near |= dict.fromkeys([name for name in names if name.startswith(f"{word}.")][:MAX_NEAR])
    return f"did you mean {', '.join(near)}? {listed}" if near else listed


def _whole(word: str, value: Any) -> str:
    """`resource.commit_s` of `--set resource.commit_s=3`: pydantic names the section alone."""
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


def _show(value: Any) -> str:
    return "absent" if value is None else json.dumps(value, default=str)
