"""`clips.csv` at the top of a folder of videos: words for each video, and the actions that are its clips."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from handloom.errors import ConfigError
from handloom.ingest.csv_rows import CsvRow, read_rows
from handloom.ingest.names import AmbiguousName, Names, folded, printable, spelled
from handloom.ingest.result import JOINED, WORDS, Gathering
from handloom.io.listing import FoundFile
from handloom.io.remote import Options

NAME = "clips.csv"
VIEWS = ("ego", "exo")
TIMES = ("start_s", "end_s")
COLUMNS = (*WORDS, "view", "licence")
CAMERA = "camera"
SLACK_S = 0.5  # annotators' tools round: a time this little outside the video is its start or end
_NUMBER = re.compile(r"[+-]?[0-9]+(?:[.,][0-9]+)?")
_MAYBE_THOUSANDS = re.compile(r"[+-]?[1-9][0-9]{0,2},[0-9]{3}")
_OTHER_WORDS = {
    "start_s": {"start", "begin", "onset", "from"},
    "end_s": {"end", "stop", "offset", "until", "duration", "length"},
}


@dataclass(frozen=True)
class Action:
    """A line with times.

    start_s, end_s: seconds on the container's clock; None is the video's start or end. values: its other cells by
    column. where: file, row and line, for messages.
    """

    start_s: float | None
    end_s: float | None
    values: dict[str, str]
    where: str


@dataclass
class VideoLabels:
    """The lines about one video.

    whole: cells of the line without times. timed: whether any line has times, usable or not: then the clips are
    `actions`, not pieces of the video. cameras: the cells of the column `camera`, each with the first line that has it.
    """

    whole: dict[str, str] | None = None
    timed: bool = False
    actions: list[Action] = field(default_factory=list)
    cameras: dict[str, str] = field(default_factory=dict)


Labels = dict[str, VideoLabels]
_Timed = tuple[float, float | None, Action]


def is_labels(file: FoundFile) -> bool:
    return folded(file.path) == NAME


def read_labels(files: Iterable[FoundFile], gathering: Gathering, options: Options = None) -> Labels:
    """`{path of the video: its labels}` of the folder's `clips.csv`; empty if there is no such file.

    The file has a column `video` (path below the folder, with extension; in any case and Unicode form) and any of
    `COLUMNS`, `start_s`, `end_s` and `camera` (the video's lens: see `folder.ingest_folder`); an empty cell has no
    effect. Other columns are named and not read. A line with times is a clip; a line without times describes the whole
    video. Lines that cannot be used are named in the gathering's problems and counted as `bad_labels`, not as entries.

    Raises:
        ConfigError: it cannot be read, is no CSV, lacks what is needed, has a column that is almost one of these, or
            none of its lines can be used. A file that is not understood must not change anything.
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
    columns, rows = read_rows(file.uri, "labels", options, "write it, or move it away to go without words")
    by_name = _columns(file, columns, gathering)
    labels: Labels = {}
    names = Names(file.path for file in files if file.is_video)
    num_problems = len(gathering.problems)
    num_good = 0
    for row in rows:
        try:
            _take(row, by_name, names, labels)
        except ValueError as error:
            gathering.counts["bad_labels"] += 1
            gathering.problems.append(f"{row.where}: {error}; not used")
        else:
            num_good += 1
    if not num_good:
        raise no_usable_line(file.uri, gathering.problems[num_problems:])
    gathering.counts["labelled"] = len(labels)
    return labels


def no_usable_line(uri: str, problems: list[str]) -> ConfigError:
    """The error for a file of which no line can be used; it shows the first of the problems."""
    first = f"; the first: {problems[0]}" if problems else ": it holds a header alone"
    hint = "`video` is the path below the folder, with its extension; or move the file away to go without words"
    return ConfigError(f"no line of the labels {uri} can be used{first}", hint)


def clips_of(
    path: str, labels: VideoLabels, span: tuple[float, float] | None, gathering: Gathering
) -> Iterator[tuple[float, float | None, dict[str, str]]]:
    """(start_s, end_s, values by column) of each action of a video.

    Args:
        span: start and end of the video in seconds; None if it could not be read, so that times cannot be checked.

    Times outside the video are named and give no clip; actions that overlap are named and kept. Lines with the same
    times are one clip: if they differ in a column that keeps one value, the second line is named.
    """
    good: list[_Timed] = []
    for action in labels.actions:
        try:
            start_s, end_s = _times(action, span)
        except ValueError as error:
            gathering.counts["bad_labels"] += 1
            gathering.problems.append(f"{action.where}: {error} ({path}); not used")
        else:
            good.append((start_s, end_s, action))
    gathering.counts["actions"] += len(good)
    if not good:
        gathering.counts["labelled"] -= labels.whole is None
        problem = f"{path}: none of its lines with times can be used: it is left out"
        gathering.problems.append(f"{problem}; clips that the list has of it stay")
    good.sort(key=lambda one: (one[0], math.inf if one[1] is None else one[1]))
    _name_overlaps(path, good, gathering)
    for (start_s, end_s, action), kept in _settled(path, good, gathering):
        yield start_s, end_s, (labels.whole or {}) | action.values | kept


def _settled(path: str, good: list[_Timed], gathering: Gathering) -> list[tuple[_Timed, dict[str, str]]]:
    """Each action with the values that count for its times, where one value is kept: those of the first line."""
    kept: dict[tuple[int, int | None], dict[str, tuple[str, str]]] = {}
    found = []
    for start_s, end_s, action in good:
        of_times = kept.setdefault((round(start_s * 1000), None if end_s is None else round(end_s * 1000)), {})
        found.append(of_times)
        for name, value in action.values.items():
            before, where = of_times.setdefault(name, (value, action.where))
            if before != value and name not in JOINED:
                gathering.problems.append(
                    f"{action.where}: {name} {value!r}, but {where} has {before!r} for the same times ({path}); "
                    "that one counts"
                )
    settled = [{name: value for name, (value, _) in one.items() if name not in JOINED} for one in found]
    return list(zip(good, settled, strict=True))


def _columns(file: FoundFile, columns: list[str], gathering: Gathering) -> dict[str, str]:
    """`{known column: as the file writes it}`. Raises ConfigError if the header cannot be understood."""
    known = ("video", *TIMES, *COLUMNS, CAMERA)
    by_name = {folded(name): name for name in columns if folded(name) in known}
    expected = f"expected `video` and any of {', '.join(known[1:])}"
    unknown = [name for name in columns if name not in by_name.values()]
    if twice := next((name for name in unknown if folded(name) in by_name), None):
        other = by_name[folded(twice)]
        problem = f"labels {file.uri} has the column {folded(twice)} twice: {twice!r} and {other!r}"
        raise ConfigError(problem, "expected every column once, in any case")
    for name in unknown:
        near = _nearest(folded(name), [one for one in known if one not in by_name])
        if near is not None:
            raise ConfigError(
                f"labels {file.uri}: the column {name!r} is not read: did you mean {near}?",
                f"call it {near}; or, if it means something else, give it a name that is less alike. {expected}",
            )
    if "video" not in by_name or len(by_name) == 1:
        raise ConfigError(
            f"labels {file.uri} has the columns {printable(', '.join(columns))}: {expected}",
            "put the names of the columns into the first line; or move the file away to go without words",
        )
    if unknown:
        names, others = ", ".join(by_name), printable(", ".join(unknown))
        gathering.problems.append(f"{file.path}: not read: the columns {others}; read: {names}")
    return by_name


def _nearest(name: str, known: list[str]) -> str | None:
    words = set(re.split(r"[^a-z]+", name))
    for meant, others in _OTHER_WORDS.items():
        if meant in known and words & others:
            return meant
    close = difflib.get_close_matches(re.sub(r"[^a-z]+", "_", name), known, 1, 0.75)
    return close[0] if close else None


def _take(row: CsvRow, by_name: dict[str, str], names: Names, labels: Labels) -> None:
    """Add a line to `labels`. Raises ValueError if it cannot be used."""
    row.check_width()
    path = _video(row, by_name["video"], names)
    values = {name: cell for name in COLUMNS if name in by_name and (cell := row[by_name[name]])}
    if "view" in values:
        values["view"] = folded(values["view"])
        if values["view"] not in VIEWS:
            raise ValueError(f"view {row[by_name['view']]!r}, expected {' or '.join(VIEWS)}")
    cells = {name: row[by_name[name]] if name in by_name else "" for name in TIMES}
    camera = row[by_name[CAMERA]] if CAMERA in by_name else ""
    if camera:
        labels.setdefault(path, VideoLabels()).cameras.setdefault(camera, row.where)
    if any(cells.values()):
        of_video = labels.setdefault(path, VideoLabels())
        of_video.timed = True
        start_s, end_s = (_seconds(name, cell, row.delimiter) for name, cell in cells.items())
        if start_s is not None and end_s is not None and end_s <= start_s:
            raise ValueError(f"end_s {cells['end_s']} is not after start_s {cells['start_s']}")
        of_video.actions.append(Action(start_s, end_s, values, row.where))
        return
    of_video = labels.setdefault(path, VideoLabels())
    if of_video.whole is not None:
        raise ValueError(
            f"video {path} is named twice; the first line counts (lines with start_s and end_s may repeat)"
        )
    of_video.whole = values


def _video(row: CsvRow, column: str, names: Names) -> str:
    """The path of the video that a line describes. Raises ValueError if there is no such video."""
    name = row[column].replace("\\", "/").removeprefix("./")
    try:
        path = names.find(name)
    except AmbiguousName as error:
        raise ValueError(f"video {error}") from error
    if path is None:
        raise ValueError(f"there is no video {spelled(name)}{names.nearest(name)}")
    return path


def _seconds(column: str, cell: str, delimiter: str) -> float | None:
    """Raises ValueError. In files that put commas between cells a comma in a number is ambiguous; elsewhere it is a
    decimal comma."""
    if not cell:
        return None
    if delimiter == "," and _MAYBE_THOUSANDS.fullmatch(cell):
        a_point, none = cell.replace(",", "."), cell.replace(",", "")
        raise ValueError(f"{column} {cell!r} may be {a_point} or {none} seconds, expected one of these")
    if not _NUMBER.fullmatch(cell):
        raise ValueError(f"{column} {cell!r}, expected seconds, such as 83.5 for one minute and 23.5 seconds")
    return float(cell.replace(",", "."))


def _times(action: Action, span: tuple[float, float] | None) -> tuple[float, float | None]:
    """Start and end in seconds on the video's clock. Raises ValueError if they lie outside the video."""
    if span is None:
        if (action.start_s or 0.0) < 0:
            raise ValueError(f"start_s {action.start_s} is before the video's start")
        return action.start_s or 0.0, action.end_s
    first, last = span
    start_s = first if action.start_s is None else action.start_s
    end_s = last if action.end_s is None else action.end_s
    if start_s < first - SLACK_S:
        clock = "" if first == 0 else "; times are on the container's clock, as ffprobe prints them"
        raise ValueError(f"start_s {start_s} is before the video's start, {first:g} s{clock}")
    if end_s > last + SLACK_S or start_s >= last:
        name, late = ("start_s", start_s) if start_s >= last else ("end_s", end_s)
        raise ValueError(f"{name} {late} is after the video's end, {last:.3f} s")
    start_s, end_s = max(start_s, first), min(end_s, last)
    if end_s <= start_s:
        raise ValueError(f"{start_s} to {end_s} s is no range")
    return start_s, end_s


def _name_overlaps(path: str, sorted_: list[_Timed], gathering: Gathering) -> None:
    """One line about overlapping actions: people may do two things at once, but it may also be a mistake."""
    num, example = 0, ""
    latest: tuple[float, Action] | None = None
    for start_s, end_s, action in sorted_:
        if latest is not None and start_s < latest[0]:
            num += 1
            example = example or f"{action.where} begins before the end of {latest[1].where}"
        end = math.inf if end_s is None else end_s
        if latest is None or end > latest[0]:
            latest = end, action
    if num:
        gathering.problems.append(
            f"{path}: {num} of its {len(sorted_)} actions begin before others end: {example}; kept"
        )
