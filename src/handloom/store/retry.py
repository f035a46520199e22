"""Retries of operations on tables that failed because of another writer or of the network."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TypeVar

from handloom.store.lance_faults import LANCE_ERRORS, Fault, fault_of, first_words
from handloom.store.location import store_error

Result = TypeVar("Result")
log = logging.getLogger(__name__)

MAX_TRIES = 5
RETRY_WAIT_S = 0.2  # doubled after every try: 3 s in all
RETRIED = (None, Fault.UNREACHABLE)  # a full disk or a wrong key stays for longer than the retries


def retried(doing: str, uri: str, action: Callable[[], Result]) -> Result:
    """Return `action()`; on an error of Lance that may be temporary, call it again, up to `MAX_TRIES` times.

    `action` must open the table and look at its rows each time: an earlier try may have been committed although it was
    reported as failed. Raises StoreError: "could not {doing} ({uri}): ...".
    """
    number = 1
    while True:
        try:
            return action()
        except LANCE_ERRORS as error:
            if number == MAX_TRIES or fault_of(error) not in RETRIED:
                raise store_error(doing, uri, error) from error
            level = logging.INFO if number == 1 else logging.WARNING  # one conflict between writers is usual
            log.log(level, "could not %s, looking again try=%d error=%s", doing, number, first_words(error))
        time.sleep(RETRY_WAIT_S * 2 ** (number - 1))
        number += 1


def past_lost_indexes(uri: str, read: Callable[[bool], Result]) -> Result:
    """Return `read(True)`: a read with a filter, which may use indexes. If Lance fails, return `read(False)`.

    An index whose files are damaged or gone must not hide rows: without it the same rows are found, more slowly.
    """
    try:
        return read(True)
    except LANCE_ERRORS as error:
        if fault_of(error) is not None:
            raise
        found = read(False)
        log.warning(
            "an index of %s cannot be read, so all rows are: %s; `handloom index` builds it again",
            uri,
            first_words(error),
        )
        return found
