"""The history of a job: `history.jsonl`, one JSON object a line, and TensorBoard scalars.

Lines by their `kind`:

- `step`: `step` (1 is the first), `epoch` (0 is the first), `loss` (null where no element was valid), `lr`,
  `grad_norm`, `step_s` (seconds) and of these `loader_wait_s` (waiting for windows), both of rank 0, `windows` (of all
  ranks), `at_s` (seconds of training so far, over all resumptions).
- `held_out`: `step`, `epoch` (finished epochs: 0 before the first step), `version`, `windows`, `numbers` ({name: value
  or null}), `counts` ({name: number of valid elements}), `seconds`, `at_s`; without windows also `why_none`.
- `version`: `epoch`, `step`, `version`, `windows`: the job switches to a newer version of the table.
- `resumed`: `step`, `checkpoint`, `workers`.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from handloom.io.folder import Folder

FILE = "history.jsonl"
SCALARS = ("loss", "lr", "grad_norm", "loader_wait_s", "step_s")


class History:
    """The lines of one job. Rank 0 writes them to a folder; the other ranks keep them in memory."""

    def __init__(self, folder: Folder | None, tensorboard: Folder | None, lines: Iterable[dict[str, Any]]) -> None:
        """lines: those of the checkpoint that the job resumes from; later lines of the file are dropped."""
        self.lines = list(lines)
        self._folder = folder
        self._num_written = 0
        step = next((line["step"] for line in reversed(self.lines) if "step" in line), None)
        self._board = _Board(tensorboard, step) if folder and tensorboard else None
        self._write_all()

    def add(self, line: dict[str, Any]) -> None:
        """Add a line; the next `flush` writes it."""
        self.lines.append(line)
        if self._board is not None:
            self._board.add(line)

    def flush(self, with_remote: bool = False) -> None:
        """Write new lines: appended to a local file; S3 cannot append, so there the whole file, if `with_remote`."""
        if self._folder is None:
            return
        if self._folder.is_local:
            with Path(self._folder.path(FILE)).open("a", encoding="utf-8") as file:
                file.writelines(_text(line) for line in self.lines[self._num_written :])
            self._num_written = len(self.lines)
        elif with_remote:
            self._write_all()
        if self._board is not None:
            self._board.flush(with_remote)

    def text(self) -> str:
        """All lines, as in the file."""
        return "".join(map(_text, self.lines))

    def close(self) -> None:
        self.flush(with_remote=True)
        if self._board is not None:
            self._board.close()

    def _write_all(self) -> None:
        if self._folder is not None:
            self._folder.write(FILE, self.text().encode())
            self._num_written = len(self.lines)


def parse_lines(data: bytes | None) -> list[dict[str, Any]]:
    """The lines of a history file; one that is cut off, as the last after a kill, and those after it, are left out."""
    lines: list[dict[str, Any]] = []
    for text in (data or b"").decode("utf-8", errors="replace").splitlines():
        try:
            line = json.loads(text)
        except (ValueError, RecursionError):
            break
        if not isinstance(line, dict):
            break
        lines.append(line)
    return lines


def steps_of(lines: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    return [line for line in lines if line.get("kind") == "step"]


def held_out_of(lines: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    return [line for line in lines if line.get("kind") == "held_out"]


def loader_wait_share(lines: Iterable[dict[str, Any]]) -> float | None:
    """Share of the step time that was spent waiting for windows, without the first step, which starts the loader and
    warms up the network. None without a second step."""
    steps = steps_of(lines)[1:]
    total = sum(step["step_s"] for step in steps)
    return sum(step["loader_wait_s"] for step in steps) / total if total else None


def _text(line: dict[str, Any]) -> str:
    return json.dumps(line, ensure_ascii=False) + "\n"


class _Board:
    """TensorBoard's event files: written into a local folder, or into a temporary one that is copied to S3."""

    def __init__(self, folder: Folder, step: int | None) -> None:
        from tensorboardX import SummaryWriter

        self._remote = None if folder.is_local else folder
        self._temporary = None if folder.is_local else tempfile.TemporaryDirectory(prefix="handloom-board-")
        self._path = Path(folder.path() if self._temporary is None else self._temporary.name)
        # Steps after the checkpoint are repeated: TensorBoard drops the first ones.
        self._writer = SummaryWriter(str(self._path), purge_step=None if step is None else step + 1)

    def add(self, line: dict[str, Any]) -> None:
        if line["kind"] == "step":
            scalars = {f"train/{name}": line.get(name) for name in SCALARS}
        elif line["kind"] == "held_out":
            scalars = {f"held_out/{name}": value for name, value in line["numbers"].items()}
        else:
            return
        for name, value in scalars.items():
            if value is not None:
                self._writer.add_scalar(name, value, line["step"])

    def flush(self, with_remote: bool) -> None:
        self._writer.flush()
        if with_remote and self._remote is not None:
            for path in self._path.iterdir():
                self._remote.write(path.name, path.read_bytes())

    def close(self) -> None:
        self._writer.close()
        self.flush(with_remote=True)
        if self._temporary is not None:
            self._temporary.cleanup()
