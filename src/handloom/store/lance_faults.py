"""The cause of an error that Lance raises: it has no error classes of its own, only Python's.

So its messages are parsed, here and nowhere else in the package: the operating system's error number, S3's error code,
HTTP's status, and a few phrases. tests/store/test_lance_faults.py, test_filters.py and test_upkeep.py cause each with
the installed Lance.
"""

from __future__ import annotations

import errno
import re
from enum import Enum

LANCE_ERRORS = (OSError, ValueError, RuntimeError)
"""Lance raises OSError for storage, ValueError for `Invalid user input`, RuntimeError for the rest."""


class Fault(Enum):
    """A cause; its value is the hint for the user."""

    FULL = (
        "the disk is full: free some space (or use a database on another disk) and run the same command again; "
        "everything committed so far is kept"
    )
    REFUSED = "check who may read and write the database's folder"
    WRONG_KEY = (
        "check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_ENDPOINT_URL, and that they may read and write there"
    )
    NO_BUCKET = "create the bucket first"
    UNREACHABLE = "check the network and AWS_ENDPOINT_URL"


_NUMBERS = {errno.ENOSPC: Fault.FULL, errno.EFBIG: Fault.FULL, errno.EDQUOT: Fault.FULL}
_NUMBERS |= {errno.EACCES: Fault.REFUSED, errno.EPERM: Fault.REFUSED, errno.EROFS: Fault.REFUSED}
_NUMBERS |= {number: Fault.UNREACHABLE for number in (errno.ECONNREFUSED, errno.ECONNRESET, errno.ETIMEDOUT)}
_NUMBERS |= {number: Fault.UNREACHABLE for number in (errno.ENETUNREACH, errno.EHOSTUNREACH)}
_CODES = {"NoSuchBucket": Fault.NO_BUCKET}
_STATUS = {"401": Fault.WRONG_KEY, "403": Fault.WRONG_KEY}
_WORDS = {"CredentialsNotLoaded": Fault.WRONG_KEY, "error sending request": Fault.UNREACHABLE}
_NO_TABLE = re.compile(r"^Dataset at path .* was not found", re.DOTALL)
_FILTERS_FAULT = ("Invalid user input", "Query Execution error", "does not support logical expression")
_FILES_FAULT = re.compile(r"Generic \w+ error: |Object at location ")
_NO_COLUMN = re.compile(r"No field named (.+?)\.(?: Valid fields are| Did you mean|,|$)", re.DOTALL)
_NO_MEMBER = re.compile(r"Field (\S+) not found in struct")
_NO_STRUCT = re.compile(r"Cannot access field at argument \d+: type (\w+) is not Struct")
_OF_SEVERAL_ROWS = re.compile(r"does not support logical expression (?:Aggregate|Window)Function")


def fault_of(error: Exception) -> Fault | None:
    """The cause of an error of Lance, or of Python on the same files; None if it is none of `Fault`."""
    text = str(error)
    in_text = re.search(r"\(os error (\d+)\)", text)
    number: int | None = int(in_text[1]) if in_text else getattr(error, "errno", None)
    code = re.search(r"<Code>(\w+)</Code>", text)
    status = re.search(r"non-2xx status code: (\d{3})", text)
    word = next((word for word in _WORDS if word in text), None)
    found = (
        number is not None and _NUMBERS.get(number),
        code and _CODES.get(code[1]),
        status and _STATUS.get(status[1]),
        word and _WORDS[word],
    )
    return next((fault for fault in found if fault), None)


def is_missing(error: Exception) -> bool:
    """Whether the error says that there is no table."""
    return isinstance(error, FileNotFoundError) or _NO_TABLE.match(str(error)) is not None


def is_conflict(error: Exception) -> bool:
    """Whether a commit was refused because of what another writer has committed meanwhile. A class of errors says so,
    but not for compactions."""
    return " commit conflict for version " in str(error)


def is_filters_fault(error: Exception) -> bool:
    """Whether Lance cannot use a filter. The class does not say: scans raise ValueError, counts OSError. A file that
    cannot be read, of an index or of the table, is no filter's fault."""
    text = str(error)
    return any(words in text for words in _FILTERS_FAULT) and _FILES_FAULT.search(text) is None


def unknown_column(error: Exception) -> str | None:
    """The name that is no column, from Lance's error; None if the error is about something else."""
    found = _NO_COLUMN.search(str(error))
    return None if found is None else found[1].split(".")[0].strip('"`')


def unknown_member(error: Exception) -> str | None:
    """The name that a struct column does not have, from Lance's error; None if the error is about something else."""
    found = _NO_MEMBER.search(str(error))
    return None if found is None else found[1].strip('"`')


def first_words(error: Exception) -> str:
    """Lance's message without its Rust source positions."""
    words = str(error).split(", /home/")[0].split(", /Users/")[0].split(", /rustc/")[0]
    reply = re.search(r"<Code>(.*?)</Code>.*?<Message>(.*?)</Message>", words)
    if reply is not None:  # S3 replies in XML
        return f"the server says {reply[1]}: {reply[2]}"
    if _OF_SEVERAL_ROWS.search(words):  # DataFusion prints the whole expression
        return "it is computed over several rows (count, sum, max, ... over), expected a condition on one row"
    if (kind := _NO_STRUCT.search(words)) is not None:
        return f"it asks for a member of a column of type {kind[1]}, which has no members"
    words = words.removeprefix("Invalid user input: ").removeprefix("LanceError(IO): ").strip()
    return words if len(words) <= 500 else words[:500] + " ..."
