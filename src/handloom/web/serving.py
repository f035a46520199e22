"""`handloom serve`: the gallery on an address of this machine, until it is interrupted."""

from __future__ import annotations

import errno
import secrets
import socket
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import uvicorn

from handloom.api import Database
from handloom.errors import ConfigError, HandloomError, StoreError
from handloom.store.writable import check_writable
from handloom.web.access import EVERY_ADDRESS, hosts_of, is_loopback
from handloom.web.app import make_app
from handloom.web.gallery import Gallery

PORT = 8770
CLOSING_S = 3
WARMING = "hand"
"""A text that is searched for once, at the start."""


def serve(
    db: Database,
    host: str = "127.0.0.1",
    port: int = PORT,
    *,
    judging: bool = False,
    source_options: dict[str, Any] | None = None,
    reports: Sequence[Path] = (),
    tell: Callable[[str], None] = print,
) -> None:
    """Serve the pages of a database until SIGINT or SIGTERM.

    Args:
        host: an address of this machine. Any but the loopback's asks for a token, which is in the address that is told.
        port: 0: any that is free.
        judging: clips may be judged.
        reports: folders of `handloom train --out`, or above them, whose reports are shown.
        tell: gets the address.

    Raises ConfigError if the address is not this machine's, the port is taken, or a folder of reports is not there;
    StoreError if clips shall be judged and the database cannot be written.
    """
    if judging:
        _check_writable(db)
    for folder in reports:
        if not folder.is_dir():
            hint = "name the --out of `handloom train`, or make the folder for trainings to come"
            raise ConfigError(f"--reports {folder}: there is no such folder", hint)
    token = None if is_loopback(host) else secrets.token_urlsafe(24)
    gallery = Gallery(db, judging, source_options, reports=reports)
    listening = _listen(host, port)
    port = listening.getsockname()[1]
    name = socket.gethostname() if host in EVERY_ADDRESS else f"[{host.strip('[]')}]" if ":" in host else host
    ends = threading.Event()
    # No daemon: where Python ends while one is in Lance, that aborts the process with a stack trace.
    threading.Thread(target=_warm_up, args=(gallery, ends)).start()
    config = uvicorn.Config(
        make_app(gallery, hosts_of(host), token),
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=CLOSING_S,
        lifespan="on",
    )
    tell(f"http://{name}:{port}/" + (f"?token={token}" if token else ""))
    try:
        uvicorn.Server(config).run(sockets=[listening])
    finally:
        ends.set()


def _check_writable(db: Database) -> None:
    """Now, and not when somebody has written a note."""
    try:
        if db.table("clips") is not None:
            check_writable(db.uri, db.location.storage_options)
    except StoreError as error:
        hint = f"{error.hint}; without --judge the gallery only reads"
        raise StoreError(f"--judge: {error.problem}", hint) from error


def _listen(host: str, port: int) -> socket.socket:
    """A socket on the address."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # With its protocol named, asyncio sends small answers at once (TCP_NODELAY): else they wait 40 ms.
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host.strip("[]"), port))
        listening.listen(128)
    except OSError as error:
        listening.close()
        if error.errno == errno.EADDRINUSE:
            raise ConfigError(f"port {port} of {host} is taken", "give another one: --port 0 takes any") from error
        hint = "give an address of this machine; 127.0.0.1 can be reached from this machine alone"
        raise ConfigError(f"cannot listen on {host}, port {port}: {error.strerror or error}", hint) from error
    return listening


def _warm_up(gallery: Gallery, ends: threading.Event) -> None:
    """Read what the first pages need, and what the first search by words does: the encoder of texts and the index.
    Meanwhile pages and searches are answered, those by words once the encoder is there.

    ends: after it nothing is begun.
    """
    try:
        catalogue = gallery.catalogue().warm()
        if not ends.is_set():
            gallery.stage_states()
        if catalogue.has_words and not ends.is_set():
            gallery.db.search(text=WARMING, k=1, embodiment="all", version=catalogue.version)
    except HandloomError:  # whoever asks is told
        pass
