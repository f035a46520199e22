"""A question to a vision-language model, and the answer, asked for again where it is not what was asked."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from handloom.io.addresses import is_utf8

FENCE = re.compile(r"^```\w*\n(.*?)\n?```$", re.DOTALL)
MAX_QUOTED = 300


class AskError(Exception):
    """No answer. reason: a key of `schemas.tables.reject.REASONS`."""

    def __init__(self, reason: str, problem: str, hint: str = "") -> None:
        super().__init__(reason, problem, hint)
        self.reason, self.problem, self.hint = reason, problem, hint


class AnswerError(Exception):
    """An answer that is not what was asked."""


@dataclass(frozen=True)
class Question:
    """About frames of one clip.

    images: each (h, w, 3) RGB; of one size where hidden states are asked for. image_s: their times; None: they are not
    told. schema: of the answer; None: free text. check: what is wrong with an answer that fits the schema; None:
    nothing.
    """

    text: str
    images: Sequence[NDArray[np.uint8]]
    image_s: Sequence[float] | None = None
    schema: Mapping[str, Any] | None = None
    check: Callable[[Any], str | None] | None = None


@dataclass(frozen=True)
class Answer:
    """text: as it came. value: from its JSON; None for free text."""

    text: str
    value: Any = None


Said = tuple[str, str]
"""An answer that was not what was asked, and what was wrong with it."""


class Model(Protocol):
    """Something that answers. Raises AskError, and AnswerError where an answer cannot be taken as text."""

    def reply(self, question: Question, said: Sequence[Said]) -> str: ...


def ask(model: Model, question: Question, tries: int) -> Answer:
    """The model's answer. After one that is not what was asked, the model is told so and asked again.

    Raises:
        AskError: there is no answer, or `tries` of them were not what was asked (`answer_invalid`).
    """
    said: list[Said] = []
    for _ in range(tries):
        text = ""
        try:
            text = model.reply(question, said).strip()
            return _checked(text, question)
        except AnswerError as error:
            said.append((text[:4000], str(error)))
    text, problem = said[-1]
    quoted = f"; it begins {text[:MAX_QUOTED]!r}" if text else ""
    problem = f"{tries} answers were not what was asked, the last: {problem}{quoted}"
    raise AskError("answer_invalid", problem, "raise max_tokens if it was cut, or take a larger model")


def complaint(problem: str) -> str:
    """What the model is told before it answers again."""
    return f"This answer cannot be used: {problem}. Answer the question again."


def _checked(text: str, question: Question) -> Answer:
    if not text:
        raise AnswerError("it is empty")
    if not is_utf8(text):
        raise AnswerError("it holds half of a character, which is no text")
    if question.schema is None:
        return Answer(text)
    value = _from_json(text)
    problem = schema_problem(value, question.schema) or (question.check(value) if question.check else None)
    if problem is not None:
        raise AnswerError(problem)
    return Answer(text, value)


def _from_json(text: str) -> Any:
    """JSON, perhaps between three backticks, as many models write it."""
    fenced = FENCE.match(text)
    try:
        value = json.loads(fenced.group(1) if fenced else text, parse_constant=_no_number, parse_float=_number)
        json.dumps(value, ensure_ascii=False).encode()  # half of a pair (\ud800) is no text that can be stored
        return value
    except (ValueError, RecursionError) as error:
        raise AnswerError(f"it is no JSON ({error})") from None


def _number(digits: str) -> float:
    return float(digits) if isfinite(float(digits)) else _no_number(digits)


def _no_number(name: str) -> Any:
    raise ValueError(f"{name} is no number of JSON")


def schema_problem(value: Any, schema: Mapping[str, Any]) -> str | None:
    """Where a value does not fit a JSON schema, in words; None: it fits."""
    from jsonschema import Draft202012Validator

    error = next(Draft202012Validator(dict(schema)).iter_errors(value), None)
    if error is None:
        return None
    where = "/".join(map(str, error.absolute_path)) or "the whole"
    return f"{where}: {error.message[:MAX_QUOTED]}"
