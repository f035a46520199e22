"""The clips of people in which a hand was seen: how many there are, and why none is left."""

from __future__ import annotations

from typing import TYPE_CHECKING

from handloom.errors import ConfigError
from handloom.store.embodiment import HUMAN, narrowed
from handloom.store.filters import both
from handloom.train.parts.table_checks import count_clips

if TYPE_CHECKING:
    from handloom.api import Database

WITH_HANDS = "(hand_left OR hand_right)"


def usable(db: Database, where: str, version: int | None) -> dict[str, int]:
    """Counts of clips: `rows` in all, `asked_for` (of people, that pass `where`), and of these `without_hands` and,
    with hands, `without_text`.

    Raises ConfigError where no clip is left.
    """
    if version is None or db.table("clips", version) is None:
        raise ConfigError(f"there are no clips to train on in {db.uri}", "extract some with `handloom run --db DB`")
    asked, of_people = where, narrowed(db, where or None, HUMAN)
    counts = {"rows": count_clips(db, None, version), "asked_for": count_clips(db, of_people, version)}
    if not counts["asked_for"]:
        of_robots = count_clips(db, asked or None, version)
        if of_robots:
            passing = f"that pass where = {asked!r}" if asked else "there are"
            raise ConfigError(
                f"this recipe learns from the hands of people, and the {of_robots} clips {passing} are of robots "
                f"({db.uri})",
                "change the filter, or extract clips of people",
            )
        raise ConfigError(
            f"where = {asked!r} passes none of the {counts['rows']} clips of {db.uri}",
            "change the filter, or extract more clips",
        )
    with_hands = count_clips(db, both(of_people, WITH_HANDS), version)
    counts["without_hands"] = counts["asked_for"] - with_hands
    counts["without_text"] = count_clips(db, both(of_people, f"{WITH_HANDS} AND narration IS NULL"), version)
    if not with_hands:
        raise ConfigError(
            f"no hand was seen in any of the {counts['asked_for']} clips, and this recipe learns from hands",
            "extract clips that show hands; `handloom show CLIP` draws what was found",
        )
    return counts
