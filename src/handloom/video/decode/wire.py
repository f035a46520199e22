"""The messages between a worker and its decoding process: JSON followed by raw bytes, checked on arrival.

The process reads files from anywhere, and one of them may have taken it over. So nothing that it sends is executed (no
pickle), every length is bounded by what was requested, and every reply is rebuilt field by field.

A message is two lengths, a JSON object and a payload. The reply to a request (`clip`, ...) is `info`; or a `header`
(payload: the frames' times), `chunk`s of frames and an `end`, with a second `header` where another decoder begins
again; or an `error`; or a `bug` with its trace. For a remote video the process may `need` parts that are not fetched
yet; it waits for the reply to that.
"""

from __future__ import annotations

import json
import math
import socket
import struct
import time
import types
import typing
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, fields, is_dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from handloom.errors import ClipError
from handloom.schemas.clip import Clip
from handloom.schemas.tables.reject import REASONS
from handloom.schemas.values import VideoInfo

LENGTHS = struct.Struct("<IQ")
MAX_JSON_BYTES = 1 << 16
MAX_TEXT = 2000
MAX_FRAMES = 1 << 24  # of a clip without a known end: 19 hours at 240 frames/s
MAX_CHUNK_FRAMES, MAX_ASPECT = 16, 16  # bounds of one chunk: 100 MB at the usual 360 pixels
MAX_SIDE_PX = 1 << 15
MAX_HEADERS = 2
MAX_NEEDS = 1 << 20  # per clip; each is for some kilobytes at least
MAX_NUMBER = 1 << 62


class GarbledError(Exception):
    """The other side sent a message that the protocol does not allow."""


class TooSlowError(Exception):
    """No whole message within the time limit."""


@dataclass(frozen=True)
class Request:
    """One clip to decode. avoid_decord: decord has crashed on it. probe_only: the reply is `info`, without frames.

    max_bytes: for a clip whose frames exceed it, the reply is the header and no frames. ranged: parts of the file may
    be missing, and are requested; for a file that must be read whole, the reply is `not_ranged`.
    """

    clip: Clip
    path: str
    sample_hz: float
    short_side_px: int
    avoid_decord: bool = False
    probe_only: bool = False
    max_bytes: int | None = None
    ranged: bool = False


@dataclass(frozen=True)
class Header:
    """What is known before a clip's first frame. size: working (width, height); frame_s: (T,) seconds."""

    info: VideoInfo
    decoder: str
    frame_s: NDArray[np.float64]
    size: tuple[int, int]

    @property
    def num_bytes(self) -> int:
        return len(self.frame_s) * self.size[0] * self.size[1] * 3


class Line:
    """Messages over a connected stream socket."""

    def __init__(self, connection: socket.socket, timeout_s: float | None = None) -> None:
        self._socket = connection
        self._timeout_s = timeout_s
        if timeout_s is not None:  # of each read and write: the other side may stop in the middle of a message
            wait = struct.pack("@ll", int(timeout_s), max(int(timeout_s % 1 * 1e6), 1))
            for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
                connection.setsockopt(socket.SOL_SOCKET, option, wait)

    def send(self, message: dict[str, Any], payload: memoryview | bytes = b"") -> None:
        """Raises TooSlowError; OSError where the other side has closed."""
        text = json.dumps(message).encode()
        try:
            self._socket.sendall(LENGTHS.pack(len(text), len(payload)) + text)
            if len(payload):
                self._socket.sendall(payload)
        except BlockingIOError as error:
            raise TooSlowError from error

    def receive(self) -> tuple[dict[str, Any], int]:
        """A message's object, and the length in bytes of its payload, which must be read next.

        Raises:
            EOFError: the other side has closed. TooSlowError; GarbledError: the message is no JSON object.
        """
        deadline_s = self._deadline_s()
        start = bytearray(LENGTHS.size)
        self._fill(memoryview(start), deadline_s)
        size, payload_bytes = LENGTHS.unpack(start)
        if not 0 < size <= MAX_JSON_BYTES:
            raise GarbledError(f"announced {size} bytes of JSON, at most {MAX_JSON_BYTES} are allowed")
        text = bytearray(size)
        self._fill(memoryview(text), deadline_s)
        try:
            message = json.loads(text)
        except (ValueError, RecursionError) as error:  # ValueError: also bytes that are not UTF-8, and huge integers
            raise GarbledError(f"sent no JSON: {str(error)[:100]}") from error
        if not isinstance(message, dict):
            raise GarbledError(f"sent {type(message).__name__}, an object was expected")
        return message, payload_bytes

    def receive_array(self, shape: tuple[int, ...], dtype: type, payload_bytes: int) -> NDArray[Any]:
        """The payload as an array of this shape. Raises as `receive` does."""
        expected = math.prod(shape) * np.dtype(dtype).itemsize
        if payload_bytes != expected:
            raise GarbledError(f"announced {payload_bytes} bytes for shape {shape}, {expected} were expected")
        array: NDArray[Any] = np.empty(shape, dtype)
        if expected:
            self._fill(memoryview(array.data).cast("B"), self._deadline_s())
        return array

    def is_silent(self) -> bool:
        """Whether the other side is open and there is nothing unread."""
        try:
            self._socket.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False

    def close(self) -> None:
        self._socket.close()

    def _deadline_s(self) -> float:
        return math.inf if self._timeout_s is None else time.monotonic() + self._timeout_s

    def _fill(self, buffer: memoryview, deadline_s: float) -> None:
        while len(buffer):
            try:
                count = self._socket.recv_into(buffer)
            except BlockingIOError as error:
                raise TooSlowError from error
            if count == 0:
                raise EOFError
            buffer = buffer[count:]
            if len(buffer) and time.monotonic() > deadline_s:  # each read was in time, the message as a whole is not
                raise TooSlowError


class ChildEnd:
    """The decoding process's side: requests come in, tuples (as `server.Server` makes them) and frames go out."""

    def __init__(self, line: Line) -> None:
        self._line = line
        self._shape: list[int] = []

    def recv(self) -> Request:
        message, _ = self._line.receive()
        return Request(Clip(**message.pop("clip")), **message)

    def need(self, at: int, size: int) -> int:
        """Request bytes [at, at + size) of the file. Returns up to where it can be read from `at` on."""
        self._line.send({"kind": "need", "at": at, "size": size})
        message, _ = self._line.receive()
        return message["until"]

    def send(self, message: tuple[Any, ...]) -> None:
        """`("header", info)` for a probe; `("header", *fields of Header)`; `("chunk", shape)`, whose frames
        `send_bytes` sends; `("error", ClipError)`; `("bug", trace)`; `("not_ranged",)`; `("end",)`.
        """
        kind, *rest = message
        if kind == "chunk":
            self._shape = list(rest[0])
        elif kind == "header" and len(rest) == 1:
            self._line.send({"kind": "info", "info": asdict(rest[0])})
        elif kind == "header":
            header = Header(*rest)
            values = {f.name: getattr(header, f.name) for f in fields(Header) if f.name != "frame_s"}
            values["info"] = asdict(header.info)
            times = np.ascontiguousarray(header.frame_s, np.float64)
            values["num_frames"] = len(times)
            self._line.send({"kind": "header", **values}, times.tobytes())
        elif kind == "error":
            error: ClipError = rest[0]
            texts = {"problem": error.problem[:MAX_TEXT], "hint": error.hint[:MAX_TEXT]}
            self._line.send({"kind": "error", "reason": error.reason, **texts})
        else:
            self._line.send({"kind": kind, "text": "".join(rest)[-MAX_TEXT:]})

    def send_bytes(self, frames: memoryview) -> None:
        self._line.send({"kind": "chunk", "shape": self._shape}, frames)


def send_request(line: Line, request: Request) -> None:
    """Send the request with what decoding needs of the clip: no narration, no camera."""
    clip = Clip(request.clip.clip_id, "", "", "", request.clip.start_s, request.clip.end_s)
    line.send({**asdict(replace(request, clip=clip)), "clip": asdict(clip)})


def replies(line: Line, request: Request, supply: Callable[[int, int], int] | None = None) -> Iterator[tuple[Any, ...]]:
    """The events of the reply to a request, checked: `("info", VideoInfo)`, `("header", Header)`, `("chunk", frames)`,
    `("error", ClipError)`, `("not_ranged",)` and `("end",)`. The last is `info`, `error`, `not_ranged` or `end`.

    Args:
        supply: fetches the parts that the process of a `ranged` request needs; its exceptions are passed on.

    Raises:
        EOFError, TooSlowError: as `Line.receive`. GarbledError: a reply that the protocol does not allow, or a bug.
    """
    header, num_headers, num_frames, num_needs = None, 0, 0, 0
    while True:
        message, payload_bytes = line.receive()
        kind = message.get("kind")
        if kind == "chunk" and header is not None:
            shape = _chunk_shape(message.get("shape"), request, header, num_frames)
            num_frames += shape[0]
            yield "chunk", line.receive_array(shape, np.uint8, payload_bytes)
        elif kind == "header" and not request.probe_only and num_headers < MAX_HEADERS:
            header, num_headers, num_frames = _header(line, request, message, payload_bytes), num_headers + 1, 0
            yield "header", header
        elif payload_bytes:
            raise GarbledError(f"sent {payload_bytes} bytes behind a message {str(kind)[:20]!r}")
        elif kind == "need" and supply is not None and num_needs < MAX_NEEDS:
            num_needs += 1
            at, size = checked(int, message.get("at")), checked(int, message.get("size"))
            if at < 0 or size <= 0:
                raise GarbledError(f"asked for {size} bytes from {at} on")
            line.send({"until": supply(at, size)})
        elif kind == "not_ranged" and supply is not None and header is None:
            yield ("not_ranged",)
            return
        elif kind == "info" and request.probe_only:
            yield "info", checked(VideoInfo, message.get("info"))
            return
        elif kind == "error":
            yield "error", _error(request.clip, message)
            return
        elif kind == "end" and header is not None:
            _check_count(request, header, num_frames)
            yield ("end",)
            return
        elif kind == "bug":
            raise GarbledError(f"met an error of its own: {last_line(message.get('text'))}")
        else:
            raise GarbledError(f"sent a message {str(kind)[:20]!r}, which does not belong there")


def _header(line: Line, request: Request, message: dict[str, Any], payload_bytes: int) -> Header:
    count = checked(int, message.pop("num_frames", None))
    most = _most_frames(request)
    if not 0 < count <= most:
        raise GarbledError(f"announced {count} frames, at most {most} are allowed")
    hints = typing.get_type_hints(Header)
    values = {f.name: checked(hints[f.name], message.get(f.name)) for f in fields(Header) if f.name != "frame_s"}
    frame_s = line.receive_array((count,), np.float64, payload_bytes)
    header = Header(frame_s=frame_s, **values)
    if not (np.isfinite(frame_s).all() and (np.diff(frame_s) > 0).all()):
        raise GarbledError("sent times of frames that do not rise")
    short_side_px, long_side_px = min(header.size), max(header.size)
    # Sides are rounded to even numbers.
    if not (2 <= short_side_px <= request.short_side_px + 1 and long_side_px <= MAX_SIDE_PX):
        raise GarbledError(f"announced frames of {header.size} pixels")
    return header


def _most_frames(request: Request) -> int:
    """The sampling grid's points in the clip; one frame at least."""
    clip = request.clip
    if clip.end_s is None or not math.isfinite(clip.end_s - clip.start_s):
        return MAX_FRAMES
    return min(max(math.ceil((clip.end_s - clip.start_s) * request.sample_hz), 0) + 1, MAX_FRAMES)


def _chunk_shape(value: Any, request: Request, header: Header, num_before: int) -> tuple[int, ...]:
    shape = checked(tuple[int, int, int, int], value)
    expected = (shape[0], header.size[1], header.size[0], 3)
    too_many = not 0 < shape[0] <= len(header.frame_s) - num_before
    max_bytes = MAX_CHUNK_FRAMES * MAX_ASPECT * request.short_side_px**2 * 3
    if shape != expected or too_many or math.prod(shape) > max_bytes:
        raise GarbledError(f"announced frames of shape {shape}, {num_before} of {len(header.frame_s)} had come")
    return shape


def _check_count(request: Request, header: Header, num_frames: int) -> None:
    too_big = request.max_bytes is not None and header.num_bytes > request.max_bytes
    if num_frames != (0 if too_big else len(header.frame_s)):
        raise GarbledError(f"ended after {num_frames} of {len(header.frame_s)} frames")


def _error(clip: Clip, message: dict[str, Any]) -> ClipError:
    reason, problem, hint = (checked(str, message.get(name)) for name in ("reason", "problem", "hint"))
    if reason not in REASONS:
        raise GarbledError(f"gave the reason {reason[:40]!r}, which is none")
    return ClipError(clip.clip_id, "decode", reason, problem, hint)


def checked(hint: Any, value: Any) -> Any:
    """A JSON value as the type `hint`: numbers, texts, None, tuples and dataclasses of these.

    Raises:
        GarbledError: it has another type; a text is too long; a number is not finite.
    """
    kind, inside = typing.get_origin(hint), typing.get_args(hint)
    if kind in (typing.Union, types.UnionType):
        if value is None and type(None) in inside:
            return None
        (hint,) = (h for h in inside if h is not type(None))
        return checked(hint, value)
    if kind is tuple and isinstance(value, list):
        hints = [inside[0]] * len(value) if len(inside) == 2 and inside[1] is Ellipsis else list(inside)
        if len(hints) == len(value):
            return tuple(checked(h, v) for h, v in zip(hints, value, strict=True))
    elif isinstance(hint, type) and is_dataclass(hint) and isinstance(value, dict):
        types_of = typing.get_type_hints(hint)
        return hint(**{f.name: checked(types_of[f.name], value.get(f.name)) for f in fields(hint)})
    elif type(value) is hint or (hint is float and type(value) is int):  # `type`: True is no int
        if isinstance(value, bool) or (isinstance(value, str) and len(value) <= MAX_TEXT):
            return value
        if isinstance(value, int | float) and -MAX_NUMBER < value < MAX_NUMBER:
            return hint(value)
    raise GarbledError(f"sent {str(value)[:60]!r} where {getattr(hint, '__name__', hint)} was expected")


def last_line(text: Any) -> str:
    """The last line that is not empty, without control characters; "" for none."""
    lines = [line.strip() for line in str(text or "").splitlines() if line.strip()]
    return "".join(c for c in lines[-1] if c.isprintable())[-300:] if lines else ""
