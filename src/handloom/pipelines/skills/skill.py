"""`handloom skill`: learn, list, show, match, adapt and remove skills of a database."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from handloom.api import Database
from handloom.errors import ConfigError, StoreError
from handloom.io.addresses import is_utf8
from handloom.pipelines.skills.clips import VECTORS, clip_rows, execution_of, skill_row, stored_skill, task_of
from handloom.pipelines.skills.reading import Reading
from handloom.plural import plural
from handloom.schemas.tables.segments import COLUMN
from handloom.schemas.tables.stage_columns import key_column
from handloom.schemas.towers import AskSettings
from handloom.skills.adapt import Adapted, adapt
from handloom.skills.execution import Execution
from handloom.skills.learn import learn, weak_points
from handloom.skills.match import Verdict, judge
from handloom.skills.reader import Reader
from handloom.skills.skill import Skill
from handloom.store.skills.bank import delete_skill, read_skill, read_skills, without_row, write_skills

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
LOOKED_UP = {"constraints": 0.5, "words": 0.2, "text": 0.15, "look": 0.15}
"""Shares of a match's score; what is unknown of a skill or a clip is left out of the mean."""


@dataclass(frozen=True)
class Match:
    """A skill beside a clip or a text. verdict: None for a text. parts: similarities 0 to 1 by what was compared."""

    name: str
    task: str
    score: float
    parts: Mapping[str, float]
    verdict: Verdict | None


def learn_skill(
    db: Database,
    name: str,
    clips: Sequence[str] = (),
    where: str | None = None,
    task: str | None = None,
    split: bool = False,
    replace: bool = False,
    model: AskSettings | None = None,
) -> tuple[list[Skill], list[str]]:
    """Learn and keep a skill, or several with `split`; and sentences about what should be known of them.

    model: the vision-language model that reads; None: rules.

    Raises:
        ConfigError: no clips, no usable ones, clips of different tasks, a name that is taken or is no name, or a model
            that is not there.
        StoreError: a clip has no row, or no segments were computed.
        HandloomError: the model does not answer, or not what was asked; nothing is written.
    """
    if not _NAME.fullmatch(name):
        raise ConfigError(f"--name {name!r} is no name", "letters, digits and . _ -, at most 100: put-cup-aside")
    if task is not None and not is_utf8(task):
        raise ConfigError(f"--task {task!r} is no UTF-8 text", "type it in a terminal with UTF-8")
    if not replace and any(row["name"] == name for row in read_skills(db)):
        raise ConfigError(f"there is a skill {name!r} already", "give another --name, or --replace")
    rows = clip_rows(db, clips, where)
    reading = Reading(db, model)
    taught = teach(name, task, rows, reading.reader, db.version or 0, split)
    write_skills(db, taught.rows, replace)
    return list(taught.skills), [*taught.notes, *reading.notes]


@dataclass(frozen=True)
class Taught:
    """Skills that clips have taught, and their rows of the table `skills`, in this order. notes: what should be known
    of them."""

    skills: tuple[Skill, ...]
    rows: tuple[dict[str, Any], ...]
    notes: tuple[str, ...]


def teach(
    name: str, task: str | None, rows: Sequence[Mapping[str, Any]], reader: Reader, version: int, split: bool
) -> Taught:
    """Skills from rows of clips (`clip_rows`) of this version of the table; nothing is written.

    task: None: the words that the clips share. Raises as `skills.learn.learn`, and what the reader raises.
    """
    found = learn(name, task or "", [execution_of(row) for row in rows], reader, split)
    taught = [[row for row in rows if row["clip_id"] in skill.clip_ids] for skill in found.skills]
    skills = found.skills
    if task is None:  # of clips that were left out, or taught another skill, the words say something else
        skills = tuple(one.for_task(task_of(its)) for one, its in zip(skills, taught, strict=True))
    notes = [*found.notes, *_other_verbs(skills, rows)]
    if len(keys := {row[key_column(COLUMN)] for row in rows}) > 1:
        notes.append(f"segments of {len(keys)} settings or versions were mixed; `handloom run` brings them to one")
    kept = tuple(skill_row(one, its, version) for one, its in zip(skills, taught, strict=True))
    return Taught(skills, kept, tuple(notes))


def list_skills(db: Database) -> list[dict[str, Any]]:
    """Name, task, steps, number of clips, reader and time of each skill; `gone`: its clips that have no row any
    more."""
    names = ("name", "task", "steps", "num_clips", "reader", "learned_at")
    rows = read_skills(db)
    gone = without_row(db, {clip for row in rows for clip in row["clip_ids"]})
    return [
        {name: row[name] for name in names} | {"gone": [clip for clip in row["clip_ids"] if clip in gone]}
        for row in rows
    ]


def show_skill(db: Database, name: str, out: Path | None = None) -> tuple[Skill, list[str]]:
    """A skill, and what should be known of it: weak points, clips without a row; with `out`, a picture.

    Raises ConfigError if `out` is no .png, StoreError if there is no such skill, or the picture cannot be written.
    """
    if out is not None and out.suffix.lower() != ".png":
        raise ConfigError(f"--out {str(out)!r} is no .png file", "name a file that ends in .png")
    skill = stored_skill(read_skill(db, name))
    if out is not None:
        from handloom.draw.skill import write_skill_picture

        write_skill_picture(asdict(skill), out)
    gone = without_row(db, skill.clip_ids)
    return skill, [*weak_points(skill), *([gone_text(skill, gone)] if gone else [])]


def gone_text(skill: Skill, gone: Collection[str]) -> str:
    """A sentence about clips of a skill that have no row any more."""
    named = ", ".join(clip for clip in skill.clip_ids if clip in gone)
    of = f"{len(gone)} of the {plural(len(skill.clip_ids), 'clip')}"
    return (
        f"{skill.name}: {of} that taught it have no row any more ({named}). It keeps what it learned from them: "
        f"`handloom skill learn --name {skill.name} --replace` learns it from others, `handloom skill remove` drops it"
    )


def remove_skill(db: Database, name: str) -> None:
    """Drop a skill. Raises StoreError if there is no such skill, or the table cannot be written."""
    delete_skill(db, name)


def match_skills(
    db: Database, clip: str | None = None, text: str | None = None, k: int = 10
) -> tuple[list[Match], list[str]]:
    """Skills that a clip executes or resembles, or that a text names, best first; and a sentence about each that a clip
    was not compared with, because its constraints cannot be read.

    Raises:
        ConfigError: neither or both are given, or the text is empty.
        StoreError: there is no skill, or none whose constraints can be read, or the clip has no row or no segments.
    """
    if (clip is None) == (text is None):
        raise ConfigError(
            "match takes --clip or --text, got " + ("none" if text is None else "both"), "give one of them"
        )
    if k < 1:
        raise ConfigError(f"k is {k}, expected 1 or more")
    skills = read_skills(db)
    if not skills:
        raise StoreError(f"there is no skill in {db.uri}", "learn one with `handloom skill learn`")
    if text is not None:
        if not _words(text):
            raise ConfigError(f"--text {text!r} has no words", "say what is done: 'put the cup on the plate'")
        found, notes = [_of_text(row, text) for row in skills], list[str]()
    else:
        found, notes = _of_clip(skills, clip_rows(db, [str(clip)], None)[0])
    return sorted(found, key=lambda one: (-one.score, one.name))[:k], notes


def adapt_skill(db: Database, name: str, clip: str, model: AskSettings | None = None) -> tuple[Adapted, list[str]]:
    """A skill with bounds for the things of a clip, and sentences about its cost; nothing is written.

    model: the vision-language model that compares; None: rules.

    Raises:
        ConfigError: the clip shows no thing of a known size, or the model is not there.
        StoreError: there is no such skill, or the clip has no row or no segments.
        HandloomError: the model does not answer, or not what was asked.
    """
    skill = stored_skill(read_skill(db, name))
    execution = execution_of(clip_rows(db, [clip], None)[0])
    reading = Reading(db, model)
    return adapt(skill, execution, reading.reader), reading.notes


def executions_of(db: Database, skill: Skill) -> tuple[Execution, ...]:
    """What the clips show that taught a skill; those without a row are left out. Raises StoreError: there is none."""
    gone = without_row(db, skill.clip_ids)
    left = [clip for clip in skill.clip_ids if clip not in gone]
    if not left:
        raise StoreError(gone_text(skill, gone))
    return tuple(execution_of(row) for row in clip_rows(db, left, None))


def _other_verbs(skills: Sequence[Skill], rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """A sentence about each skill whose clips have different verbs: segments see how things move, not what is done."""
    notes = []
    for skill in skills:
        verbs = Counter(row["verb"] for row in rows if row["clip_id"] in skill.clip_ids and row["verb"])
        if len(verbs) > 1:
            told = ", ".join(f"{verb} {num}" for verb, num in verbs.most_common())
            notes.append(
                f"{skill.name}: the verbs of the clips differ ({told}), and their steps are alike: is this one task? "
                '--where "verb = ..." takes those of one'
            )
    return notes


def _words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text.lower()))


def _overlap(a: str, b: str) -> float | None:
    """Share of common words; None if one has none."""
    one, other = _words(a), _words(b)
    return len(one & other) / len(one | other) if one and other else None


def _cosine(a: ArrayLike | None, b: ArrayLike | None) -> float | None:
    if a is None or b is None:
        return None
    x, y = np.array(a, float), np.array(b, float)
    if len(x) != len(y):
        return None
    length = float(np.linalg.norm(x) * np.linalg.norm(y))
    return max(float(x @ y) / length, 0.0) if length > 0 else None


def _weighted(parts: Mapping[str, float | None]) -> tuple[float, dict[str, float]]:
    known = {name: value for name, value in parts.items() if value is not None}
    total = sum(LOOKED_UP[name] for name in known)
    return (sum(LOOKED_UP[name] * value for name, value in known.items()) / total if total else 0.0), known


def _of_clip(rows: Sequence[Mapping[str, Any]], clip: Mapping[str, Any]) -> tuple[list[Match], list[str]]:
    """Skills beside a clip; those that cannot be read are left out and named. Raises the first one's error where none
    is left."""
    found, errors = [], []
    for row in rows:
        try:
            skill = stored_skill(row)
        except StoreError as error:
            errors.append(error)
        else:
            found.append(_beside(row, judge(skill, execution_of(clip)), clip))
    if not found:
        raise errors[0]
    return found, [f"left out: {error.problem}; {error.hint}" for error in errors]


def _beside(row: Mapping[str, Any], verdict: Verdict, clip: Mapping[str, Any]) -> Match:
    parts: dict[str, float | None] = {"constraints": verdict.score, "words": _overlap(row["task"], task_of([clip]))}
    for one in VECTORS:
        same = row[f"{one}_version"] == clip.get(f"{one}_version")
        parts[one] = _cosine(row[one], clip.get(f"embedding_{one}")) if same else None
    score, known = _weighted(parts)
    return Match(row["name"], row["task"], score, known, verdict)


def _of_text(row: Mapping[str, Any], text: str) -> Match:
    by_words = max(_overlap(text, row["task"]) or 0.0, _overlap(text, row["steps"]) or 0.0)
    vector = None if row["text"] is None else _sentence(text, row["text_version"])
    score, known = _weighted({"words": by_words, "text": None if vector is None else _cosine(row["text"], vector)})
    return Match(row["name"], row["task"], score, known, None)


def _sentence(text: str, version: str) -> NDArray[np.float32] | None:
    """The vector of a text beside those of `embedding_text` of these weights; None where other ones are installed."""
    from handloom.models.language.sentences import WEIGHTS, SentenceEncoder, is_installed

    if not is_installed() or version != WEIGHTS.digest:
        return None
    return SentenceEncoder().encode([text])[0]
