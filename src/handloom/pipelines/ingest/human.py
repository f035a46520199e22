"""`handloom ingest folder`, `epic` and `ego4d`: videos and annotations into the clip list."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from handloom.api import Database
from handloom.errors import ConfigError
from handloom.ingest.camera.requested import RequestedCamera, fill_cameras, has_lost_its_file, keep_listed, of_preset
from handloom.ingest.human.ego4d import Choice, ingest_ego4d
from handloom.ingest.human.ego4d_narrations import NarrationWindow
from handloom.ingest.human.epic import ingest_epic
from handloom.ingest.human.folder import ingest_folder
from handloom.ingest.human.labels import COLUMNS
from handloom.ingest.result import IngestResult
from handloom.pipelines.ingest.effects import NUM_EXAMPLES, apply, foresee, outdated_rows
from handloom.plural import plural
from handloom.schemas.camera_presets import PRESETS
from handloom.schemas.clip import Clip
from handloom.schemas.values import VideoInfo
from handloom.store.clips.clip_list import listed_videos, renewed_videos
from handloom.store.clips.commit import done_ids
from handloom.store.clips.ingest_diff import OtherCuts, keep_unsaid, other_cuts
from handloom.store.clips.known_clips import FieldChange
from handloom.store.embodiment import check_of_people
from handloom.store.runs.lease import alone, living_runs
from handloom.video.container.camera_tags import CameraTags, read_camera_tags
from handloom.video.decode.probe import Prober
from handloom.video.fetch.version import with_versions
from handloom.video.fetch.video_source import VideoSource

EDGE_S = 1e-3  # times in ids are whole milliseconds


@dataclass(frozen=True)
class IngestSummary:
    """What one ingest did: the source's own counts, what changed in the clip list, what was wrong with the input.

    left_out: number of entries and files that could not be used; each is named in `problems`. removed: clips removed
    from the list, with removed_rows rows and removed_rejects rejects. overlapping: added clips that overlap listed
    clips that this ingest does not name. others: how many of those are still listed. changed_videos: videos whose file
    is another one than before. dropped: clips of these videos that left the list. redone: rows and rejects of their old
    files, which were removed. rows_reworded: existing rows that got the new words of their clip. outdated: rows that
    were made with another camera, view or hand size than the list has now; outdated_fields: by which of them.
    stages_again: of each stage of one's own that reads changed words, the rows that need it again. remade:
    outdated rows that `--replace` removed, for the next run to make again; they are among removed_rows.
    others_with_row: those of `others` that have a row. fields: changed values of listed clips, by column; shown: the
    first few of each. examples: by name of a number, the first few clips or videos of it. notes: decisions about
    several videos, such as their cameras. dry_run: nothing was written; the numbers are what the ingest would do.
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
    others_with_row: int = 0
    fields: Mapping[str, int] = field(default_factory=dict)
    shown: tuple[FieldChange, ...] = ()
    outdated_fields: Mapping[str, int] = field(default_factory=dict)
    stages_again: Mapping[str, int] = field(default_factory=dict)
    examples: Mapping[str, list[str]] = field(default_factory=dict)
    dry_run: bool = False


def folder(
    db: Database,
    directory: str,
    *,
    requested: RequestedCamera | None = None,
    replace_others: bool = False,
    add_overlapping: bool = False,
    dry_run: bool = False,
    **options: Any,
) -> IngestSummary:
    """Every video below a directory: see `handloom.ingest.human.folder.ingest_folder`.

    New clips that overlap listed ones are refused unless one of the two options is given: a second cut of a video is
    usually a mistake. If a video's file is another one than before, its new clips replace the old ones, also if a run
    noticed the change first: then clips without a row that lie outside the video are removed. Columns that neither
    `clips.csv` nor an option gives stay as listed, also the camera and hands of an earlier command.

    Args:
        requested: camera and hands of all these videos.
        replace_others: remove clips of these videos that this ingest does not name, with their rows and rejects; and
            clear columns that this ingest does not give.
        add_overlapping: keep both cuts.
        dry_run: only report what would change.

    Raises:
        ConfigError: see there; or new clips overlap listed ones, and neither option is given.
    """
    spans: dict[str, tuple[float, float]] = {}

    def tags(uri: str) -> CameraTags:
        return read_camera_tags(uri, options.get("storage_options"))

    with Prober(VideoSource(storage_options=options.get("storage_options"))) as prober:

        def probe(uri: str) -> VideoInfo:
            info = prober(uri)
            spans[uri] = info.start_s, info.end_s
            return info

        result = _of_files(
            db, ingest_folder(directory, probe=probe, tags=tags, requested=requested, **options), options
        )
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
        raise ConfigError(_overlap(others, done_ids(db)), f"{hint}. Nothing was changed")
    notes = result.notes
    if not replace_others:
        clips, gone = _kept(db, keep_unsaid(db, clips, COLUMNS), requested or RequestedCamera())
        notes = (*notes, *gone)
    result, how = replace(result, clips=clips, notes=notes), _How(replace_others, dry_run, whole_videos=True)
    return _store(db, result, others, how, superseded)


def epic(
    db: Database,
    annotations: list[str],
    videos: str,
    *,
    requested: RequestedCamera | None = None,
    replace_others: bool = False,
    dry_run: bool = False,
    **options: Any,
) -> IngestSummary:
    """EPIC-KITCHENS actions: see `handloom.ingest.human.epic.ingest_epic`; other arguments as for `folder`.

    Clips without a camera take the preset `epic`.
    """
    result = _of_files(db, _checked(ingest_epic(annotations, videos, **options), videos), options)
    keep = {"keep": not replace_others, "keep_camera": options.get("fields") is None}
    result = _with_cameras(db, result, requested or RequestedCamera(), "epic", **keep)
    return _store(db, result, other_cuts(db, result.clips), _How(replace_others, dry_run))


def ego4d(
    db: Database,
    manifest: str,
    videos: str,
    *,
    window: Literal["fixed", "contextual"] = "fixed",
    before_s: float = 1.0,
    after_s: float = 2.0,
    others: bool = True,
    requested: RequestedCamera | None = None,
    replace_others: bool = False,
    dry_run: bool = False,
    **options: Any,
) -> IngestSummary:
    """Ego4D narrations and actions: see `handloom.ingest.human.ego4d.ingest_ego4d`; other arguments as for `folder`.

    Clips without a camera take the preset `ego4d`.
    """
    options["window"] = NarrationWindow(mode=window, before_s=before_s, after_s=after_s)
    result = _checked(ingest_ego4d(manifest, videos, choice=Choice(others=others), **options), videos)
    result = _with_cameras(
        db, _of_files(db, result, options), requested or RequestedCamera(), "ego4d", keep=not replace_others
    )
    return _store(db, result, other_cuts(db, result.clips), _How(replace_others, dry_run))


def _with_cameras(
    db: Database, result: IngestResult, requested: RequestedCamera, own: str, *, keep: bool, keep_camera: bool = True
) -> IngestResult:
    """The result with the requested camera and hands, else those of the list (`keep`), else the preset `own`."""
    clips = [replace(clip, hand=requested.hand) for clip in result.clips]
    if keep:
        clips, _ = _kept(db, clips, requested, any_camera=keep_camera)
    preset = of_preset(PRESETS[own])
    clips, num = fill_cameras(clips, requested, preset)
    if not num:
        return replace(result, clips=clips)
    name, source = ("cameras_of_preset", preset) if requested.camera is None else ("cameras_asked", requested)
    note = f"{plural(num, 'clip has', 'clips have')} {source.description}"
    return replace(result, clips=clips, counts=result.counts | {name: num}, notes=(*result.notes, note))


def _kept(
    db: Database, clips: list[Clip], requested: RequestedCamera, any_camera: bool = False
) -> tuple[list[Clip], tuple[str, ...]]:
    """The clips after `keep_listed`, and a note about camera files that no longer exist."""
    bare = [replace(clip, camera=None, hand=None) for clip in clips]
    listed = keep_unsaid(db, bare, ("camera", "hand"))
    found = [keep_listed(clip, before, requested, any_camera) for clip, before in zip(clips, listed, strict=True)]
    gone = {clip.video_id for clip, before in zip(found, listed, strict=True) if has_lost_its_file(clip, before)}
    num = plural(len(gone), "video has lost its camera file", "videos have lost their camera files")
    return found, (f"{num}, for example {min(gone)}: its numbers are no longer used",) if gone else ()


def _checked(result: IngestResult, videos: str) -> IngestResult:
    """Adds a problem if every video is missing: usually the folder is wrong. Raises ConfigError with `--only-present`:
    all clips would be removed from the list."""
    counts = result.counts
    if not counts["videos_missing"] or counts["videos_missing"] < counts["videos"]:
        return result
    if not result.clips:
        raise ConfigError(
            f"none of the {counts['videos']} videos is below {videos}, for example that of {min(result.absent)}",
            "nothing was changed: check --videos; without --only-present the clips are listed without their videos",
        )
    problem = f"none of the {counts['videos']} videos exists, for example {result.clips[0].video_uri}; check --videos"
    problems = [f"{problem}. `run` would reject every clip", *result.problems]
    return replace(result, problems=problems, counts=counts | {"none_there": 1})


def _of_files(db: Database, result: IngestResult, options: dict[str, Any]) -> IngestResult:
    """The clips with the current version of each video's file."""
    clips = with_versions(result.clips, listed_videos(db), options.get("storage_options"))
    sized = {clip.video_uri for clip in clips if clip.video_bytes is not None and clip.video_version is None}
    return replace(
        result, clips=clips, counts=result.counts | ({"videos_without_version": len(sized)} if sized else {})
    )


@dataclass(frozen=True)
class _How:
    """replace: remove other clips and outdated rows. dry_run: write nothing. whole_videos: as for `add_clips`."""

    replace: bool
    dry_run: bool
    whole_videos: bool = False


def _store(
    db: Database, result: IngestResult, others: OtherCuts, how: _How, superseded: Sequence[str] = ()
) -> IngestSummary:
    """Adds before it removes: after a kill in between both cuts are listed, and the same ingest removes the rest."""
    check_of_people(db, {clip.dataset for clip in result.clips})
    gone = {*superseded, *(others.clip_ids if how.replace else ())}
    with_row = done_ids(db) if result.absent or others.by_video else set()
    gone |= result.absent - with_row  # rows stay, also of videos that are gone
    runs = living_runs(db)
    removes = how.replace or bool(gone) or bool(runs and renewed_videos(db, result.clips))
    if how.dry_run:
        done = foresee(db, result.clips, gone, whole_videos=how.whole_videos, remake=how.replace)
    else:
        with alone(db, "ingest") if removes else nullcontext():
            done = apply(db, result.clips, gone, whole_videos=how.whole_videos, remake=how.replace)
    kept = [] if how.replace else others.clip_ids
    both = [] if how.replace else others.overlapping
    problems = [f"{_overlap(others, with_row)}; both are kept (--replace removes those)"] if both else []
    if done.outdated and not how.replace:
        problems.append(outdated_rows(db, done))
    if how.dry_run and removes and runs:
        problems.append(f"run {runs[0].run_id} works on {db.uri}: an ingest that removes clips or rows has to wait")
    old = sorted(with_row.intersection(kept))
    return IngestSummary(
        counts=result.counts,
        added=done.added,
        changed=done.changed,
        already_there=done.already_there,
        num_clips=done.num_clips,
        left_out=result.num_left_out,
        problems=(*problems, *result.problems),
        removed=done.removed,
        removed_rows=done.removed_rows,
        removed_rejects=done.removed_rejects,
        overlapping=len(both),
        others=len(kept),
        changed_videos=done.changed_videos,
        dropped=done.dropped,
        redone=done.redone,
        rows_reworded=done.rows_reworded,
        outdated=len(done.outdated),
        remade=done.remade,
        notes=result.notes,
        others_with_row=len(old),
        fields=done.fields,
        shown=tuple(done.shown()),
        outdated_fields=done.outdated_fields,
        stages_again=done.stages_again,
        examples=done.examples | {"others": kept[:NUM_EXAMPLES], "others_with_row": old[:NUM_EXAMPLES]},
        dry_run=how.dry_run,
    )


def _overlap(others: OtherCuts, with_row: Collection[str]) -> str:
    """A sentence that names a new clip and an old one; one that has a row, if any has."""
    old = [pair for pair in others.overlapping if pair[1].clip_id in with_row]
    clip, cut = (old or others.overlapping)[0]
    num = plural(len(others.overlapping), "new clip overlaps", "new clips overlap")
    first = f"for example {clip.clip_id} and {cut.clip_id}{', which has a row' if old else ''}"
    return f"{num} clips of the list that this ingest does not name: {first}"


def _without_unreadable(clips: list[Clip], others: OtherCuts) -> tuple[list[Clip], OtherCuts]:
    """Without the clip `0-end` of a video that could be read before and cannot be read now: its clips stay."""
    known = {video for video, cuts in others.by_video.items() if any(cut.end_s is not None for cut in cuts)}
    left = [clip for clip in clips if clip.end_s is not None or (clip.dataset, clip.video_id) not in known]
    if len(left) == len(clips):
        return clips, others
    unread = {(clip.dataset, clip.video_id) for clip in clips} - {(clip.dataset, clip.video_id) for clip in left}
    by_video = {video: cuts for video, cuts in others.by_video.items() if video not in unread}
    kept = {clip.clip_id for clip in left}
    return left, OtherCuts(by_video, [pair for pair in others.overlapping if pair[0].clip_id in kept])


def _without_renewed(others: OtherCuts, renewed: Collection[tuple[str, str]]) -> OtherCuts:
    """Without the clips of videos whose file has changed: they are removed with the old file."""
    by_video = {video: cuts for video, cuts in others.by_video.items() if video not in renewed}
    both = [pair for pair in others.overlapping if (pair[0].dataset, pair[0].video_id) not in renewed]
    return OtherCuts(by_video, both)


def _outside(
    db: Database, clips: Sequence[Clip], others: OtherCuts, spans: Mapping[str, tuple[float, float]]
) -> set[str]:
    """Listed clips without a row that reach outside their video: those of an earlier, longer file."""
    by_video = {(clip.dataset, clip.video_id): spans[clip.video_uri] for clip in clips if clip.video_uri in spans}
    outside = set()
    for video in others.by_video.keys() & by_video.keys():
        first, last = by_video[video]
        for cut in others.by_video[video]:
            if cut.start_s < first - EDGE_S or (cut.end_s is not None and cut.end_s > last + EDGE_S):
                outside.add(cut.clip_id)
    return outside - done_ids(db) if outside else outside


def _without_open_ends(others: OtherCuts) -> tuple[OtherCuts, list[str]]:
    """Without listed clips `0-end` of videos that can be read now; and the ids of these clips."""
    open_ends = [cut.clip_id for cuts in others.by_video.values() for cut in cuts if cut.end_s is None]
    by_video = {video: [cut for cut in cuts if cut.end_s is not None] for video, cuts in others.by_video.items()}
    return OtherCuts({video: cuts for video, cuts in by_video.items() if cuts}, others.overlapping), open_ends
