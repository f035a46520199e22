"""Weights that come inside a Python package: found without importing it, and known by their bytes."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path

from handloom.errors import ConfigError, with_extra
from handloom.models.hub.fingerprints import LETTERS, file_digest


@dataclass(frozen=True)
class PackagedFile:
    """A file of an installed package.

    what: whose it is, for errors. module: the package as it is imported. path: of the file in it. package: its name on
    PyPI, with the version that holds this file. sha256: of the bytes. extra: of handloom that brings it; empty:
    handloom itself does.
    """

    what: str
    module: str
    path: str
    package: str
    sha256: str
    extra: str

    @property
    def digest(self) -> str:
        """The first digits of the SHA-256, as keys have them."""
        return self.sha256[:LETTERS]

    def is_installed(self) -> bool:
        return self._folder() is not None

    def find(self) -> Path:
        """Where it lies. Raises ConfigError if it is not there, or holds other bytes."""
        folder = self._folder()
        if folder is None:
            name = self.package.partition("==")[0]
            hint = with_extra(self.extra) if self.extra else f"pip install '{self.package}'"
            raise ConfigError(f"{self.what} needs the package {name}, which is not installed", hint)
        path = folder / self.path
        again = f"pip install --force-reinstall --no-deps '{self.package}'"
        try:
            found = file_digest(path)
        except OSError as error:
            raise ConfigError(f"{self.what}: {path} cannot be read: {error}", again) from None
        if found != self.digest:
            problem = f"{self.what}: {path} has the SHA-256 {found}..., expected {self.digest}..."
            raise ConfigError(problem, again)
        return path

    def _folder(self) -> Path | None:
        found = importlib.util.find_spec(self.module)
        if found is None or not found.submodule_search_locations:
            return None
        return Path(found.submodule_search_locations[0])
