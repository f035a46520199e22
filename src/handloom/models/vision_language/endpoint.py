"""A model behind an endpoint that speaks OpenAI's chat completions: a provider's, or vLLM's, SGLang's, Ollama's."""

from __future__ import annotations

import base64
import http.client
import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray

from handloom.errors import ConfigError
from handloom.models.vision_language.prompts import with_schema
from handloom.models.vision_language.questions import AnswerError, AskError, Question, Said, complaint

MAX_BYTES = 1 << 20
"""A longer reply is not read to its end."""
FIRST_WAIT_S, MAX_WAIT_S = 0.5, 8.0
REFUSED_FOR_ALL = (401, 402, 403, 404)
"""Key, account, model or address: the next clip would be refused, too."""
BUSY = 429
KEY_HINT = "check the key, base_url and model, then run with --retry-rejects --reason endpoint_refused"
DOWN_HINT = "see whether the server runs, then run with --retry-rejects --reason {}"


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """The key goes to the named address alone."""

    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        return None


@dataclass(frozen=True)
class Access:
    """Where a model is, and what may be spent on it. key: None: none is sent. clip_timeout_s: for all requests of one
    question, with the waits between them; max_requests_clip: how many there may be. more: fields of each request."""

    base_url: str
    model: str
    key: str | None
    max_tokens: int
    temperature: float
    answer_format: str
    timeout_s: float
    clip_timeout_s: float
    max_requests_clip: int
    more: Mapping[str, Any]


Spend = Callable[[], bool]
"""Whether one more request may be sent in this run; if so, it is counted."""
Count = Callable[[str, float], Any]
Encode = Callable[[NDArray[np.uint8]], bytes]


class Endpoint:
    """Sends questions. One object serves several threads; after a refusal that holds for all clips it sends nothing."""

    def __init__(self, access: Access, encode: Encode, spend: Spend, count: Count) -> None:
        """encode: an image as JPEG. count: of tokens and failed requests, by name."""
        self._access, self._encode, self._spend, self._count = access, encode, spend, count
        self._opener = urllib.request.build_opener(_NoRedirect)
        self._refused: AskError | None = None

    def session(self) -> Session:
        """For one question: its clock and its requests begin now."""
        return Session(self, self._access)

    def send(self, body: bytes, deadline: float) -> tuple[int, Any, bytes]:
        """Status, headers and body of a reply. Raises AskError: no more request may be sent, or none can be answered;
        OSError, HTTPException: no reply."""
        if self._refused is not None:
            raise self._refused
        if not self._spend():
            hint = "raise max_requests, then run with --retry-rejects --reason request_limit"
            raise AskError("request_limit", "the run has sent max_requests requests", hint)
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if self._access.key is not None:
            headers["Authorization"] = f"Bearer {self._access.key}"
        url = self._access.base_url.rstrip("/") + "/chat/completions"
        request = urllib.request.Request(url, body, headers)
        end = min(deadline, time.monotonic() + self._access.timeout_s)
        try:
            with self._opener.open(request, timeout=max(end - time.monotonic(), 0.01)) as reply:
                return reply.status, reply.headers, _read(reply, end)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.headers, error.read(4096)

    def messages(self, question: Question, said: Sequence[Said]) -> list[dict[str, Any]]:
        """The conversation so far."""
        text = with_schema(question.text, question.schema)
        parts: list[dict[str, Any]] = [{"type": "text", "text": text}]
        for number, image in enumerate(question.images):
            if question.image_s is not None:
                parts.append({"type": "text", "text": f"{question.image_s[number]:.2f} s:"})
            url = "data:image/jpeg;base64," + base64.b64encode(self._encode(image)).decode()
            parts.append({"type": "image_url", "image_url": {"url": url}})
        found: list[dict[str, Any]] = [{"role": "user", "content": parts}]
        for answer, problem in said:
            found += [
                {"role": "assistant", "content": answer or "(nothing)"},
                {"role": "user", "content": complaint(problem)},
            ]
        return found  # fmt: skip

    def refuse(self, error: AskError) -> AskError:
        """From now on nothing is sent."""
        self._refused = error
        return error

    def count(self, name: str, amount: float) -> None:
        self._count(name, amount)

    def told(self, content: bytes) -> str:
        """The beginning of what a server says, without the key."""
        text = " ".join(content[:4096].decode(errors="replace").split())
        key = self._access.key
        return (text.replace(key, "(key)") if key else text)[:300]


class Session:
    """One question to an endpoint."""

    def __init__(self, endpoint: Endpoint, access: Access) -> None:
        self._endpoint, self._access = endpoint, access
        self._deadline = time.monotonic() + access.clip_timeout_s
        self._num_sent = 0

    def reply(self, question: Question, said: Sequence[Said]) -> str:
        """The answer's text. Waits and asks again while the server is busy or fails."""
        body = json.dumps(self._body(question, said)).encode()
        wait_s, last = FIRST_WAIT_S, AskError("endpoint_timeout", "there was no time left")
        while True:
            self._check_left(last)
            self._num_sent += 1
            found = self._try(body)
            if isinstance(found, str):
                return found
            self._endpoint.count("failed_requests", 1)
            last, asked_s = found
            pause_s = wait_s if asked_s is None else max(asked_s, 0.0)
            if time.monotonic() + pause_s >= self._deadline:
                raise last
            self._check_left(last)
            time.sleep(pause_s)
            wait_s = min(2 * wait_s, MAX_WAIT_S)

    def _check_left(self, last: AskError) -> None:
        if self._num_sent >= self._access.max_requests_clip:
            problem = f"{last.problem}; after max_requests_clip = {self._num_sent} requests"
            raise AskError(last.reason, problem, last.hint)
        if time.monotonic() >= self._deadline:
            raise last

    def _try(self, body: bytes) -> str | tuple[AskError, float | None]:
        """The answer; or why there is none, and how long the server asks to wait."""
        where, timeout_s = self._access.base_url, self._access.timeout_s
        try:
            status, headers, content = self._endpoint.send(body, self._deadline)
        except (OSError, http.client.HTTPException) as error:
            cause = getattr(error, "reason", error)
            if isinstance(cause, TimeoutError):
                problem = f"{where} has not answered a request within timeout_s = {timeout_s:g}"
                return AskError("endpoint_timeout", problem, "raise timeout_s, or ask for fewer frames"), None
            problem = f"{where} cannot be reached: {type(cause).__name__}: {cause}"
            return AskError("endpoint_failed", problem, DOWN_HINT.format("endpoint_failed")), None
        if status == BUSY:
            problem = f"{where} takes no more requests for now (429): {self._endpoint.told(content)}"
            hint = "fewer actors or a smaller batch_clips, then --retry-rejects --reason endpoint_busy"
            return AskError("endpoint_busy", problem, hint), retry_after_s(headers.get("Retry-After"))
        if status >= 500 or status == 408:
            problem = f"{where} failed ({status}): {self._endpoint.told(content)}"
            error_503 = retry_after_s(headers.get("Retry-After"))
            return AskError("endpoint_failed", problem, DOWN_HINT.format("endpoint_failed")), error_503
        if not 200 <= status < 300:
            problem = f"{where} refuses the request ({status}): {self._endpoint.told(content)}"
            refusal = AskError("endpoint_refused", problem, KEY_HINT)
            raise self._endpoint.refuse(refusal) if status in REFUSED_FOR_ALL or status < 400 else refusal
        return self._text_of(content)

    def _text_of(self, content: bytes) -> str | tuple[AskError, float | None]:
        try:
            found = json.loads(content)
            choice = found["choices"][0]
            text = choice["message"]["content"]
        except (ValueError, LookupError, TypeError, RecursionError):
            problem = f"{self._access.base_url} answered what is no chat completion: {self._endpoint.told(content)}"
            return AskError(
                "endpoint_failed", problem, "base_url must end before /chat/completions, often in /v1"
            ), None
        usage = found.get("usage")
        for name in ("prompt_tokens", "completion_tokens"):
            num = usage.get(name) if isinstance(usage, dict) else None
            if isinstance(num, int) and num > 0:
                self._endpoint.count(name, num)
        if isinstance(text, list):
            text = "".join(str(part.get("text", "")) for part in text if isinstance(part, dict))
        if choice.get("finish_reason") == "length":
            raise AnswerError(f"it was cut at max_tokens = {self._access.max_tokens}: answer more briefly")
        if not isinstance(text, str):
            refusal = choice["message"].get("refusal")
            raise AnswerError(f"the model refuses: {str(refusal)[:200]}" if refusal else "it holds no text")
        return text

    def _body(self, question: Question, said: Sequence[Said]) -> dict[str, Any]:
        access = self._access
        body: dict[str, Any] = {"model": access.model, "messages": self._endpoint.messages(question, said)}
        body |= {"max_tokens": access.max_tokens, "temperature": access.temperature}
        if question.schema is not None and access.answer_format == "json_schema":
            named = {"name": "answer", "strict": True, "schema": dict(question.schema)}
            body["response_format"] = {"type": "json_schema", "json_schema": named}
        elif question.schema is not None and access.answer_format == "json_object":
            body["response_format"] = {"type": "json_object"}
        return body | dict(access.more)


def retry_after_s(value: str | None) -> float | None:
    """Seconds of a header Retry-After, a number or a date; None where it has neither."""
    if value is None:
        return None
    try:
        return float(value) if float(value) >= 0 else None
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except (TypeError, ValueError):
        return None


def check_base_url(setting: str, url: str) -> None:
    """Raise ConfigError unless it is the address of an endpoint, without a key in it."""
    try:
        parts = urlsplit(url)
        fits = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        fits = fits and url.isascii() and url.isprintable() and " " not in url
        (parts.hostname or "").encode("idna")  # UnicodeError is a ValueError
    except ValueError:
        fits = False
    if not fits:
        raise ConfigError(f"{setting} is {url!r}, expected such as https://host/v1 or http://localhost:8000/v1")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ConfigError(
            f"{setting} holds more than an address: settings are stored in the database",
            "name the environment variable that holds the key in key_variable",
        )


def _read(reply: http.client.HTTPResponse, end: float) -> bytes:
    parts, size = [], 0
    while part := reply.read1(1 << 16):
        size += len(part)
        if size > MAX_BYTES:
            raise AnswerError(f"the reply is longer than {MAX_BYTES >> 20} MiB")
        if time.monotonic() > end:
            raise TimeoutError("the reply did not end in time")
        parts.append(part)
    if reply.length:
        raise http.client.IncompleteRead(b"", reply.length)
    return b"".join(parts)
