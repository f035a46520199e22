"""What vision-language models are asked: the prompts of papers by id, and a user's own."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from handloom.errors import ConfigError

WORDS = ("narration", "verb", "noun")
SEGMENTS = "segments"
PLACES = (*WORDS, SEGMENTS)
"""Columns that a prompt may name in braces."""
_PLACE = re.compile("{(" + "|".join(PLACES) + ")}")
UNKNOWN = "(unknown)"
SCHEMA_URI = "urn:answer"


def _object(**members: Any) -> dict[str, Any]:
    return {"type": "object", "properties": members, "required": list(members), "additionalProperties": False}


_TEXT = {"type": "string", "minLength": 1}
_TEXTS = {"type": "array", "items": _TEXT}
TASK = _object(task=_TEXT, objects=_TEXTS, relations=_TEXTS)
SUB_TASKS = _object(
    segments={
        "type": "array",
        "items": _object(
            number={"type": "integer", "minimum": 1},
            text=_TEXT,
            phase={"enum": ["grasping", "manipulation"]},
            master=_TEXT,
            slave=_TEXT,
        ),
    }
)


@dataclass(frozen=True)
class Prompt:
    """One question. schema: JSON schema of the answer; None: free text. is_timed: before each frame stands its time."""

    id: str
    text: str
    schema: Mapping[str, Any] | None = None
    is_timed: bool = False
    columns: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "columns", tuple(name for name in PLACES if f"{{{name}}}" in self.text))

    def filled(self, row: Mapping[str, Any]) -> str:
        """The text with the row's words and segments in place of the names in braces."""
        told = {name: row.get(name) or UNKNOWN for name in self.columns if name != SEGMENTS}
        if SEGMENTS in self.columns:
            told[SEGMENTS] = segments_text(row.get(SEGMENTS) or [])
        return _PLACE.sub(lambda found: told[found.group(1)], self.text)  # once: words may hold braces, too


PROMPTS = {
    prompt.id: prompt
    for prompt in (
        Prompt(
            "robomirror/egocentric", "Please describe the motion of the first-person individual in the egocentric video"
        ),
        Prompt("robomirror/third_person", "Please describe the motion in the video"),
        Prompt(
            "vlmimic/task",
            "These frames of one video show hands at work. Say what task is done, which objects take part in it, and "
            "how the objects lie relative to each other in the first frame.",
            TASK,
            is_timed=True,
        ),
        Prompt(
            "vlmimic/segments",
            "These frames of one video show hands at work. The video was divided into these segments:\n{segments}\n"
            "Say for each segment, by its number, what is done in it. Its phase is grasping while the hand comes to an "
            "object, until contact, and manipulation while the object moves with the hand. The slave is what moves, "
            "the master what it moves relative to; in grasping the hand is the slave. Name objects by ordinary words.",
            SUB_TASKS,
            is_timed=True,
        ),
    )
}  # fmt: skip
"""RoboMirror (arXiv 2512.23649): its two sentences. VLMimic (arXiv 2410.20927): the steps of its sections on task and
sub-task recognition, in our words: the paper prints none."""


def segments_text(segments: list[Mapping[str, Any]]) -> str:
    """Segments as lines, numbered from 1."""
    return "\n".join(
        f"{number}. {one['start_s']:.2f} s to {one['end_s']:.2f} s, {one['hand']} hand"
        for number, one in enumerate(segments, 1)
    )


def find_prompt(where: str, prompt: str, text: str, schema: Mapping[str, Any]) -> Prompt:
    """The prompt of a stage's settings.

    Args:
        where: what comes before the settings' names in errors. prompt: its id. text, schema: a user's own.

    Raises:
        ConfigError: nobody knows the id, a user's prompt has the id of a paper's, or the schema is none.
    """
    known = ", ".join(PROMPTS)
    if not text:
        if schema:
            raise ConfigError(
                f"{where}answer_schema is given without prompt_text", "it belongs to a prompt of your own"
            )
        if prompt not in PROMPTS:
            raise ConfigError(f"{where}prompt is {prompt!r}, expected one of {known}", "or give prompt_text, too")
        return PROMPTS[prompt]
    if prompt in PROMPTS or not prompt:
        problem = f"{where}prompt is {prompt!r}, with a prompt_text of your own"
        raise ConfigError(problem, f"give your prompt an id of its own, none of {known}")
    if schema:
        check_schema(f"{where}answer_schema", schema)
    return Prompt(prompt, text, schema or None, is_timed=True)


def check_schema(setting: str, schema: Mapping[str, Any]) -> None:
    """Raise ConfigError if this is no JSON schema."""
    from jsonschema import Draft202012Validator, SchemaError

    try:
        Draft202012Validator.check_schema(dict(schema))
    except SchemaError as error:
        raise ConfigError(f"{setting} is no JSON schema: {error.message}", "see json-schema.org") from None
    targets = list(_references(schema))
    if elsewhere := [target for target in targets if not target.startswith("#")]:
        raise ConfigError(f"{setting} refers to {elsewhere[0]!r}", "write the whole schema into the settings")
    if (broken := next((target for target in targets if not _leads_on(schema, target)), None)) is not None:
        problem = f"{setting} refers to {broken!r}, which is not in it, or leads to itself"
        raise ConfigError(problem, "put what is referred to under $defs: '#/$defs/NAME'")


def _references(part: Any) -> Iterator[str]:
    """Where the references in a schema lead."""
    if isinstance(part, Mapping):
        yield from (target for name in ("$ref", "$dynamicRef") if isinstance(target := part.get(name), str))
        part = list(part.values())
    if isinstance(part, (list, tuple)):
        for one in part:
            yield from _references(one)


def _leads_on(schema: Mapping[str, Any], target: str) -> bool:
    """Whether values can be checked by what a reference in a schema leads to."""
    from jsonschema import Draft202012Validator
    from referencing import Registry
    from referencing.exceptions import Unresolvable
    from referencing.jsonschema import DRAFT202012

    whole = DRAFT202012.create_resource(dict(schema))
    registry = Registry().with_resource(SCHEMA_URI, whole).crawl()
    validator = Draft202012Validator({"$ref": (whole.id() or SCHEMA_URI) + target}, registry=registry)
    try:
        values: tuple[Any, ...] = (None, "", 0, {}, [])
        for value in values:
            list(validator.iter_errors(value))
    except (Unresolvable, RecursionError):
        return False
    return True


def with_schema(text: str, schema: Mapping[str, Any] | None) -> str:
    """The question, and how its answer must look: not every server enforces a schema."""
    if schema is None:
        return text
    return f"{text}\nAnswer with JSON alone, of this JSON schema: {json.dumps(schema, sort_keys=True)}"
