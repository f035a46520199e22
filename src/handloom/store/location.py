"""The address of a database, its storage options, and Lance's errors as `StoreError`."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from handloom.errors import StoreError
from handloom.store.lance_faults import LANCE_ERRORS, fault_of, first_words

ENV_OPTIONS: dict[str, tuple[str, ...]] = {
    "aws_access_key_id": ("AWS_ACCESS_KEY_ID",),
    "aws_secret_access_key": ("AWS_SECRET_ACCESS_KEY",),
    "aws_session_token": ("AWS_SESSION_TOKEN",),
    "aws_region": ("AWS_REGION", "AWS_DEFAULT_REGION"),
    "aws_endpoint": ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"),
}


def storage_options_from(env: Mapping[str, str]) -> dict[str, str]:
    """Lance's options for S3 from the usual AWS variables. Called once, by the command line."""
    options = {}
    for option, names in ENV_OPTIONS.items():
        value = next((env[name] for name in names if env.get(name)), None)
        if value is not None:
            options[option] = value
    if options.get("aws_endpoint", "").startswith("http://"):
        options["allow_http"] = "true"
    return options


@dataclass(frozen=True)
class Location:
    """A database's address: `uri` is an absolute path or an `s3://` URI without a trailing slash."""

    uri: str
    storage_options: dict[str, str] = field(default_factory=dict, hash=False, repr=False)  # may hold keys: not printed

    @staticmethod
    def parse(uri: str | Path, storage_options: Mapping[str, str] | None = None) -> Location:
        text = str(uri).strip()
        if not text:
            raise StoreError("the database's name is empty", "give a folder or an s3:// URI")
        if "://" not in text:
            return Location(str(Path(os.path.expanduser(text)).absolute()), dict(storage_options or {}))
        scheme = text.split("://", 1)[0]
        if scheme == "file":
            return Location(text.removeprefix("file://").rstrip("/") or "/", dict(storage_options or {}))
        if scheme != "s3":
            raise StoreError(f"cannot keep a database at {text!r}", "give a folder or an s3:// URI")
        return Location(text.rstrip("/"), dict(storage_options or {}))

    @property
    def is_local(self) -> bool:
        return "://" not in self.uri

    @property
    def path(self) -> Path:
        """The folder of a local database."""
        return Path(self.uri)

    def table_uri(self, name: str) -> str:
        """LanceDB's layout: one `{name}.lance` below the database."""
        return f"{self.uri}/{name}.lance"


def store_error(doing: str, uri: str, error: Exception) -> StoreError:
    """Lance's error as a StoreError: what failed, where, Lance's message without its source positions, what to do."""
    fault = fault_of(error)
    return StoreError(f"could not {doing} ({uri}): {first_words(error)}", fault.value if fault else "")


@contextmanager
def lance_errors(doing: str, uri: str) -> Iterator[None]:
    """Translate what Lance raises into `StoreError`: `with lance_errors("read clips", uri): ...`."""
    try:
        yield
    except LANCE_ERRORS as error:
        raise store_error(doing, uri, error) from error
