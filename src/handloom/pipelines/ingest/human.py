"""`handloom ingest`: files and annotations into the clip list."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

from handloom.api import Database
from handloom.errors import ConfigError
from handloom.ingest.camera.said import Asked, filled, is_file_gone, kept, of_preset
from handloom.ingest.human.ego4d import Choice, ingest_ego4d
from handloom.ingest.human.ego4d_narrations import NarrationWindow
from handloom.ingest.human.epic import ingest_epic
from handloom.ingest.human.folder import ingest_folder
from handloom.ingest.human.labels import SAID
from handloom.ingest.result import IngestResult
from handloom.plural import plural
from handloom.schemas.camera_presets import PRESETS
from handloom.schemas.clip import Clip
from handloom.schemas.values import VideoInfo
from handloom.store.clips.clip_list import add_clips, listed_videos, renewed_videos
from handloom.store.clips.commit import done_ids
from handloom.store.clips.listed import OtherCuts, keep_unsaid, other_cuts
from handloom.store.clips.removal import remove_clips, remove_rows
from handloom.store.clips.row_words import rows_behind, write_words
from handloom.store.embodiment import check_of_people
from handloom.store.runs.lease import alone, living_runs
from handloom.video.container.camera_tags import CameraTags, read_camera_tags
from handloom.video.decode.probe import Prober
from handloom.video.fetch.source import VideoSource
from handloom.video.fetch.version import with_versions

EDGE_S = 1e-3  # ids tell no less


@dataclass(frozen=True)
class IngestSummary:
    """What one ingest did: the source's own counts, what changed in the clip list, what was wrong with the input.

    left_out: how much of the input could not be used; each is named in `problems`. removed: clips that left the list,
    with removed_rows rows and removed_rejects rejects. overlapping: added clips that share moments with clips of the
    list that this ingest does not name. others: how many of those the list still holds. changed_videos: videos that
    are other files than before. dropped: clips of theirs that are no longer in the list. redone: rows and rejects of
    their old files, which were removed. rows_reworded: rows that were made already and have their clip's new words now.
    outdated: rows that were made with another camera or view than the list has now. remade: those of them that went
    with `--replace`, for the next run to make anew; they are among removed_rows. notes: what was decided for several
    videos: their cameras.
    """

    counts: dict[str, int]
    added: int
    changed: int
    already_there: int
    num_clips: int
    left_out: int
    problems: tuple[str, ...]
    removed: int = 0
    removed_rows: int = 0
    removed_rejects: int = 0
    overlapping: int = 0
    others: int = 0
    changed_videos: int = 0
    dropped: int = 0
    redone: int = 0
    rows_reworded: int = 0
    outdated: int = 0
    remade: int = 0
    notes: tuple[str, ...] = ()


def folder(
    db: Database,
    directory: str,
    *,
    asked: Asked | None = None,
    replace_others: bool = False,
    add_overlapping: bool = False,
    **options: Any,
) -> IngestSummary:
    """Every video below a directory: see `handloom.ingest.human.folder.ingest_folder`.

    Clips that overlap others of the list are added only where that is asked for: two cuts of one video are one by
    mistake, mostly. The clips of a video that is another file than before take the place of its old ones, also where a
    run has noticed that first: clips without a row that lie outside the video make room. What neither `clips.csv` nor
    an option says of a clip stays as the list has it, the camera and the hands that an earlier command gave among it.

    Args:
        asked: cameras and hands of all of these videos.
        replace_others: clips of these videos that this ingest does not name leave the list, with rows and rejects; and
            what it does not say is cleared.
        add_overlapping: keep both.

    Raises:
        ConfigError: see there; or new clips overlap others, and neither is asked for.
    """
    spans: dict[str, tuple[float, float]] = {}

    def tags(uri: str) -> CameraTags:
        return read_camera_tags(uri, options.get("storage_options"))

    with Prober(VideoSource(storage_options=options.get("storage_options"))) as prober:

        def probe(uri: str) -> VideoInfo:
            info = prober(uri)
            spans[uri] = info.start_s, info.end_s
            return info

        result = _of_files(db, ingest_folder(directory, probe=probe, tags=tags, asked=asked, **options), options)
    others = other_cuts(db, result.clips)
    if outside := _outside(db, result.clips, others, spans):
        others = other_cuts(db, result.clips, without=outside)
    clips, others = _without_unreadable(result.clips, others)
    others = _without_renewed(others, renewed_videos(db, clips))
    others, open_ends = _without_open_ends(others)
    superseded = [*outside, *open_ends]
    if others.overlapping and not (replace_others or add_overlapping):
        num = plural(len(others.clip_ids), "clip")
        hint = f"--replace takes those out, with their rows: {num} in all; --add keeps both cuts"
        raise ConfigError(_overlap(others), f"{hint}. Nothing was changed")
    notes = result.notes
    if not replace_others:
        clips, gone = _kept(db, keep_unsaid(db, clips, SAID), asked or Asked())
        notes = (*notes, *gone)
    return _store(db, replace(result, clips=clips, notes=notes), others, replace_others, superseded, whole_videos=True)


def epic(
    db: Database,
    annotations: list[str],
    videos: str,
    *,
    asked: Asked | None = None,
    replace_others: bool = False,
    **options: Any,
) -> IngestSummary:
    """EPIC-KITCHENS actions: see `handloom.ingest.human.epic.ingest_epic`; the others as for `folder`.

    Clips without a camera take the preset `epic`.
    """
    result = _of_files(db, _checked(ingest_epic(annotations, videos, **options), videos), options)
    keep = {"keep": not replace_others, "keep_camera": options.get("fields") is None}
    result = _with_cameras(db, result, asked or Asked(), "epic", **keep)
    return _store(db, result, other_cuts(db, result.clips), replace_others)


def ego4d(
    db: Database,
    manifest: str,
    videos: str,
    *,
    window: str = "fixed",
    before_s: float = 1.0,
    after_s: float = 2.0,
    others: bool = True,
    asked: Asked | None = None,
    replace_others: bool = False,
    **options: Any,
) -> IngestSummary:
    """Ego4D narrations and actions: see `handloom.ingest.human.ego4d.ingest_ego4d`; the others as for `folder`.

    Clips without a camera take the preset `ego4d`.
    """
    options["window"] = NarrationWindow(mode=window, before_s=before_s, after_s=after_s)
    result = _checked(ingest_ego4d(manifest, videos, choice=Choice(others=others), **options), videos)
    result = _with_cameras(db, _of_files(db, result, options), asked or Asked(), "ego4d", keep=not replace_others)
    return _store(db, result, other_cuts(db, result.clips), replace_others)


def _with_cameras(
    db: Database, result: IngestResult, asked: Asked, own: str, *, keep: bool, keep_camera: bool = True
) -> IngestResult:
    """The result, its clips with the cameras and hands asked for, else those of the list (`keep`); clips without a
    camera then take the preset `own`.
    """
    clips = [replace(clip, hand=asked.hand) for clip in result.clips]
    if keep:
        clips, _ = _kept(db, clips, asked, any_camera=keep_camera)
    preset = of_preset(PRESETS[own])
    clips, num = filled(clips, asked, preset)
    if not num:
        return replace(result, clips=clips)
    name, source = ("cameras_of_preset", preset) if asked.camera is None else ("cameras_asked", asked)
    note = f"{plural(num, 'clip has', 'clips have')} {source.said}"
    return replace(result, clips=clips, counts=result.counts | {name: num}, notes=(*result.notes, note))


def _kept(
    db: Database, clips: list[Clip], asked: Asked, any_camera: bool = False
) -> tuple[list[Clip], tuple[str, ...]]:
    """See `ingest.cameras.kept`; and a note of camera files that are no longer there."""
    bare = [replace(clip, camera=None, hand=None) for clip in clips]
    listed = keep_unsaid(db, bare, ("camera", "hand"))
    found = [kept(clip, before, asked, any_camera) for clip, before in zip(clips, listed, strict=True)]
    gone = {clip.video_id for clip, before in zip(found, listed, strict=True) if is_file_gone(clip, before)}
    num = plural(len(gone), "video has lost its camera file", "videos have lost their camera files")
    return found, (f"{num}, {min(gone)} for one: its numbers count no more",) if gone else ()


def _checked(result: IngestResult, videos: str) -> IngestResult:
    """Say so where every video is missing: the folder is another one, mostly. Raises ConfigError where only those that
    are there were asked for: all clips would leave the list."""
    counts = result.counts
    if not counts["videos_missing"] or counts["videos_missing"] < counts["videos"]:
        return result
    if not result.clips:
        raise ConfigError(
            f"none of the {counts['videos']} videos is below {videos}, that of {min(result.absent)} for one",
            "nothing was changed: check --videos; without --only-present the clips are listed all the same",
        )
    problem = f"none of the {counts['videos']} videos is there: {result.clips[0].video_uri}, for one; check --videos"
    problems = [f"{problem}. `run` would reject every clip", *result.problems]
    return replace(result, problems=problems, counts=counts | {"none_there": 1})


def _of_files(db: Database, result: IngestResult, options: dict[str, Any]) -> IngestResult:
    """The clips with the files that their videos are now."""
    clips = with_versions(result.clips, listed_videos(db), options.get("storage_options"))
    sized = {clip.video_uri for clip in clips if clip.video_bytes is not None and clip.video_version is None}
    return replace(
        result, clips=clips, counts=result.counts | ({"videos_without_version": len(sized)} if sized else {})
    )


def _store(
    db: Database,
    result: IngestResult,
    others: OtherCuts,
    replace_others: bool,
    superseded: Sequence[str] = (),
    whole_videos: bool = False,
) -> IngestSummary:
    """Add first, remove then: a kill in between leaves both cuts, and the same ingest again removes the rest."""
    check_of_people(db, {clip.dataset for clip in result.clips})
    gone = {*superseded, *(others.clip_ids if replace_others else ())}
    if result.absent:
        gone |= result.absent - done_ids(db)  # what was extracted before its video went is kept
    removes = replace_others or bool(gone) or bool(living_runs(db) and renewed_videos(db, result.clips))
    with alone(db, "ingest") if removes else nullcontext():
        done = add_clips(db, result.clips, whole_videos=whole_videos)
        removed = remove_clips(db, gone)
        behind = rows_behind(db, result.clips)
        write_words(db, behind.words)
        remade = remove_rows(db, behind.outdated).rows if replace_others else 0
    kept = 0 if replace_others else len(others.clip_ids)
    both = [] if replace_others else others.overlapping
    return IngestSummary(
        counts=result.counts,
        added=done.added,
        changed=done.changed,
        already_there=done.already_there,
        num_clips=db.count("clip_list"),
        left_out=result.num_left_out,
        problems=(
            *result.problems,
            *([f"{_overlap(others)}; both are kept (--replace removes those)"] if both else ()),
            *([_outdated(behind.outdated)] if behind.outdated and not replace_others else ()),
        ),
        removed=removed.listed,
        removed_rows=removed.rows + remade,
        removed_rejects=removed.rejects,
        overlapping=len(both),
        others=kept,
        changed_videos=done.changed_videos,
        dropped=done.dropped,
        redone=done.redone,
        rows_reworded=len(behind.words),
        outdated=len(behind.outdated),
        remade=remade,
        notes=result.notes,
    )


def _overlap(others: OtherCuts) -> str:
    clip, cut = others.overlapping[0]
    num = plural(len(others.overlapping), "new clip overlaps", "new clips overlap")
    first = f"{clip.clip_id} and {cut.clip_id}, for one"
    return f"{num} clips of the list that this ingest does not name: {first}"


def _outdated(clip_ids: list[str]) -> str:
    num = len(clip_ids)
    made = f"{plural(num, 'row was', 'rows were')} made with another camera, view or hand size than the list has now"
    return f"{made}, {clip_ids[0]} for one; --replace has {'it' if num == 1 else 'them'} made anew by the next run"


def _without_unreadable(clips: list[Clip], others: OtherCuts) -> tuple[list[Clip], OtherCuts]:
    """Without the clip `0-end` of a video that cannot be read today but could be before: its clips stay as they are."""
    known = {video for video, cuts in others.by_video.items() if any(cut.end_s is not None for cut in cuts)}
    left = [clip for clip in clips if clip.end_s is not None or (clip.dataset, clip.video_id) not in known]
    if len(left) == len(clips):
        return clips, others
    unread = {(clip.dataset, clip.video_id) for clip in clips} - {(clip.dataset, clip.video_id) for clip in left}
    by_video = {video: cuts for video, cuts in others.by_video.items() if video not in unread}
    kept = {clip.clip_id for clip in left}
    return left, OtherCuts(by_video, [pair for pair in others.overlapping if pair[0].clip_id in kept])


def _without_renewed(others: OtherCuts, renewed: Collection[tuple[str, str]]) -> OtherCuts:
    """Without the clips of videos that are other files now: those go with the old files."""
    by_video = {video: cuts for video, cuts in others.by_video.items() if video not in renewed}
    both = [pair for pair in others.overlapping if (pair[0].dataset, pair[0].video_id) not in renewed]
    return OtherCuts(by_video, both)


def _outside(
    db: Database, clips: Sequence[Clip], others: OtherCuts, spans: Mapping[str, tuple[float, float]]
) -> set[str]:
    """Listed clips without a row that reach outside their video as it is now: of a file that was longer."""
    by_video = {(clip.dataset, clip.video_id): spans[clip.video_uri] for clip in clips if clip.video_uri in spans}
    outside = set()
    for video in others.by_video.keys() & by_video.keys():
        first, last = by_video[video]
        for cut in others.by_video[video]:
            if cut.start_s < first - EDGE_S or (cut.end_s is not None and cut.end_s > last + EDGE_S):
                outside.add(cut.clip_id)
    return outside - done_ids(db) if outside else outside


def _without_open_ends(others: OtherCuts) -> tuple[OtherCuts, list[str]]:
    """Without listed clips `0-end` of videos that could not be read before, and can be now; and the ids of those."""
    open_ends = [cut.clip_id for cuts in others.by_video.values() for cut in cuts if cut.end_s is None]
    by_video = {video: [cut for cut in cuts if cut.end_s is not None] for video, cuts in others.by_video.items()}
    return OtherCuts({video: cuts for video, cuts in by_video.items() if cuts}, others.overlapping), open_ends
