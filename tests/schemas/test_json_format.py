"""JSON of others: what an error says, and what is taken as it stands."""

from __future__ import annotations

import json
from typing import Annotated, Any

import pytest
from pydantic import Field
from typing_extensions import TypedDict

from handloom.errors import ConfigError
from handloom.schemas.json_format import (
    STRICT,
    BadEntry,
    Entry,
    Expected,
    Form,
    Number,
    OneOf,
    OrElse,
    Positive,
    Seconds,
    Text,
    expected,
    place_of,
    shown,
)


class Lens(TypedDict):
    __pydantic_config__ = STRICT | {"extra": "forbid"}
    params: Annotated[list[Number], Field(max_length=2), Expected("at most 2 finite numbers")]


class Video(Entry):
    name: Text
    fps: Positive
    start_s: Seconds = 0.0
    kind: Annotated[str | None, OneOf(("ego", "exo"))] = None
    lens: Lens | None = None
    lenses: dict[str, Lens] | None = None
    poses: dict[str, Annotated[list[Number], Expected("7 numbers")]] | None = None
    note: Annotated[str | None, OrElse(None)]


class File(Entry):
    videos: Annotated[list[Video], Field(min_length=1)]


FILE = Form(File)
GOOD: dict[str, Any] = {"name": "a", "fps": 30}


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ([], "the top level is an empty list, expected an object with videos"),
        ({"clips": 1, "b": 2}, "videos is missing from an object with clips, b, expected a list"),
        ({"videos": []}, "videos is an empty list, expected a list that is not empty"),
        ({"videos": {"a": 1}}, "videos is an object with a, expected a list"),
        ({"videos": [GOOD | {"poses": 3}]}, "videos[0].poses is 3, expected an object"),
        ({"videos": [GOOD | {"poses": {"a": 3}}]}, "videos[0].poses.a is 3, expected 7 numbers"),
        ({"videos": [GOOD, 7]}, "videos[1] is 7, expected an object with name and fps"),
        ({"videos": [{"name": "a"}]}, "videos[0].fps is missing from an object with name, expected a number above 0"),
        ({"videos": [GOOD | {"fps": True}]}, "videos[0].fps is true, expected a number above 0"),
        ({"videos": [GOOD | {"fps": 10**400}]}, f"videos[0].fps is 1{'0' * 76}..., expected a number above 0"),
        ({"videos": [GOOD | {"name": " "}]}, 'videos[0].name is " ", expected a text that is not empty'),
        ({"videos": [GOOD | {"kind": "x"}]}, 'videos[0].kind is "x", expected one of ego, exo'),
        (
            {"videos": [GOOD | {"lens": {}}]},
            "videos[0].lens.params is missing from an empty object, expected at most 2",
        ),
        ({"videos": [GOOD | {"lens": {"a": 1}}]}, "videos[0].lens.params is missing from an object with a"),
        (
            {"videos": [GOOD | {"lens": {"params": [], "a": 1}}]},
            "videos[0].lens.a is 1, expected no other keys than params",
        ),
        (
            {"videos": [GOOD | {"lens": {"params": [1, {"b": 2}]}}]},
            "videos[0].lens.params is [1, {...}], expected at most",
        ),
        ({"videos": [GOOD | {"lenses": {"a b.c": 1}}]}, 'videos[0].lenses["a b.c"] is 1, expected an object'),
    ],
)
def test_an_error_names_the_place_the_value_and_what_was_expected(content, says):
    with pytest.raises(BadEntry) as caught:
        FILE.read(json.loads(json.dumps(content)))
    assert str(caught.value).startswith(says)
    with pytest.raises(ConfigError) as caught:
        FILE.read_file(content, "list v.json", "download it again")
    assert caught.value.problem.startswith(f"list v.json: {says}")
    assert caught.value.hint == "download it again"


def test_whole_numbers_stay_whole_and_what_may_be_odd_is_passed_over():
    video = Form(Video).read(GOOD | {"lens": {"params": [1, 2.0]}, "note": 7, "added later": [1]})
    assert (video.note, video.start_s, str(video.lens["params"])) == (None, 0.0, "[1, 2.0]")


@pytest.mark.parametrize("value", ["1", True, None, float("nan"), float("inf"), 10**400, -1e301])
def test_what_is_no_finite_number_is_refused(value):
    with pytest.raises(BadEntry, match=r"x\[0\] is .*, expected a finite number"):
        Form(list[Number]).read([value], "x")


def test_an_error_is_short_however_large_the_value_is():
    assert shown([0.1] * 5000) == "a list of 5000"
    assert len(shown(["x" * 5000])) == len(shown("x" * 5000)) == 80
    assert shown({f"key {i}": i for i in range(5000)}) == "an object with key 0, key 1, key 2, key 3, key 4, ..."
    assert place_of("videos", 3, "a.b", "fps") == 'videos[3]["a.b"].fps'
    assert str(expected("a rotation")) == "a rotation"
