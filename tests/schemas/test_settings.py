"""Settings change the run key, resources do not; each has a description."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, get_args, get_origin

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from pydantic.fields import FieldInfo

from handloom.schemas.settings import Frozen, Resources, RunConfig, Settings, differing, flatten

VERSIONS = {"hands": "mediapipe 0.10.21"}
KEY = Settings().run_key(VERSIONS)


def fields(model: type[Frozen], prefix: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], FieldInfo]]:
    """(path, field) of every leaf."""
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Frozen):
            yield from fields(field.annotation, (*prefix, name))
        else:
            yield (*prefix, name), field


def other_values(field: FieldInfo) -> list[Any]:
    """A few values that the field's type could take, among them one that is allowed and not the default."""
    default = field.default
    kinds = get_args(field.annotation) if get_origin(field.annotation) is Literal else ()
    if kinds:
        return [kind for kind in kinds if kind != default]
    if isinstance(default, bool):
        return [not default]
    if field.annotation == dict[str, Any] | None:
        return [{}, {"more": 60.0}, {"more": 0.6}]
    if isinstance(default, str):
        return [f"{default}other", f"{default}.other:Class"]
    base = 1 if default is None else default
    return [base + 1, base + 2, base / 2, base + 0.001, base // 2] if isinstance(base, int | float) else []


def nested(path: tuple[str, ...], value: Any) -> dict[str, Any]:
    for name in reversed(path):
        value = {name: value}
    return value


def valid(model: type[Frozen], path: tuple[str, ...], field: FieldInfo) -> list[Frozen]:
    """All different from the default and from each other."""
    made = [model()]
    for value in other_values(field):
        try:
            changed = model(**nested(path, value))
        except ValidationError:
            continue
        if changed not in made:
            made.append(changed)
    return made[1:]


SETTINGS = dict(fields(Settings))
RESOURCES = dict(fields(Resources))
OWN = {("stages",)}  # they have keys of their own


@pytest.mark.parametrize("path", sorted(SETTINGS.keys() - OWN), ids=".".join)
def test_every_setting_changes_the_run_key(path):
    changed = valid(Settings, path, SETTINGS[path])
    assert changed, "the test found no other allowed value"
    keys = [settings.run_key(VERSIONS) for settings in changed]
    assert len({KEY, *keys}) == len(keys) + 1


@pytest.mark.parametrize("path", RESOURCES, ids=".".join)
def test_no_resource_changes_the_run_key(path):
    changed = valid(Resources, path, RESOURCES[path])
    assert changed, "the test found no other allowed value"
    assert {RunConfig(resources=r).settings().run_key(VERSIONS) for r in changed} == {KEY}


def test_models_change_the_run_key():
    assert Settings().run_key({"hands": "mediapipe 0.10.22"}) != KEY
    assert Settings().run_key(VERSIONS | {"tracks": "1"}) != KEY
    assert len(KEY) == 16


@given(st.dictionaries(st.sampled_from("abc"), st.sampled_from("xyz")))
def test_the_order_of_versions_does_not_matter(versions):
    backwards = dict(reversed(versions.items()))
    assert Settings().run_key(versions) == Settings().run_key(backwards)


def test_the_key_survives_storage():
    """A database stores settings as JSON; read back they must give the same key, or no run could resume."""
    stored = Settings.model_validate_json(Settings().model_dump_json())
    assert stored == Settings()
    assert stored.run_key(VERSIONS) == KEY


@pytest.mark.parametrize("model", [Settings, Resources, RunConfig])
def test_every_setting_has_a_description(model):
    def unexplained(kind: type[Frozen]) -> Iterator[str]:
        for name, field in kind.model_fields.items():
            if not field.description:
                yield f"{kind.__name__}.{name}"
            if isinstance(field.annotation, type) and issubclass(field.annotation, Frozen):
                yield from unexplained(field.annotation)

    assert not list(unexplained(model))


def test_settings_are_immutable_and_refuse_unknown_names():
    with pytest.raises(ValidationError, match="frozen"):
        Settings().video.sample_hz = 3
    with pytest.raises(ValidationError, match="extra"):
        Settings(vidoe={})
    assert not {path[0] for path in SETTINGS} & {path[0] for path in RESOURCES}


def test_differences_are_named():
    stored, asked = Settings().model_dump(), Settings(video={"sample_hz": 10}).model_dump()
    assert differing(stored, asked) == [("video.sample_hz", 15.0, 10.0)]
    assert differing(stored, stored) == []
    assert differing({"a": {"b": 1}}, {"a": {}}) == [("a", None, {}), ("a.b", 1, None)]
    assert flatten({"a": {"b": 1}, "c": {}}) == {"a.b": 1, "c": {}}
