"""`clips.csv` at the top of a folder of videos: what is said of each video."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from handloom.errors import ConfigError
from handloom.ingest.csv_rows import Row, read_rows
from handloom.ingest.files import FoundFile, Options
from handloom.ingest.names import AmbiguousName, Names, folded, spelled
from handloom.ingest.result import WORDS, Gathering
from handloom.schemas.clip import Clip

NAME = "clips.csv"

Labels = dict[str, dict[str, str | None]]


def is_labels(file: FoundFile) -> bool:
    return folded(file.path) == NAME


def read_labels(files: Iterable[FoundFile], gathering: Gathering, options: Options = None) -> Labels:
    """`{path of the video: words}` of the folder's `clips.csv`; empty where there is none.

    The file has a column `video` (path below the folder, with extension; in any case and Unicode form) and any of
    narration, verb, noun, participant, split; an empty cell says nothing. Other columns are left alone. A file without
    such columns and lines that cannot be used are named in the gathering's problems and counted as `bad_labels`: they
    are no entries, and no video is lost by them. `labelled` counts the videos that have words.

    Raises:
        ConfigError: it cannot be read, is no CSV, or none of its lines can be used.
    """
    files = list(files)
    found = sorted((file for file in files if is_labels(file)), key=lambda file: (file.path != NAME, file.path))
    if not found:
        return {}
    if len(found) > 1:
        gathering.counts["bad_labels"] += len(found) - 1
        others = ", ".join(file.path for file in found[1:])
        gathering.problems.append(f"{others}: not used beside {found[0].path}; keep one of them")
    file = found[0]
    columns, rows = read_rows(file.uri, "labels", options)
    by_name = {folded(name): name for name in reversed(columns)}  # `Video` is `video`; of two the first
    words = [name for name in WORDS if name in by_name]
    if "video" not in by_name or not words:
        expected = f"expected `video` and any of {', '.join(WORDS)}"
        gathering.counts["bad_labels"] += 1
        gathering.problems.append(f"{file.path} has the columns {', '.join(columns)}: {expected}; not used")
        return {}
    labels: Labels = {}
    names = Names(file.path for file in files if file.is_video)
    num_problems = len(gathering.problems)
    for row in rows:
        try:
            path = _video(row, by_name["video"], labels, names)
        except ValueError as error:
            gathering.counts["bad_labels"] += 1
            gathering.problems.append(f"{row.where}: {error}; not used")
        else:
            labels[path] = {name: row[by_name[name]] or None for name in words}
    if not labels:
        first = f"; the first: {gathering.problems[num_problems]}" if len(gathering.problems) > num_problems else ""
        hint = "`video` is the path below the folder, with its extension; or move the file away to go without words"
        raise ConfigError(f"no line of the labels {file.uri} can be used{first}", hint)
    gathering.counts["labelled"] = len(labels)
    return labels


def labelled(clip: Clip, path: str, labels: Labels) -> Clip:
    """The clip of the video at `path` with its words; a piece of a video keeps what is said of the whole."""
    return replace(clip, **labels[path]) if path in labels else clip


def _video(row: Row, column: str, labels: Labels, names: Names) -> str:
    """The path of the video that a line is about. Raises ValueError where it names none, or one that has its words."""
    row.check_width()
    said = row[column].replace("\\", "/").removeprefix("./")
    try:
        path = names.find(said)
    except AmbiguousName as error:
        raise ValueError(f"video {error}") from error
    if path is None:
        raise ValueError(f"there is no video {spelled(said)}{names.nearest(said)}")
    if path in labels:
        raise ValueError(f"video {path} is named twice; the first line counts")
    return path
