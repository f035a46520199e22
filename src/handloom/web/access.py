"""Who may ask, for what a page may load, and how much may be sent: in front of everything else."""

from __future__ import annotations

import hmac
import json
from collections.abc import Iterable
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qsl, urlencode, urlsplit

import anyio
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from handloom.web.answers import TooLarge

POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' blob: data:",
        "media-src 'self' blob:",
        "connect-src 'self'",
        "font-src 'self'",
        "frame-ancestors 'none'",
        "base-uri 'none'",
        "form-action 'self'",
    )
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}
REPORTS = "/reports/"
REPORT_POLICY = "; ".join(
    (
        *("default-src 'none'", "style-src 'unsafe-inline'", "img-src 'self' data:", "media-src 'self'"),
        *("frame-ancestors 'none'", "base-uri 'none'", "form-action 'none'", "sandbox allow-same-origin"),
    )
)
"""Of reports, which are one file with its styles: no script runs in them. Without an origin of their own their videos,
which are this server's, would be refused."""
LOOPBACK = frozenset(("localhost", "127.0.0.1", "::1"))
EVERY_ADDRESS = ("0.0.0.0", "::", "")
MOST_BYTES, MOST_UPLOAD_BYTES = 1 << 20, 200 << 20
DRAIN_BYTES, DRAIN_S = 2 << 30, 30.0
UPLOAD = "/api/upload"
COOKIE = "handloom"


class Access:
    """Refuses what does not come from a page of this server; adds the headers that keep pages from loading others.

    hosts: names in `Host` that are served; none: any, which is safe only with a token. token: asked for, once in the
    address and then in a cookie; None: nobody is asked.
    """

    def __init__(self, app: ASGIApp, hosts: Iterable[str], token: str | None = None) -> None:
        self._app, self._hosts, self._token = app, frozenset(hosts), token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        body = Body(scope, receive)

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                if message["status"] >= 400:
                    await body.drain()
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
                if scope["path"].startswith(REPORTS):
                    headers["Content-Security-Policy"] = REPORT_POLICY
            await send(message)

        headers = Headers(scope=scope)
        refused = self._refused(scope, headers)
        if refused is not None:
            await _answer(guarded, *refused)
        elif self._token is not None and not self._has_cookie(headers, scope):
            await self._ask(scope, guarded)
        else:
            await self._app(scope, body.receive, guarded)

    def _refused(self, scope: Scope, headers: Headers) -> tuple[int, str, str] | None:
        """(status, problem, hint) of a request that is not answered."""
        host = headers.get("host", "")
        if self._hosts and _name_of(host) not in self._hosts:
            hint = "open the address that `handloom serve` printed; `handloom serve --host NAME` serves another one"
            return 421, f"the host {host[:200]!r} is not served here", hint
        if "\0" in scope["path"]:
            return 400, "the address holds a zero byte", "docs/gallery.md has the addresses"
        site, origin = headers.get("sec-fetch-site"), headers.get("origin")
        if scope["method"] in ("GET", "HEAD"):
            # A link that somebody clicks is followed; images and scripts of other pages would make this server work.
            if site in ("cross-site", "same-site") and headers.get("sec-fetch-mode") != "navigate":
                return 403, "this was asked by a page of another server", "open it in a tab of its own"
            return None
        if site not in (None, "same-origin", "none") or (origin is not None and urlsplit(origin).netloc != host):
            return 403, "this was asked by a page of another server", "use the pages of this server"
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        expected = "multipart/form-data" if scope["path"] == UPLOAD else "application/json"
        if scope["method"] == "POST" and kind != expected:
            return 415, f"the content type is {kind[:100]!r}", f"expected {expected}"
        length = headers.get("content-length", "")
        if length.isdigit() and int(length) > _most_bytes(scope):
            return 413, f"{length} bytes are too many", f"at most {_most_bytes(scope)}"
        return None

    def _has_cookie(self, headers: Headers, scope: Scope) -> bool:
        try:
            found = SimpleCookie(headers.get("cookie", "")).get(_cookie_name(scope))
        except CookieError:
            return False
        return found is not None and self._is_token(found.value)

    def _is_token(self, text: str) -> bool:
        return hmac.compare_digest(text.encode(), (self._token or "").encode())

    async def _ask(self, scope: Scope, send: Send) -> None:
        """Take the token from the address into a cookie, and go on to the same address without it; or refuse."""
        pairs = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        given = [value for name, value in pairs if name == "token"]
        if scope["method"] != "GET" or not given or not self._is_token(given[0]):
            hint = "open the whole address that `handloom serve` printed, with its token"
            await _answer(send, 401, "a token is needed", hint)
            return
        rest = urlencode([(name, value) for name, value in pairs if name != "token"])
        path = "/" + scope["path"].lstrip("/")  # `//elsewhere` would be another server
        # Lax: browsers send it to a page that a link elsewhere opens (a chat, a mail), and to nothing else from there;
        # with Strict the page behind the printed address would be refused when it is opened from such a link.
        cookie = f"{_cookie_name(scope)}={self._token}; Path=/; HttpOnly; SameSite=Lax"
        headers = [
            ("location", path + (f"?{rest}" if rest else "")),
            ("set-cookie", cookie),
            ("cache-control", "no-store"),
        ]
        raw = [(name.encode(), value.encode("latin-1", "ignore")) for name, value in headers]
        await send({"type": "http.response.start", "status": 303, "headers": raw})
        await send({"type": "http.response.body", "body": b""})


def hosts_of(host: str) -> frozenset[str]:
    """The names in `Host` that a server bound to an address answers to; none: all."""
    return frozenset() if host in EVERY_ADDRESS else LOOPBACK | {host.strip("[]").lower()}


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach the address."""
    return host.strip("[]").lower() in LOOPBACK


def _name_of(host: str) -> str:
    """`localhost` of `localhost:8000`, `::1` of `[::1]:8000`."""
    name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    return name.lower().rstrip(".")


def _cookie_name(scope: Scope) -> str:
    """Cookies are the same for all ports of a host: each server has its own."""
    return f"{COOKIE}_{(scope.get('server') or ('', 0))[1]}"


def _most_bytes(scope: Scope) -> int:
    return MOST_UPLOAD_BYTES if scope["path"] == UPLOAD else MOST_BYTES


class Body:
    """A request's body. Raises TooLarge where it is longer than it may be, whatever its header says."""

    def __init__(self, scope: Scope, receive: Receive) -> None:
        self._receive, self._most, self._num_bytes = receive, _most_bytes(scope), 0
        headers = Headers(scope=scope)
        has_one = "transfer-encoding" in headers or headers.get("content-length", "0") != "0"
        self._more = has_one and "100-continue" not in headers.get("expect", "").lower()  # it waits for the answer

    async def receive(self) -> Message:
        message = await self._receive()
        self._more = message.get("more_body", False)
        self._num_bytes += len(message.get("body", b""))
        if self._num_bytes > self._most:
            raise TooLarge("the request is too long", f"at most {self._most} bytes")
        return message

    async def drain(self) -> None:
        """Read what is left, up to some bytes and seconds: else a reset reaches who sends, not the answer."""
        with anyio.move_on_after(DRAIN_S):
            num_bytes = 0
            while self._more and num_bytes < DRAIN_BYTES:
                message = await self._receive()
                self._more = message.get("more_body", False)
                num_bytes += len(message.get("body", b""))


async def _answer(send: Send, status: int, problem: str, hint: str) -> None:
    body = json.dumps({"error": {"problem": problem, "hint": hint}}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
