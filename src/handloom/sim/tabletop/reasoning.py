"""What is changed after an attempt failed (VLMimic, section 4.4): remedies, chosen by rules or by a model.

The paper's model sees the failure and proposes another plan in words. Here a plan is one or two of `REMEDIES`: what a
model answers can be checked, and a wrong answer costs one attempt.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from handloom.errors import HandloomError
from handloom.sim.tabletop.handle import Tries
from handloom.sim.tabletop.scene import Thing
from handloom.skills.model_reader import Ask, NoAnswer

Image = NDArray[np.uint8]

PUSH, FROM_HIGHER, FROM_ABOVE, OTHER_GRASP = "push", "from_higher", "from_above", "other_grasp"
CARRY_HIGHER, HOLD_LOWER, AGAIN = "carry_higher", "hold_lower", "again"
REMEDIES: Mapping[str, str] = {
    PUSH: "push the thing along the table in place of taking it",
    FROM_HIGHER: "take it where people did, but let the gripper come from higher up",
    FROM_ABOVE: "take it straight from above across any of its sides, wherever people took it",
    OTHER_GRASP: "take it with another of the grasps that people showed",
    CARRY_HIGHER: "carry it higher above the table",
    HOLD_LOWER: "hold it lower down, nearer to its middle",
    AGAIN: "change nothing, and try again from where it lies now",
}
MOST = 2
PROMPTS = "vlmimic/failure-1"
HIGHER_M, HIGHER_AFTER_COLLISION_M, LOWER_M = 0.04, 0.06, 0.01


@dataclass(frozen=True)
class Trouble:
    """A failed attempt. words: what was to be done. reason: a key of `episodes.FAILURES`, `means` in words; detail:
    what happened. slides: people moved the thing along the table. stays_low: it ends on the table. tried: remedies of
    the attempts before. picture: of the table as it is now."""

    words: str
    thing: Thing
    round: int
    reason: str
    means: str
    detail: str
    slides: bool
    stays_low: bool
    tried: tuple[str, ...]
    picture: Callable[[], Image]


class Reasoner(Protocol):
    """Says what should be changed before the next attempt. `name` is kept with the episodes."""

    @property
    def name(self) -> str: ...

    def advise(self, trouble: Trouble) -> tuple[str, ...]:
        """Keys of `REMEDIES`."""


class Rules:
    """By the reason alone."""

    name = "rules"

    def advise(self, trouble: Trouble) -> tuple[str, ...]:
        match trouble.reason:
            case "unreachable_grasp" if trouble.slides:  # what slides need not be held
                return (PUSH,)
            case "unreachable_grasp":
                return (FROM_HIGHER, FROM_ABOVE) if FROM_HIGHER in trouble.tried else (FROM_HIGHER,)
            case "no_path":
                return (OTHER_GRASP, CARRY_HIGHER)
            case "slipped" if HOLD_LOWER in trouble.tried and trouble.stays_low:  # too heavy, or too smooth
                return (PUSH,)
            case "slipped":
                return (HOLD_LOWER,)
            case "collision":
                return (CARRY_HIGHER,)
        return (AGAIN,)


class Told:
    """The remedies that were chosen before, in order: an episode of a model, run again."""

    name = "told"

    def __init__(self, remedies: Sequence[tuple[str, ...]]) -> None:
        self._left = list(remedies)

    def advise(self, trouble: Trouble) -> tuple[str, ...]:
        return self._left.pop(0) if self._left else (AGAIN,)


ASKED = (
    "A robot arm with a parallel gripper that opens by 8 cm works at a table: {words}. The thing {name} is a {kind} of "
    "{size} cm. Attempt {number} has failed: {means}. In detail: {detail}. {tried}The picture shows the table now; the "
    "gray blocks must not be touched.\n"
    "What should be changed before the next attempt? One or two of:\n{remedies}\n"
    "Answer with their names, and why."
)
ANSWER: Mapping[str, Any] = {
    "type": "object",
    "properties": {
        "remedies": {"type": "array", "items": {"enum": list(REMEDIES)}, "minItems": 1, "maxItems": MOST},
        "reason": {"type": "string", "minLength": 1, "maxLength": 300},
    },
    "required": ["remedies", "reason"],
    "additionalProperties": False,
}


class ModelReasoner:
    """Asks a vision-language model; where it gives no answer that can be used, the rules decide. counts: `asked`, and
    `refused`: questions without such an answer. A model that has never answered raises NoAnswer: what the rules do
    without it would be counted as its own."""

    def __init__(self, model: str, ask: Ask) -> None:
        self.name = f"{model} ({PROMPTS})"
        self.counts: Counter[str] = Counter()
        self._ask, self._has_answered = ask, False

    def advise(self, trouble: Trouble) -> tuple[str, ...]:
        size = " x ".join(f"{100 * side:.0f}" for side in trouble.thing.size_m)
        tried = f"Changed before: {', '.join(trouble.tried)}. " if trouble.tried else ""
        text = ASKED.format(
            words=trouble.words, name=trouble.thing.name, kind=trouble.thing.kind, size=size, number=trouble.round + 1,
            means=trouble.means, detail=trouble.detail, tried=tried,
            remedies="\n".join(f"{name}: {words}" for name, words in REMEDIES.items()),
        )  # fmt: skip
        self.counts["asked"] += 1
        try:
            found = self._ask(text, [trouble.picture()], ANSWER, _contradiction)
        except HandloomError as error:
            self._has_answered |= not isinstance(error, NoAnswer)
            if not self._has_answered:
                raise
            self.counts["refused"] += 1
            return Rules().advise(trouble)
        self._has_answered = True
        return tuple(found["remedies"])


def _contradiction(found: Mapping[str, Any]) -> str | None:
    remedies = found["remedies"]
    if len(set(remedies)) < len(remedies):
        return f"remedies names {remedies[0]} twice"
    alone = next((one for one in (AGAIN, PUSH) if one in remedies and len(remedies) > 1), None)
    return None if alone is None else f"remedies has {alone} beside another one: it stands alone"


def apply(remedies: Sequence[str], tries: Tries, reason: str) -> None:
    """Change the next attempt. reason: of the failure."""
    for one in remedies:
        if one == PUSH:
            tries.pushes = True
        elif one == FROM_HIGHER:
            tries.tilts_rad = (*tries.tilts_rad, *((0.5, 1.0) if len(tries.tilts_rad) == 1 else (np.pi / 2,)))
            tries.spent.clear()
        elif one == FROM_ABOVE:
            tries.any_side = True
        elif one == OTHER_GRASP:
            tries.tilts_rad = tries.tilts_rad if len(tries.tilts_rad) > 1 else (0.5, 1.0, 0.0)
        elif one == CARRY_HIGHER:
            tries.higher_m += HIGHER_AFTER_COLLISION_M if reason == "collision" else HIGHER_M
        elif one == HOLD_LOWER:
            tries.lower_m += LOWER_M
