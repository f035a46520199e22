"""`clips.csv` at the top of a folder of videos: what is said of each video."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from handloom.ingest.csv_rows import Row, read_rows
from handloom.ingest.files import FoundFile, Options
from handloom.ingest.result import Gathering
from handloom.schemas.clip import Clip

NAME = "clips.csv"
WORDS = ("narration", "verb", "noun", "participant", "split")

Labels = dict[str, dict[str, str | None]]


def read_labels(files: Iterable[FoundFile], gathering: Gathering, options: Options = None) -> Labels:
    """`{path of the video below the folder: words}` of the folder's `clips.csv`; empty where there is none.

    The file has a column `video` (path below the folder, with extension) and any of narration, verb, noun,
    participant, split; an empty cell says nothing. Other columns are left alone. A file without such columns and lines
    that cannot be used are named in the gathering's problems: they are no entries, and no video is lost by them.

    Raises:
        ConfigError: it cannot be read, or is no CSV.
    """
    file = next((file for file in files if file.path == NAME), None)
    if file is None:
        return {}
    columns, rows = read_rows(file.uri, "labels", options)
    words = [name for name in WORDS if name in columns]
    if "video" not in columns or not words:
        expected = f"expected `video` and any of {', '.join(WORDS)}"
        gathering.problems.append(f"{NAME} has the columns {', '.join(columns)}: {expected}; not used")
        return {}
    labels: Labels = {}
    for row in rows:
        _read(row, words, labels, gathering)
    return labels


def labelled(clip: Clip, path: str, labels: Labels) -> Clip:
    """The clip of the video at `path` with its words; a piece of a video keeps what is said of the whole."""
    return replace(clip, **labels[path]) if path in labels else clip


def check_labels(labels: Labels, videos: Iterable[FoundFile], gathering: Gathering) -> None:
    """Count the videos that have words, and name lines whose video is not there."""
    paths = {file.path for file in videos}
    gathering.counts["labelled"] = len(paths & labels.keys())
    gathering.problems += [f"{NAME}: there is no video {path}; not used" for path in sorted(labels.keys() - paths)]


def _read(row: Row, words: list[str], labels: Labels, gathering: Gathering) -> None:
    try:
        row.check_width()
    except ValueError as error:
        gathering.problems.append(f"{row.where}: {error}; not used")
        return
    path = row["video"].replace("\\", "/").removeprefix("./")
    if path in labels:
        gathering.problems.append(f"{row.where}: video {path} is named twice; the first line counts")
        return
    labels[path] = {name: row[name] or None for name in words}
