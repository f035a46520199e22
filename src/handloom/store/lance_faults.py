"""What went wrong below Lance. It has no error classes: OSError, ValueError and RuntimeError, and a sentence.

So its sentences are read, here and nowhere else in the package: the operating system's error number, the error code of
S3, the status of HTTP, and a few words. tests/store/test_lance_faults.py makes each fault with the installed Lance.
"""

from __future__ import annotations

import errno
import re
from enum import Enum

LANCE_ERRORS = (OSError, ValueError, RuntimeError)
"""What Lance raises: OSError for storage, ValueError for its `Invalid user input`, RuntimeError for the rest."""


class Fault(Enum):
    """What went wrong; the value is what to do about it."""

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
_OF_SEVERAL_ROWS = re.compile(r"does not support logical expression (?:Aggregate|Window)Function")


def fault_of(error: Exception) -> Fault | None:
    """The fault behind an error of Lance's, or of Python's on the same files; None where it is another one."""
    text = str(error)
    told = re.search(r"\(os error (\d+)\)", text)
    number = int(told[1]) if told else getattr(error, "errno", None)
    code = re.search(r"<Code>(\w+)</Code>", text)
    status = re.search(r"non-2xx status code: (\d{3})", text)
    word = next((word for word in _WORDS if word in text), None)
    found = (
        _NUMBERS.get(number),
        code and _CODES.get(code[1]),
        status and _STATUS.get(status[1]),
        word and _WORDS[word],
    )
    return next((fault for fault in found if fault), None)


def is_missing(error: Exception) -> bool:
    """Whether there is no table at the place."""
    return isinstance(error, FileNotFoundError) or _NO_TABLE.match(str(error)) is not None


def is_filters_fault(error: Exception) -> bool:
    """Whether Lance cannot read a filter. The class tells nothing: scans raise ValueError, counts OSError."""
    return any(words in str(error) for words in _FILTERS_FAULT)


def first_words(error: Exception) -> str:
    """The readable part of a Lance message: its Rust source positions are cut off."""
    words = str(error).split(", /home/")[0].split(", /Users/")[0].split(", /rustc/")[0]
    answer = re.search(r"<Code>(.*?)</Code>.*?<Message>(.*?)</Message>", words)
    if answer is not None:  # S3 answers in XML
        return f"the server says {answer[1]}: {answer[2]}"
    if _OF_SEVERAL_ROWS.search(words):  # DataFusion writes its whole expression
        return "it asks about several rows at once (count, sum, max, ... over), expected a condition on one row"
    words = words.removeprefix("Invalid user input: ").removeprefix("LanceError(IO): ").strip()
    return words if len(words) <= 500 else words[:500] + " ..."
