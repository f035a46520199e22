"""One name written in several ways: Unicode forms (macOS decomposes `ü`, Linux and Windows do not) and letter case.

A list and the files that it names often come from different machines. Every lookup of a file by name goes through
`Names`: first the exact name, then the name in another Unicode form, then in another case. If two files match equally,
neither is taken.
"""

from __future__ import annotations

import difflib
import unicodedata
from collections.abc import Iterable

MAX_COMPARED = 5_000
MAX_NEAREST = 20  # searches for the nearest name: each compares with all names, 0.2 s for 5 000


class AmbiguousName(Exception):
    """Several names differ from the requested one only in case or Unicode form; the text lists them."""

    def __init__(self, name: str, candidates: list[str]) -> None:
        super().__init__(name, candidates)
        self.candidates = candidates

    def __str__(self) -> str:
        name, candidates = self.args
        return f"{spelled(name)} may be {' or '.join(map(spelled, sorted(candidates)))}; rename one of them"


class Names:
    """Names that can be found however they are written."""

    def __init__(self, names: Iterable[str]) -> None:
        self._names = set(names)
        self._num_asked = 0
        self._by_form: dict[str, list[str]] = {}
        self._by_case: dict[str, list[str]] = {}
        for name in sorted(self._names):
            self._by_form.setdefault(composed(name), []).append(name)
            self._by_case.setdefault(folded(name), []).append(name)

    def find(self, name: str) -> str | None:
        """The known name that `name` stands for; None if there is none. Raises AmbiguousName."""
        if name in self._names:
            return name
        for found in (self._by_form.get(composed(name)), self._by_case.get(folded(name))):
            if found and len(found) > 1:
                raise AmbiguousName(name, found)
            if found:
                return found[0]
        return None

    def nearest(self, name: str) -> str:
        """`; the nearest is X` for a message; empty if no name is near, and after the first `MAX_NEAREST` calls."""
        self._num_asked += 1
        if self._num_asked > MAX_NEAREST:
            return ""
        known = sorted(self._by_case)[:MAX_COMPARED]
        close = difflib.get_close_matches(folded(name), known, 1, 0.7)
        return f"; the nearest is {spelled(self._by_case[close[0]][0])}" if close else ""


def composed(text: str) -> str:
    """In Unicode's composed form (NFC), in which names and words are stored."""
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def folded(text: str) -> str:
    """Equal for names that differ in case or Unicode form only."""
    if text.isascii():
        return text.lower()
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", text).casefold())


def spelled(name: str) -> str:
    """A name for a message; if it is not ASCII also with code points, so that look-alikes can be distinguished."""
    if name.isascii():
        return printable(name)
    return f"{printable(name)} ({''.join(c if c.isascii() else f'<U+{ord(c):04X}>' for c in name)})"


def printable(text: str) -> str:
    """Text of a file, for a message: control characters as code points."""
    return "".join(c if c.isprintable() else f"<U+{ord(c):04X}>" for c in text)
