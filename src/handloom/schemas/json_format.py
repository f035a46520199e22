"""JSON files of others, checked by pydantic: a type describes the file, and an error names the place in it.

`Form(type).read(value, "videos[3]")` returns the checked value, or raises `BadEntry`: `videos[3].fps is "x", expected a
number above 0`. Other keys than those of the type are ignored, unless it forbids them: newer files may have more.

Settings are pydantic models, too: `explain` says what is wrong with them.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from types import UnionType
from typing import Annotated, Any, Generic, TypeVar, Union, get_args, get_origin, get_type_hints

from pydantic import BaseModel, ConfigDict, Field, GetCoreSchemaHandler, StringConstraints, TypeAdapter, ValidationError
from pydantic_core import CoreSchema, PydanticCustomError, core_schema
from typing_extensions import is_typeddict

from handloom.errors import ConfigError

T = TypeVar("T")
STRICT = ConfigDict(strict=True, frozen=True)
"""Texts are not converted to numbers, nor true to 1. Whole numbers are accepted where floats are expected."""
_SHOWN, _SHOWN_ITEMS, _SHOWN_KEYS = 80, 16, 5
_LARGEST = 1e300  # squares of what is larger are infinite
_INTEGER = int(_LARGEST)
_OF_PYDANTIC = {
    "list_type": "a list",
    "string_type": "a text",
    "int_type": "a whole number",
    "too_short": "a list that is not empty",
}


SECTION_ERRORS = ("model_type", "dict_type", "model_attributes_type")
"""Pydantic's types of errors where a setting was given in place of a section."""


class BadEntry(ValueError):
    """One entry of a file is wrong. Ingest names it in its `problems`, and keeps the other entries."""


@dataclass(frozen=True)
class Expected:
    """Annotates a type with the words of its error message, for every way in which a value is wrong."""

    words: str

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return self.around(handler(source))

    def around(self, schema: CoreSchema) -> CoreSchema:
        """The schema with this error message."""
        return core_schema.custom_error_schema(schema, "expected", custom_error_message=self.words)


@dataclass(frozen=True)
class OneOf:
    """Annotates a text that must be one of `names`."""

    names: tuple[str, ...]

    @property
    def words(self) -> str:
        return f"one of {', '.join(self.names)}"

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return Expected(self.words).around(core_schema.literal_schema(list(self.names)))


@dataclass(frozen=True)
class Between:
    """Annotates a number from `low` to `high`, both included."""

    low: float
    high: float

    @property
    def words(self) -> str:
        return f"{self.low:g} to {self.high:g}"

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return Expected(self.words).around(core_schema.float_schema(strict=True, ge=self.low, le=self.high))


@dataclass(frozen=True)
class OrElse:
    """Annotates a type: a missing or wrong value is replaced by `default`, without an error."""

    default: Any

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.with_default_schema(handler(source), default=self.default, on_error="default")


class Entry(BaseModel):
    """Base of the objects of a file; see `STRICT`."""

    model_config = STRICT


Number = Annotated[
    Annotated[int, Field(strict=True, gt=-_INTEGER, lt=_INTEGER)]
    | Annotated[float, Field(strict=True, gt=-_LARGEST, lt=_LARGEST)],
    Expected("a finite number"),
]
"""Kept as written: 1 stays an integer, 1.0 a float."""
Seconds = Annotated[
    float, Field(strict=True, ge=0, lt=1e8), Expected("a number of seconds, not negative, below 1e8")
]  # three years: no video is that long
Text = Annotated[
    str, StringConstraints(strict=True, strip_whitespace=True, min_length=1), Expected("a text that is not empty")
]
Positive = Annotated[float, Field(strict=True, gt=0, lt=_LARGEST), Expected("a number above 0")]
Listed = Annotated[list[Any], Expected("a list")]


class Form(Generic[T]):
    """The type of a value of parsed JSON: a model, a TypedDict (four times as fast), or any type of pydantic."""

    def __init__(self, form: type[T]) -> None:
        self._form = form
        self._adapter = TypeAdapter(form)

    def read(self, value: Any, where: str = "") -> T:
        """The checked value. where: its place in the file, for the message. Raises BadEntry."""
        try:
            return self._adapter.validate_python(value)
        except ValidationError as error:
            raise BadEntry(self._describe(error, where)) from None

    def read_file(self, value: Any, what: str, hint: str) -> T:
        """The checked content of a file. what: names the file, hint: what to do, for the error. Raises ConfigError."""
        try:
            return self.read(value)
        except BadEntry as error:
            raise ConfigError(f"{what}: {error}", hint) from None

    def _describe(self, error: ValidationError, where: str) -> str:
        """Where the first error is, the value there, and what was expected."""
        first = error.errors(include_url=False)[0]
        place, value = tuple(part for part in first["loc"] if part != "[key]"), first["input"]
        key = place_of(where, *place)
        if first["type"] == "missing":
            return f"{key} is missing from {shown_keys(value)}, expected {_words(_at(self._form, place))}"
        if first["type"] in ("model_type", "dict_type"):
            words = _words(_at(self._form, place)).replace("a value", "an object")
        elif first["type"] == "extra_forbidden":
            known = [key for bare in _bare(_at(self._form, place[:-1])) for key in _fields(bare)]
            words = f"no other keys than {_joined(known)}"
        else:
            words = _OF_PYDANTIC.get(first["type"]) or first["msg"].removeprefix("Input should be ")
        return f"{key} is {shown(value)}, expected {words}"


def expected(words: str) -> PydanticCustomError:
    """An error for validators to raise; words: what the value should be."""
    return PydanticCustomError("expected", words)


def explain(error: ValidationError, prefix: str = "") -> str:
    """Every wrong name and value of a settings error, on one line. prefix: of the names: `stages.gripper.settings.`.

    Of settings that do not fit together the reason is told alone, without the values of all.
    """
    problems = []
    for item in error.errors():
        name = (prefix + ".".join(str(part) for part in item["loc"])).rstrip(".")
        given = json.dumps(item["input"], default=str)
        reason = f"{item['msg'][:1].lower()}{item['msg'][1:]}".removeprefix("value error, ")
        if item["type"] == "extra_forbidden":
            of_stage = not prefix and item["loc"][0] == "stages" and len(item["loc"]) == 3
            what = f"; settings of its class are in [stages.{item['loc'][1]}.settings]" if of_stage else ""
            problems.append(f"there is no setting {name}{what}")
        elif item["type"] == "missing":
            problems.append(f"the setting {name} has no value")
        elif item["type"] in SECTION_ERRORS:
            problems.append(f"{name} = {given}: it is a section of settings, not a setting")
        elif not item["loc"]:
            problems.append(f"{name}: {reason}" if name else reason)
        else:
            problems.append(f"{name} = {given}: {reason}")
    return "; ".join(problems)


def place_of(where: str, *keys: str | int) -> str:
    """The place of a value, such as `videos[3].fps`; keys that are no plain names are quoted."""
    place = where
    for key in keys:
        is_name = isinstance(key, str) and re.fullmatch(r"[\w-]+", key)
        place += f".{key}" if is_name else f"[{json.dumps(key)}]"
    return place.removeprefix("" if where else ".") or "the top level"


def _at(form: Any, place: tuple[str | int, ...]) -> Any:
    """The type at a place inside `form`; None if it does not define one."""
    for part in place:
        inside = (_inside(bare, part) for bare in _bare(form))
        form = next((found for found in inside if found is not None), None)
    return form


def _inside(form: Any, part: str | int) -> Any:
    """The type of an object's field, or of the values of a list or dict."""
    if get_origin(form) in (list, dict):
        return get_args(form)[-1]
    return _fields(form).get(str(part))


def _bare(form: Any) -> Iterator[Any]:
    """A type without its annotations; of a union all its types."""
    if get_origin(form) is Annotated:
        yield from _bare(get_args(form)[0])
    elif get_origin(form) in (Union, UnionType):
        for part in get_args(form):
            yield from _bare(part)
    else:
        yield form


def _alternatives(form: Any) -> tuple[Any, ...]:
    """The types of a union, whose words are those of the whole; not the types inside a list or dict."""
    return get_args(form) if get_origin(form) in (Annotated, Union, UnionType) else ()


def _fields(form: Any) -> dict[str, Any]:
    """Key and type of each of an object's fields."""
    is_model = isinstance(form, type) and issubclass(form, BaseModel)
    if not is_model and not is_typeddict(form):
        return {}
    hints = get_type_hints(form, include_extras=True)
    return {name: hint for name, hint in hints.items() if not is_model or name in form.model_fields}


def _needed(form: Any) -> list[str]:
    """Keys that an object must have."""
    optional = {name for name, field in getattr(form, "model_fields", {}).items() if not field.is_required()}
    fields = {name: hint for name, hint in _fields(form).items() if name not in optional}
    return [name for name, hint in fields.items() if not any(isinstance(mark, OrElse) for mark in get_args(hint))]


def _words(form: Any) -> str:
    """What a type expects of a value, without the values inside it."""
    for part in (form, *_alternatives(form)):
        if mark := next((mark for mark in get_args(part) if isinstance(mark, Expected | OneOf | Between)), None):
            return mark.words
    for bare in _bare(form):
        if needed := _needed(bare):
            return f"an object with {_joined(needed)}"
        if get_origin(bare) in (list, dict):
            return "a list" if get_origin(bare) is list else "an object"
    return "an object" if any(map(_fields, _bare(form))) else "a value"


def _joined(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}" if names else ""


def shown(value: Any) -> str:
    """A value for a message: short, however large it is."""
    if isinstance(value, dict):
        return shown_keys(value)
    if isinstance(value, list) and not 0 < len(value) <= _SHOWN_ITEMS:
        return f"a list of {len(value)}" if value else "an empty list"
    if isinstance(value, list):
        inside = {True: "{...}", False: "[...]"}
        parts = [inside[isinstance(x, dict)] if x and isinstance(x, dict | list) else json.dumps(x) for x in value]
        line = f"[{', '.join(parts)}]"
    else:
        line = json.dumps(value[:_SHOWN] if isinstance(value, str) else value)
    return line if len(line) <= _SHOWN else line[: _SHOWN - 3] + "..."


def shown_keys(entry: dict[str, Any]) -> str:
    """The keys of an object, for a message."""
    names = [name[:_SHOWN] for name in itertools.islice(entry, _SHOWN_KEYS)]
    more = ", ..." if len(entry) > len(names) else ""
    return f"an object with {', '.join(names)}{more}" if entry else "an empty object"
