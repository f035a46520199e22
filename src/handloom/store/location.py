"""Where a database lies, how to reach it, and what Lance's errors mean for whoever asked."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from handloom.errors import StoreError

LANCE_ERRORS = (OSError, ValueError, RuntimeError)
"""What Lance raises: OSError for storage, ValueError for its `Invalid user input`, RuntimeError for the rest."""

ENV_OPTIONS: dict[str, tuple[str, ...]] = {
    "aws_access_key_id": ("AWS_ACCESS_KEY_ID",),
    "aws_secret_access_key": ("AWS_SECRET_ACCESS_KEY",),
    "aws_session_token": ("AWS_SESSION_TOKEN",),
    "aws_region": ("AWS_REGION", "AWS_DEFAULT_REGION"),
    "aws_endpoint": ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"),
}

_HINTS: tuple[tuple[tuple[str, ...], str], ...] = (
    (
        ("os error 28", "no space left", "os error 27", "file too large", "os error 122", "quota"),
        "the disk is full: free some space (or use a database on another disk) and run the same command again; "
        "everything committed so far is kept",
    ),
    (
        ("os error 13", "os error 30", "permission denied", "read-only file system"),
        "check who may read and write the database's folder",
    ),
    (
        ("accessdenied", "status 403", "403 forbidden", "invalidaccesskeyid", "signaturedoesnotmatch", "credentials"),
        "check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_ENDPOINT_URL, and that they may read and write there",
    ),
    (("nosuchbucket", "bucket does not exist"), "create the bucket first"),
    (("error sending request", "connect", "timed out", "dns"), "check the network and AWS_ENDPOINT_URL"),
)


def storage_options_from(env: Mapping[str, str]) -> dict[str, str]:
    """Lance's options for S3 from the usual AWS variables. Called once, by the CLI; the result is handed down."""
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
            return Location(str(Path(text).expanduser().absolute()), dict(storage_options or {}))
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
    """Lance's own error as ours: what failed, where, its words without the source positions, and what to do."""
    text = first_words(error)
    lowered = str(error).lower()
    hint = next((hint for words, hint in _HINTS if any(word in lowered for word in words)), "")
    return StoreError(f"could not {doing} ({uri}): {text}", hint)


def first_words(error: Exception) -> str:
    """The readable part of a Lance message: its Rust source positions are cut off."""
    words = str(error).split(", /home/")[0].split(", /Users/")[0].split(", /rustc/")[0]
    answer = re.search(r"<Code>(.*?)</Code>.*?<Message>(.*?)</Message>", words)
    if answer is not None:  # S3 answers in XML
        return f"the server says {answer[1]}: {answer[2]}"
    words = words.removeprefix("Invalid user input: ").removeprefix("LanceError(IO): ").strip()
    return words if len(words) <= 500 else words[:500] + " ..."


@contextmanager
def lance_errors(doing: str, uri: str) -> Iterator[None]:
    """Translate what Lance raises into `StoreError`: `with lance_errors("read clips", uri): ...`."""
    try:
        yield
    except LANCE_ERRORS as error:
        raise store_error(doing, uri, error) from error


def is_missing(error: Exception) -> bool:
    """Whether Lance says that there is no table (it has no error class of its own for that)."""
    return isinstance(error, FileNotFoundError) or "was not found" in str(error)
