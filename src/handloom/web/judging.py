"""Judgements from the pages: read by all, written only where the server was started with `--judge`; and rejected clips
that shall be tried again."""

from __future__ import annotations

import getpass
import io
import json
from collections import Counter
from collections.abc import Mapping
from typing import Any

import pyarrow.parquet as pq
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from handloom.errors import ConfigError
from handloom.pipelines.judgements import as_json, csv_text
from handloom.schemas.tables.arrow import VERDICTS
from handloom.store.clips.judgements import Judgement, judge, judgement_of, take_back
from handloom.store.clips.removal import remove_rows
from handloom.store.filters import in_list
from handloom.store.runs.lease import alone
from handloom.store.stages.rejects import forget_rejects
from handloom.web.access import LOOPBACK
from handloom.web.answers import (
    Changed,
    NotAllowed,
    NotThere,
    TooLarge,
    asked_id,
    blocking,
    bytes_answer,
    json_answer,
    whole_number,
)
from handloom.web.gallery import Gallery

MOST_AT_ONCE = 2000
"""Clips that one request judges, or that are tried again."""
FORMS = {"csv": "text/csv; charset=utf-8", "parquet": "application/vnd.apache.parquet"}
MOST_BYTES = 256 << 20
"""Of judgements in one file: notes may be long."""


def routes(gallery: Gallery) -> list[Route]:
    """The addresses of judgements."""

    async def listed(request: Request) -> Response:
        if request.query_params.get("id"):
            return json_answer(request, await blocking(of_clip, gallery, asked_id(request)))
        offset = whole_number(request.query_params.get("offset"), "offset", 0, 0, 1 << 40)
        limit = whole_number(request.query_params.get("limit"), "limit", 200, 1, MOST_AT_ONCE)
        return json_answer(request, await blocking(judgements, gallery, offset, limit))

    async def write(request: Request) -> Response:
        if not gallery.judging:
            raise NotAllowed("this gallery is only for reading", "start it with `handloom serve --judge`")
        near = request.client is not None and request.client.host in LOOPBACK
        body = await asked_body(request)
        return json_answer(request, await blocking(written, gallery, body, _user() if near else None, limit_s=None))

    async def again(request: Request) -> Response:
        if not gallery.judging:
            raise NotAllowed("this gallery is only for reading", "start it with `handloom serve --judge`")
        body = await asked_body(request)
        return json_answer(request, await blocking(requeued, gallery, _ids(body, "ids"), limit_s=None))

    async def download(request: Request) -> Response:
        form = request.query_params.get("format", "csv")
        made = await blocking(as_file, gallery, form, limit_s=None)
        told = {"Content-Disposition": f'attachment; filename="judgements.{form}"'}
        return bytes_answer(request, made, FORMS[form], headers=told)

    return [
        Route("/download/judgements", download),
        Route("/api/judgements", listed),
        Route("/api/judge", write, methods=["POST"]),
        Route("/api/requeue", again, methods=["POST"]),
    ]


async def asked_body(request: Request) -> dict[str, Any]:
    """The JSON object in the body. Raises ConfigError for anything else."""
    try:
        body = json.loads(await request.body())
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"the body is no JSON: {error}", "send a JSON object") from error
    if not isinstance(body, dict):
        raise ConfigError(f"the body is JSON of another kind: {type(body).__name__}", "send a JSON object")
    return body


def judgements(gallery: Gallery, offset: int, limit: int) -> dict[str, Any]:
    """Counts by verdict and reason, and some judgements, newest first."""
    rows = gallery.db.judgements()
    pairs = Counter(zip(rows.column("verdict").to_pylist(), rows.column("reason").to_pylist(), strict=True))
    counts = {verdict: sum(num for (one, _), num in pairs.items() if one == verdict) for verdict in VERDICTS}
    return {
        "total": rows.num_rows,
        "counts": counts,
        "reasons": [[verdict, reason, num] for (verdict, reason), num in pairs.most_common() if reason],
        "offset": offset,
        "judgements": as_json(rows.slice(offset, limit)),
    }


def as_file(gallery: Gallery, form: str) -> bytes:
    """All judgements, newest first, as `handloom judgements --csv` writes them (`csv`), or as a table (`parquet`).

    Raises ConfigError for another form, TooLarge where they take more than `MOST_BYTES`.
    """
    if form not in FORMS:
        raise ConfigError(f"format={form[:100]!r}", f"expected {' or '.join(FORMS)}")
    rows = gallery.db.judgements()
    if rows.nbytes > MOST_BYTES:
        problem = f"{rows.num_rows:,} judgements take {rows.nbytes >> 20} MB, at most {MOST_BYTES >> 20} are sent"
        raise TooLarge(problem, "`handloom judgements --csv FILE` writes all of them")
    if form == "csv":
        return csv_text(rows).encode()
    out = io.BytesIO()
    pq.write_table(rows, out)
    return out.getvalue()


def written(gallery: Gallery, body: Mapping[str, Any], user: str | None = None) -> dict[str, Any]:
    """Write, or with `verdict` null take back, the judgement of `clip_id`, or of all `clip_ids`.

    Without `reason` or `note` in the body a clip keeps those that it has, but no reason for another verdict. user: who
    judges where the page gives no name. Returns `{"judgement": ...}` of one clip, `{"num": ...}` of several.
    Raises ConfigError and NotThere for what cannot be judged; StoreError if the table cannot be written.
    """
    ids = _ids(body, "clip_ids") if "clip_ids" in body else [_text(body, "clip_id") or ""]
    verdict = _text(body, "verdict")
    if "verdict" not in body:
        raise ConfigError("the body has no verdict", "good, bad, or null, which takes the judgement back")
    for clip_id in ids:
        gallery.catalogue().place(clip_id)  # NotThere, with the nearest ids
    if "before" in body and "clip_ids" not in body:
        _check_seen(gallery, ids[0], _text(body, "before"))
    if verdict is None:
        num = take_back(gallery.db, ids)
    else:
        seen = body.get("version")
        seen = seen if isinstance(seen, int) and not isinstance(seen, bool) and 0 <= seen < 1 << 62 else None
        before = {} if {"reason", "note"} <= body.keys() else _before(gallery, ids)
        made = [
            Judgement(
                clip_id,
                verdict,
                _kept(body, "reason", before.get(clip_id, {}), verdict),
                _kept(body, "note", before.get(clip_id, {}), None),
                _text(body, "who") or user,
                clips_version=seen,
            )
            for clip_id in dict.fromkeys(ids)
        ]
        num = len(judge(gallery.db, made))
    gallery.forget("verdicts")
    if "clip_ids" in body:
        return {"num": num}
    return of_clip(gallery, ids[0])


def of_clip(gallery: Gallery, clip_id: str) -> dict[str, Any]:
    """The judgement of one clip; null without one."""
    kept = judgement_of(gallery.db, clip_id)
    return {"judgement": None if kept is None else kept | {"at": kept["at"].isoformat()}}


def _check_seen(gallery: Gallery, clip_id: str, before: str | None) -> None:
    """Raise Changed if the clip's judgement is another one than that of this time; None: than none."""
    now = of_clip(gallery, clip_id)["judgement"]
    if (None if now is None else now["at"]) == before:
        return
    if now is None:
        raise Changed(
            f"the judgement of clip {clip_id} was taken back meanwhile", "it is shown as it is now: judge again"
        )
    by = f" by {now['who']}" if now["who"] else ""
    raise Changed(f"clip {clip_id} was judged {now['verdict']}{by} meanwhile", "judge again to put yours in its place")


def requeued(gallery: Gallery, clip_ids: list[str]) -> dict[str, Any]:
    """Rejected clips are pending again, and failed stages of clips with a row are tried again: by the next run.

    Rows stay. Raises NotThere if none of the clips was rejected, DatabaseBusy while a run works.
    """
    db, condition = gallery.db, in_list("clip_id", clip_ids)
    lost, failed = (db.read(name, columns, condition).to_pylist() for name, columns in _REJECTED)
    there = db.read("clips", ["clip_id"], condition)
    done = set(there.column("clip_id").to_pylist()) if there.num_columns else set()
    clips = sorted({row["clip_id"] for row in lost} - done)
    stages: dict[str, set[str]] = {}
    for row in failed:
        stages.setdefault(row["clip_id"], set()).add(row["stage"])
    if not clips and not stages:
        raise NotThere(f"none of the {len(clip_ids)} clips is rejected any more", "load the page again")
    with alone(db, "requeue", "rejected clips cannot be put back meanwhile"):
        removed = remove_rows(db, clips).rejects if clips else 0
        num_stages = forget_rejects(db, stages) if stages else 0
    for name in ("rejected", "counts", "dataset"):
        gallery.forget(name)
    return {"clips": removed, "stages": num_stages}


_REJECTED = (("rejects", ["clip_id"]), ("stage_rejects", ["clip_id", "stage"]))


def _before(gallery: Gallery, clip_ids: list[str]) -> dict[str, dict[str, Any]]:
    rows = gallery.db.judgements(in_list("clip_id", clip_ids))
    return {row["clip_id"]: row for row in rows.to_pylist()}


def _kept(body: Mapping[str, Any], name: str, before: Mapping[str, Any], verdict: str | None) -> str | None:
    """A text of the body; where it has none, that of the judgement before. verdict: it counts for this one alone."""
    if name in body:
        return _text(body, name)
    return before.get(name) if verdict is None or before.get("verdict") == verdict else None


def _ids(body: Mapping[str, Any], name: str) -> list[str]:
    ids = body.get(name)
    if not isinstance(ids, list) or not ids or not all(isinstance(one, str) and one for one in ids):
        raise ConfigError(f"{name} is no list of ids", f'{{"{name}": ["..."]}}')
    if len(ids) > MOST_AT_ONCE:
        raise ConfigError(f"{name} holds {len(ids):,} ids", f"at most {MOST_AT_ONCE:,} at once")
    return list(dict.fromkeys(ids))


def _text(body: Mapping[str, Any], name: str) -> str | None:
    value = body.get(name)
    if value is not None and not isinstance(value, str):
        raise ConfigError(f"{name} is {type(value).__name__}", "expected a text or null")
    return value


def _user() -> str | None:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        return None
