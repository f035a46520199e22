"""What the server sends: JSON, arrays as bytes, errors; and how blocking work leaves the event loop."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import json
import math
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import anyio
import anyio.to_thread
import numpy as np
from anyio.lowlevel import RunVar
from numpy.typing import NDArray
from starlette.datastructures import Headers, UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartParser
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.types import Message, Receive, Scope, Send

from handloom.errors import ClipError, ConfigError, HandloomError, StoreError, with_extra
from handloom.store.search.scope import NoEmbedding

Result = TypeVar("Result")
LONGEST_S = 20.0
"""A search that takes longer is given up: its answer, not its thread, which ends by itself."""
LOOK_S = 0.3
"""How often it is looked whether the one who asked is still there."""
MIN_GZIP_BYTES, GZIP_LEVEL = 1400, 4
PINNED = "private, max-age=600"  # of one version: the bytes stay, but a clip may be removed with all its versions


class NotThere(StoreError):
    """What is asked for is not in the database: 404."""


class NotAllowed(ConfigError):
    """The server was not started so that this may be done: 403."""


class TooLarge(ConfigError):
    """A request holds more bytes than it may: 413."""


class Changed(ConfigError):
    """What the page shows is not what is there any more: 409."""


class TookTooLong(StoreError):
    """Given up after `LONGEST_S`: 503."""


STATUS = (
    (NotThere, 404),
    (NotAllowed, 403),
    (TooLarge, 413),
    (Changed, 409),
    (ConfigError, 400),
    (NoEmbedding, 400),
    (ClipError, 404),
    (StoreError, 503),
    (HandloomError, 500),
)


THREADS, PATIENT_THREADS = 8, 4
"""At once: what is given up after some time, and what may take any. Neither waits for the other, nor do the pages' own
files, which Starlette reads in threads of its own: a store that does not answer stops none of them."""
_limiters: RunVar[tuple[anyio.CapacityLimiter, anyio.CapacityLimiter]] = RunVar("handloom_gallery_threads")


def _threads(patient: bool) -> anyio.CapacityLimiter:
    try:
        return _limiters.get()[patient]
    except LookupError:
        _limiters.set((anyio.CapacityLimiter(THREADS), anyio.CapacityLimiter(PATIENT_THREADS)))
        return _limiters.get()[patient]


async def blocking(work: Callable[..., Result], *args: Any, limit_s: float | None = LONGEST_S, **more: Any) -> Result:
    """`work(*args, **more)` in a thread. Raises TookTooLong after `limit_s`; None: it may take any time."""
    with anyio.move_on_after(limit_s):
        abandon, limiter = limit_s is not None, _threads(limit_s is None)
        return await anyio.to_thread.run_sync(partial(work, *args, **more), abandon_on_cancel=abandon, limiter=limiter)
    raise TookTooLong(
        f"given up after {limit_s:g} s",
        "the disk or the store may be slow: try again; a search takes less with a filter or fewer words, and with the "
        "indexes that `handloom index --db DB` builds",
    )


class Stopped(Exception):
    """Nobody waits for the answer any more. No HandloomError: a search goes on without a part that has one."""


class Waiting:
    """Whether somebody waits for the answer to a request; a thread that works on it asks now and then."""

    def __init__(self) -> None:
        self._over = threading.Event()

    def stop(self) -> None:
        self._over.set()

    def check(self) -> None:
        """Raise Stopped when nobody waits."""
        if self._over.is_set():
            raise Stopped

    @contextmanager
    def turn(self, lock: threading.Lock) -> Iterator[None]:
        """Hold the lock in the block. Raises Stopped when nobody waits before it is free."""
        while not lock.acquire(timeout=LOOK_S):
            self.check()
        try:
            yield
        finally:
            lock.release()

    async def result(self, request: Request, work: Callable[[], Result], limit_s: float) -> Result:
        """`work()` in a thread, as `blocking` does it, until the connection is closed. Raises Stopped then."""

        async def look() -> None:
            while not await request.is_disconnected():
                await anyio.sleep(LOOK_S)
            self.stop()

        looking = asyncio.create_task(look())
        try:
            return await blocking(work, limit_s=limit_s)
        finally:
            self.stop()
            looking.cancel()


def plain(value: Any) -> Any:
    """The value with lists, dicts, numbers and text alone: NaN and infinity are null, numpy's arrays lists."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, str | int):
        return value
    if isinstance(value, Mapping):
        return {str(name): plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(one) for one in value]
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    if isinstance(value, bytes):
        return None
    return value.isoformat() if hasattr(value, "isoformat") else str(value)


def json_answer(request: Request, values: Mapping[str, Any], status: int = 200) -> Response:
    """Values as JSON, compressed where the browser takes that."""
    body = json.dumps(plain(values), ensure_ascii=False, separators=(",", ":")).encode()
    return bytes_answer(request, body, "application/json", status, compress=True)


def bytes_answer(
    request: Request,
    body: bytes,
    media_type: str,
    status: int = 200,
    *,
    compress: bool = False,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """Bytes with the cache's rules: an address with `v` never changes; others are asked for again, by their ETag."""
    pinned = bool(request.query_params.get("v")) and status == 200
    told = {"Cache-Control": PINNED if pinned else "no-cache", **(headers or {})}
    if status == 200 and request.method in ("GET", "HEAD"):
        told["ETag"] = f'"{hashlib.blake2b(body, digest_size=12).hexdigest()}"'
        if told["ETag"] in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=told)
    if compress and len(body) >= MIN_GZIP_BYTES and "gzip" in request.headers.get("accept-encoding", ""):
        body = gzip.compress(body, GZIP_LEVEL, mtime=0)
        told["Content-Encoding"] = "gzip"
    if compress:
        told["Vary"] = "Accept-Encoding"
    return Response(body, status, told, media_type)


DTYPES = {"f2": "F32", "f4": "F32", "f8": "F64", "b1": "BOOL", "u1": "U8", "i1": "I32", "i2": "I32", "i4": "I32"}
STORED_AS = {"F32": "<f4", "F64": "<f8", "BOOL": "|b1", "U8": "|u1", "I32": "<i4"}


def packed(arrays: Mapping[str, NDArray[Any] | bytes]) -> bytes:
    """Arrays in the layout of safetensors: the header's length (8 bytes, little-endian), the header in JSON, values.

    float16 and small integers are widened, as browsers have no arrays of them or of 64-bit integers; bytes are U8.
    """
    header: dict[str, Any] = {}
    parts: list[bytes] = []
    at = 0
    for name, values in arrays.items():
        array = np.frombuffer(values, np.uint8) if isinstance(values, bytes) else values
        kind = DTYPES.get(f"{array.dtype.kind}{array.dtype.itemsize}", "I32" if array.dtype.kind in "iu" else "F64")
        part = values if isinstance(values, bytes) else np.ascontiguousarray(array, STORED_AS[kind]).tobytes()
        header[name] = {"dtype": kind, "shape": list(array.shape), "data_offsets": [at, at + len(part)]}
        parts.append(part)
        at += len(part)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # so that values of 8 bytes lie where a browser can map them
    return b"".join([len(text).to_bytes(8, "little"), text, *parts])


def error_answer(request: Request, problem: str, hint: str, status: int) -> Response:
    return json_answer(request, {"error": {"problem": problem, "hint": hint}}, status)


class FileAnswer(FileResponse):
    """A file, or ranges of it. A range that cannot be served is told as any error; `background` comes in any case."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        refused: list[Message] = []

        async def told(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] >= 400:
                refused.append(message)
            elif not refused:
                await send(message)

        await super().__call__(scope, receive, told)
        if not refused:
            return
        size, asked = Path(self.path).stat().st_size, Headers(scope=scope).get("range", "")
        hint = f"the file has {size} bytes: bytes=FIRST-LAST"
        answer = error_answer(Request(scope), f"the range {asked[:200]!r} cannot be served", hint, refused[0]["status"])
        answer.headers["Content-Range"] = f"bytes */{size}"
        answer.background = self.background
        await answer(scope, receive, send)


def handloom_error(request: Request, error: Exception) -> Response:
    """An error that handloom raises on purpose."""
    problem, hint = getattr(error, "problem", str(error)), getattr(error, "hint", "")
    status = next(code for kind, code in STATUS if isinstance(error, kind))
    needs_package = isinstance(error.__cause__, ModuleNotFoundError)
    return error_answer(request, problem, hint, 501 if needs_package else status)


def http_error(request: Request, error: Exception) -> Response:
    """An address that does not exist, or another method."""
    status = error.status_code if isinstance(error, HTTPException) else 500
    hint = "docs/gallery.md has the addresses" if status in (404, 405) else ""
    detail = error.detail if isinstance(error, HTTPException) else ""
    return error_answer(request, f"{request.method} {request.url.path}: {detail}", hint, status)


def missing_package(request: Request, error: Exception) -> Response:
    """A part of handloom that is not installed where the server runs."""
    from handloom.pipelines.doctor import extra_of

    name = (getattr(error, "name", None) or str(error)).split(".")[0]
    extra = extra_of(name)
    hint = with_extra(extra) if extra else f"pip install {name}"
    return error_answer(request, f"this needs the package {name}, which is not installed beside the server", hint, 501)


def gone_away(request: Request, error: Exception | None = None) -> Response:
    """Who asked has closed the connection: nobody reads this."""
    return Response(status_code=400)


def no_form(request: Request, error: Exception) -> Response:
    """A body that is not the form that its header promises: Starlette turns only errors of its own into answers."""
    return error_answer(request, f"the body is no form: {error}", "send a form with one file named `file`", 400)


@asynccontextmanager
async def uploaded(request: Request) -> AsyncIterator[UploadFile]:
    """The field `file` of the form of a request. Raises ConfigError where there is none. What came is closed in the
    end, also of a form that ends in the middle: Starlette leaves that to the collector of garbage."""
    nothing = ConfigError("no file came", "send a form with one file named `file`")
    if not request.headers.get("content-type", "").startswith("multipart/form-data"):
        raise nothing
    parser = MultiPartParser(request.headers, request.stream(), max_files=1, max_fields=4)
    try:
        file = (await parser.parse()).get("file")
        if not isinstance(file, UploadFile):
            raise nothing
        yield file
    finally:
        for opened in getattr(parser, "_files_to_close_on_error", ()):  # all of them
            opened.close()


def bug(request: Request, error: Exception) -> Response:
    """Anything else: the trace is in the server's log."""
    problem = f"an error in handloom itself: {type(error).__name__}"
    return error_answer(request, problem, "the terminal of `handloom serve` shows where", 500)


def whole_number(text: str | None, name: str, default: int, least: int, most: int) -> int:
    """A number of the address. Raises ConfigError for no number, or one out of its bounds."""
    if text is None or text == "":
        return default
    try:
        value = int(text)
    except ValueError:
        value = least - 1
    if not least <= value <= most:
        raise ConfigError(f"{name}={text!r}", f"expected a whole number from {least} to {most}")
    return value


def number(text: str | None, name: str) -> float | None:
    """A number of the address; None if it is not there. Raises ConfigError for anything that is no finite number."""
    if text is None or text == "":
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ConfigError(f"{name}={text!r}", "expected a number")
    return value


def asked_version(request: Request) -> int | None:
    """`v` of the address: a version of `clips`; None: the newest."""
    text = request.query_params.get("v")
    return None if not text else whole_number(text, "v", 0, 0, 1 << 62)


def asked_id(request: Request, name: str = "id") -> str:
    """The id of a clip in the address. Raises ConfigError if there is none."""
    text = request.query_params.get(name, "")
    if not text or len(text) > 4096:
        raise ConfigError(
            f"{name} is {'empty' if not text else 'too long'}", f"?{name}=ID, as the search page gives it"
        )
    return text
