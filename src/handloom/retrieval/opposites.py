"""Actions whose results undo each other: `open` and `close`, `turn on` and `turn off`.

An encoder of sentences puts them side by side, because they are said of the same things: the cosine of "open the
fridge" with "close the fridge" is higher than that of "close the cupboard".
"""

from __future__ import annotations

import re
from functools import lru_cache

PAIRS = (
    ("open", "close shut"),
    ("turn-on switch-on", "turn-off switch-off"),
    ("put place insert put-down put-in put-into put-on", "take pick remove take-out pick-up take-off grab get"),
    ("fill", "empty drain"),
    ("lift raise", "lower drop"),
    ("push", "pull"),
    ("screw", "unscrew"),
    ("lock", "unlock"),
    ("wrap", "unwrap"),
    ("fold", "unfold"),
    ("roll", "unroll"),
    ("attach", "detach remove"),
    ("plug", "unplug"),
    ("tie", "untie"),
    ("load", "unload"),
    ("cover", "uncover"),
    ("increase", "decrease"),
    ("enter", "leave exit"),
    ("freeze", "defrost melt"),
)


def _by_action(same: bool) -> dict[str, frozenset[str]]:
    found: dict[str, set[str]] = {}
    for one, other in PAIRS:
        for some, against in ((one, other), (other, one)):
            for action in some.split():
                found.setdefault(action, set()).update((some if same else against).split())
    return {action: frozenset(others) for action, others in found.items()}


OPPOSITE_OF, SAME_AS = _by_action(same=False), _by_action(same=True)
_VERBS = frozenset(action.partition("-")[0] for action in OPPOSITE_OF)
_PARTICLES = frozenset(action.partition("-")[2] for action in OPPOSITE_OF) - {""}
_IRREGULAR = {"took": "take", "taken": "take", "got": "get", "froze": "freeze", "frozen": "freeze"}
_WORD = re.compile("[a-z]+")


def actions_in(text: str) -> frozenset[str]:
    """The actions of `PAIRS` that a text names: `turned the tap off` is `turn-off`, `opening` is `open`."""
    words = _WORD.findall(text.lower())
    found = set()
    for place, word in enumerate(words):
        for verb in _known_verbs(word):
            joined = (f"{verb}-{later}" for later in words[place + 1 :] if later in _PARTICLES)
            found.add(next((action for action in joined if action in OPPOSITE_OF), verb))
    return frozenset(found & OPPOSITE_OF.keys())


@lru_cache(maxsize=1 << 16)
def _known_verbs(word: str) -> frozenset[str]:
    """The verbs of `PAIRS` that a word may be a form of; kept, as thousands of clips use few words."""
    return frozenset(plain_forms(word) & _VERBS)


def undoes(asked: frozenset[str], other: frozenset[str]) -> bool:
    """Whether other actions undo those that are asked for: none does the same, and one is the opposite of one."""
    does_the_same = any(SAME_AS[action] & other for action in asked)
    return not does_the_same and any(OPPOSITE_OF[action] & other for action in asked)


def plain_forms(word: str) -> set[str]:
    """The plain forms of verbs that an inflected English word may come from."""
    found = {word, _IRREGULAR.get(word, word)}
    for ending in ("ing", "ed", "es", "s", "d"):
        stem = word.removesuffix(ending)
        if stem != word and len(stem) > 1:
            found |= {stem, f"{stem}e"}
            if len(stem) > 2 and stem[-1] == stem[-2]:
                found.add(stem[:-1])
    return found
