"""One name written in several ways: Unicode forms (macOS decomposes `ü`, Linux and Windows do not) and letter case.

A list and the files it names often come from different machines. Every lookup of a name to a file goes through `Names`:
the very same name first, then the same in another Unicode form, then in another case. Where two files fit alike nothing
is guessed.
"""

from __future__ import annotations

import difflib
import unicodedata
from collections.abc import Iterable

MAX_COMPARED = 5_000
MAX_NEAREST = 20  # names for which the nearest is looked for: each is compared with all others, 0.2 s for 5 000


class AmbiguousName(Exception):
    """Several names differ from the one looked for only in case or Unicode form: `str()` says which."""

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
        """The one of the names that `name` means, None where none does. Raises AmbiguousName."""
        if name in self._names:
            return name
        for found in (self._by_form.get(composed(name)), self._by_case.get(folded(name))):
            if found and len(found) > 1:
                raise AmbiguousName(name, found)
            if found:
                return found[0]
        return None

    def nearest(self, name: str) -> str:
        """`; the nearest is X` for a message; nothing where none is near, and after the first names of a long list."""
        self._num_asked += 1
        if self._num_asked > MAX_NEAREST:
            return ""
        known = sorted(self._by_case)[:MAX_COMPARED]
        close = difflib.get_close_matches(folded(name), known, 1, 0.7)
        return f"; the nearest is {spelled(self._by_case[close[0]][0])}" if close else ""


def composed(text: str) -> str:
    """In Unicode's composed form (NFC): in this form names and words are stored."""
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def folded(text: str) -> str:
    """Equal for names that differ in case or Unicode form only."""
    if text.isascii():
        return text.lower()
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", text).casefold())


def spelled(name: str) -> str:
    """A name for a message; what is not ASCII also by code points, so that look-alikes can be told apart."""
    if name.isascii():
        return printable(name)
    return f"{printable(name)} ({''.join(c if c.isascii() else f'<U+{ord(c):04X}>' for c in name)})"


def printable(text: str) -> str:
    """Text of somebody's file, for a message: without what a terminal obeys."""
    return "".join(c if c.isprintable() else f"<U+{ord(c):04X}>" for c in text)
