"""A dataset's videos on disk or behind a URI: listed once, then looked up by video id."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from handloom.errors import ConfigError
from handloom.ingest.names import AmbiguousName, folded
from handloom.io.addresses import is_http, join, normalise
from handloom.io.listing import Descend, FoundFile, list_files
from handloom.io.presence import existing
from handloom.io.remote import Options

Rank = Callable[[tuple[str, ...]], int]
Guess = Callable[[str], list[str]]


@dataclass(frozen=True)
class VideoLibrary:
    """found: `{video id: uri}`. expected: the URI of a missing video, in the layout of those that were found."""

    found: dict[str, str]
    expected: Callable[[str], str]
    problems: list[str]

    def uri(self, video_id: str) -> str:
        return self.found.get(video_id) or self.expected(video_id)


def find_videos(
    root: str, video_ids: Iterable[str], descend: Descend, rank: Rank, guess: Guess, options: Options = None
) -> VideoLibrary:
    """Look for `{video_id}.{any video extension}` below `root`, in any letter case.

    If a server does not list its files (most http servers do not), every video is requested by name instead.

    Args:
        descend: whether to look into a folder: a dataset's root may also hold millions of frames.
        rank: rank of a video's folders; of two files with one video id the lower rank wins.
        guess: paths below `root` where a video may lie, the official one first.

    Raises:
        ConfigError: `root` is no folder, or cannot be listed.
    """
    root = normalise(root)
    wanted: dict[str, list[str]] = {}
    for video_id in sorted(video_ids):
        wanted.setdefault(folded(video_id), []).append(video_id)
    candidates: dict[str, list[FoundFile]] = {}
    best: dict[str, FoundFile] = {}
    problems: list[str] = []
    unlisted = ""
    try:
        listing = list_files(root, "video folder", descend, options)
    except ConfigError as error:
        if not is_http(root):
            raise
        unlisted = error.problem
    else:
        problems += listing.problems
        for file in listing.files:
            for video_id in wanted.get(folded(file.stem), ()) if file.is_video else ():
                candidates.setdefault(video_id, []).append(file)
        for video_id, files in candidates.items():
            try:
                best[video_id] = _choose(video_id, files, rank, guess(video_id))
            except AmbiguousName as error:
                problems.append(f"video {error}; its clips have no video")
    if not best and is_http(root):
        best = _request(root, itertools.chain.from_iterable(wanted.values()), guess)
        if unlisted and wanted and not best:
            problems.append(f"{unlisted}; requested each of {len(wanted)} videos by name, found none")
    return VideoLibrary({i: f.uri for i, f in best.items()}, _expectation(root, best, guess), problems)


def _choose(video_id: str, files: list[FoundFile], rank: Rank, official: list[str]) -> FoundFile:
    """The file in the folder of the lowest rank.

    Raises AmbiguousName if two files there differ only in case or Unicode form, and neither is at the official path nor
    the only one that is spelled like the id.
    """

    def key(file: FoundFile) -> tuple[int, int, bool, bool, str]:
        folders = tuple(file.path.split("/")[:-1])
        return rank(folders), len(folders), file.path not in official, file.stem != video_id, file.path

    best = min(files, key=key)
    alike = [file for file in files if folded(file.path) == folded(best.path)]
    if len(alike) > 1 and best.path not in official and sum(file.stem == video_id for file in alike) != 1:
        raise AmbiguousName(video_id, [file.path for file in alike])
    return best


def _request(root: str, video_ids: Iterable[str], guess: Guess) -> dict[str, FoundFile]:
    best: dict[str, FoundFile] = {}
    missing = list(video_ids)
    for number in range(len(guess(missing[0])) if missing else 0):
        files = {i: FoundFile(path := guess(i)[number], join(root, path)) for i in missing}
        there = existing([file.uri for file in files.values()])
        best |= {i: file for i, file in files.items() if file.uri in there}
        missing = [i for i in missing if i not in best]
    return best


def _expectation(root: str, best: dict[str, FoundFile], guess: Guess) -> Callable[[str], str]:
    """The layout of most videos that were found; the official one if there are none."""
    votes: dict[int, int] = {}
    for video_id, file in best.items():
        paths = guess(video_id)
        if file.path in paths:
            votes[paths.index(file.path)] = votes.get(paths.index(file.path), 0) + 1
    number = min(votes, key=lambda n: (-votes[n], n), default=0)
    return lambda video_id: join(root, guess(video_id)[number])
