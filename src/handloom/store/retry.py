"""Doing something to a table again where it failed: another process may have changed it meanwhile, or the network."""

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
PASSING = (None, Fault.UNREACHABLE)  # a full disk or a wrong key does not get better within seconds


def retried(doing: str, uri: str, action: Callable[[], Result]) -> Result:
    """What `action()` returns, tried several times where Lance fails and another try may help.

    Each try is to open the table and to look at what is there: an earlier one may have landed although it failed.
    Raises StoreError: "could not {doing} ({uri}): ...".
    """
    number = 1
    while True:
        try:
            return action()
        except LANCE_ERRORS as error:
            if number == MAX_TRIES or fault_of(error) not in PASSING:
                raise store_error(doing, uri, error) from error
            level = logging.INFO if number == 1 else logging.WARNING  # that writers meet once is usual
            log.log(level, "could not %s, looking again try=%d error=%s", doing, number, first_words(error))
        time.sleep(RETRY_WAIT_S * 2 ** (number - 1))
        number += 1
