"""Do other words find an action? And are opposite actions kept apart?

The wordings were written down once, without looking at what they find.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from handloom.api import Database
from handloom.bench.retrieval.actions import AMONG
from handloom.bench.retrieval.scenes import Filmed
from handloom.bench.retrieval.scores import K, average_precision, interval

WORDINGS: dict[str, tuple[str, ...]] = {
    "push": ("shove", "shove the object away", "slide something along the tabletop", "nudge the thing forward"),
    "wave": ("greet somebody with the hand", "say hello", "move the hand from side to side in the air"),
    "wipe": ("clean the surface with a rag", "mop the tabletop", "polish"),
    "pour": ("tip the drink into the bowl", "empty the cup into the bowl", "decant"),
    "rotate": ("turn the jar around", "twist", "spin the can in place"),
    "put": ("drop the fruit in the dish", "place the apple inside the bowl", "insert the block into the bowl"),
    "pick-place": ("relocate the thing", "move the cup to another spot", "grab it and set it down elsewhere"),
    "lift": ("raise the bottle", "pick up the can", "hoist"),
    "reach": ("stretch the arm towards the cup", "extend the hand to the book", "grasp at the box"),
    "cross": ("put one arm over the other", "arms crossed above the desk"),
    "open-drawer": ("pull the drawer out", "unclose the drawer", "slide the drawer towards oneself"),
    "close": ("shut the drawer", "push the drawer back in", "slide the drawer closed"),
}
OPPOSITES = (
    ("open the drawer", "close"),
    ("pull the drawer open", "close"),
    ("close the drawer", "open-drawer"),
    ("shut the drawer", "open-drawer"),
    ("pick up the apple", "put"),
    ("take the block", "put"),
    ("put the apple down", "lift"),
    ("put down the block", "lift"),
)
"""A text, and the kind of action that undoes it."""


def measure_words(db: Database, searched: Sequence[Filmed], kind_of: dict[str, str]) -> dict[str, Any]:
    """`other_words` and the same by words alone; `shove`; `opposites`: their share among the first ten."""
    kinds = {one.kind for one in searched}
    num = {kind: sum(one == kind for one in kind_of.values()) for kind in kinds}

    def found(text: str, meaning: bool = True) -> list[str]:
        return [kind_of[hit.clip_id] for hit in db.search(text=text, k=K, where=AMONG, meaning=meaning)]

    told: dict[str, Any] = {}
    for name, meaning in (("other_words", True), ("other_words_exact", False)):
        scores = {
            text: average_precision([one == kind for one in found(text, meaning)], num[kind])
            for kind, texts in WORDINGS.items()
            if kind in kinds
            for text in texts
        }
        told[name] = interval(list(scores.values())) | {"by_text": {t: round(v, 3) for t, v in scores.items()}}
    shoved = found("shove")[: num.get("push", 0)]
    told["shove_finds_pushes"] = round(float(np.mean([one == "push" for one in shoved])), 4) if shoved else None
    shares = {text: float(np.mean([one == kind for one in found(text)])) for text, kind in OPPOSITES if kind in kinds}
    told["opposites_among_first_ten"] = {"mean": round(float(np.mean(list(shares.values()))), 4), "by_text": shares}
    return told
