"""Results of commands as text, for people."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from textwrap import shorten
from typing import Any

from handloom.plural import plural
from handloom.schemas.clip import words_of

MAX_PROBLEMS = 20
MAX_EPISODES = 3
MAX_IDS = 10
DRY = "nothing was written (--dry-run); the ingest would do this:"
MAX_VALUE = 60  # characters of a value in a line
MAX_CAPTION = 80
HIDDEN = ("videos_missing", "none_there")  # part of other lines


def problems(summary) -> Iterator[str]:
    """The first problems of an ingest's input."""
    for problem in summary.problems[:MAX_PROBLEMS]:
        yield f"problem: {problem}"
    if len(summary.problems) > MAX_PROBLEMS:
        yield f"... and {len(summary.problems) - MAX_PROBLEMS} more (--json lists all)"


def notes(summary) -> Iterator[str]:
    """What an ingest decided for several videos: the source of their cameras."""
    for note in summary.notes[:MAX_PROBLEMS]:
        yield f"note: {note}"
    if len(summary.notes) > MAX_PROBLEMS:
        yield f"... and {len(summary.notes) - MAX_PROBLEMS} more notes (--json lists all)"


def presets(found) -> str:
    """The table of the lens presets."""
    lines = [f"{'name':<13} {'view':>7} {'known to':>9}  {'lens':<10} what it is for, where the numbers are from"]
    for one in found:
        lens = "pinhole" if one.distortion is None else one.distortion["model"]
        hand = "" if one.keypoint_scale is None else f"; keypoints at {one.keypoint_scale:g} of the hand's size"
        lines.append(f"{one.name:<13} {one.fov_deg:>5.1f} ° {one.focal_sigma:>8.0%}   {lens:<10} {one.meaning}{hand}")
        lines.append(f"{'':<44}{one.origin}")
    lines.append("view: along the image's longer side; known to: standard deviation of such cameras' focal lengths")
    return "\n".join(lines)


def ingest(summary) -> str:
    """What an ingest changed, and the source's own counts."""
    changes = f"added {summary.added}, changed {summary.changed}, already there {summary.already_there}"
    if summary.removed or summary.removed_rows:
        changes += f", removed {summary.removed} (rows {summary.removed_rows}, rejects {summary.removed_rejects})"
    counts = {name: value for name, value in summary.counts.items() if value and name not in HIDDEN}
    if missing := summary.counts.get("videos_missing"):
        counts["videos"] = f"{summary.counts['videos']}, there {summary.counts['videos'] - missing}"
    lines = [f"{changes}: {plural(summary.num_clips, 'clip')} in the list"]
    entries = counts.pop("entries", 0)
    begin = f"of {plural(entries, 'file or annotation', 'files or annotations')} read: " if entries else ""
    lines.append(f"  {begin}{', '.join(f'{name} {value}' for name, value in counts.items())}")
    if summary.changed_videos:
        lines.insert(1, f"  {changed_videos(summary.changed_videos, summary.redone, summary.dropped)}")
    lines += _changed_values(summary)
    if summary.remade:
        made = plural(summary.remade, "row was", "rows were")
        made += " made with another view, camera or hand size than the list has now"
        lines.append(f"  {made}: the next run makes {'it' if summary.remade == 1 else 'them'} anew")
    if summary.others:
        others = plural(summary.others, "other clip of these videos stays", "other clips of these videos stay")
        one = (summary.examples["others_with_row"] or summary.examples["others"])[0]
        row = f", {summary.others_with_row} of them with a row" if summary.others_with_row else ""
        gone = "it" if summary.others == 1 else "them"
        lines.append(f"  {others} in the list{row}, for example {one} (--replace removes {gone})")
    return "\n".join([*_dry(summary), *lines])


def _dry(summary) -> list[str]:
    return [DRY] if summary.dry_run else []


def _changed_values(summary) -> Iterator[str]:
    """Lines about listed clips that get other values, and about their rows."""
    for name in ("added", "changed_videos", "dropped", "removed") if summary.dry_run else ():
        if ids := summary.examples.get(name):
            yield f"  {name.replace('_', ' ')}, for example: {', '.join(ids)}"
    for name, num in summary.fields.items():
        yield f"  {name} of {plural(num, 'listed clip')}:"
        changes = [change for change in summary.shown if change.field == name]
        for change in changes:
            yield f"    {change.clip_id} {_quoted(change.before)} -> {_quoted(change.now)}"
        if num > len(changes):
            yield f"    ... and {num - len(changes)} more"
    if summary.rows_reworded:
        one, many = "row that was made before has its", "rows that were made before have their"
        yield f"  {plural(summary.rows_reworded, one, many)} new words"
    for stage, num in summary.stages_again.items():
        yield f"  the stage {stage} reads them: the next run with it computes it again for {plural(num, 'row')}"


def _quoted(value: str | None) -> str:
    if value is None:
        return "none"
    return repr(value if len(value) <= MAX_VALUE else f"{value[:MAX_VALUE]}...")


def changed_videos(num_videos: int, redone: int, dropped: int = 0) -> str:
    """Videos whose files were replaced before an ingest or a run, and what that means for their clips."""
    gone = f", {plural(dropped, 'clip is', 'clips are')} no longer in the list" if dropped else ""
    one, many = "row or reject of their old files was", "rows and rejects of their old files were"
    removed = f"{plural(redone, one, many)} removed"
    return f"changed videos {num_videos}: {removed}, their clips are done again{gone}"


def remove(summary) -> str:
    """What a removal removed, or would remove."""
    verb = "would remove" if summary.dry_run else "removed"
    counts = f"{plural(summary.rows, 'row')}, {plural(summary.rejects, 'reject')}"
    if summary.rows_only:
        lines = [f"{verb} {counts}; their clips stay in the list: `handloom run` makes them anew"]
    else:
        counts += f", {plural(summary.episodes, 'robot episode')}" if summary.episodes else ""
        left = f"{plural(summary.num_clips, 'clip')} {'would be ' if summary.dry_run else ''}left in the list"
        lines = [f"{verb} {plural(summary.listed, 'clip')} from the list, {counts}; {left}"]
    shown = summary.clip_ids if summary.dry_run else summary.clip_ids[:MAX_IDS]
    lines += [f"  {clip_id}" for clip_id in shown]
    if len(summary.clip_ids) > len(shown):
        lines.append(f"  ... and {len(summary.clip_ids) - len(shown)} more (--json lists all)")
    return "\n".join(lines)


def remove_notes(summary) -> Iterator[str]:
    """What a removal kept, and why."""
    if summary.kept_rows:
        one, many = "clip whose video is not there: it has a row", "clips whose video is not there: they have a row"
        yield f"kept {plural(summary.kept_rows, one, many)} (--where removes these, too)"
    for uri in summary.unknown_videos[:MAX_PROBLEMS]:
        yield f"kept: it is unknown whether {uri} exists"
    if len(summary.unknown_videos) > MAX_PROBLEMS:
        yield f"... and {len(summary.unknown_videos) - MAX_PROBLEMS} more such videos (--json lists all)"
    if summary.skills:
        were, their = ("skill was", "it keeps") if len(summary.skills) == 1 else ("skills were", "they keep")
        named = ", ".join(summary.skills)
        yield f"{len(summary.skills)} {were} learned from some of these clips and {their} what was learned: {named}"
        yield "  `handloom skill remove NAME` drops one, `handloom skill learn --replace` learns it from other clips"


def calibrate(summary, db: str) -> str:
    """What each group of clips shares, and what that means for their rows."""
    shown = [group for group in summary.groups if group.num_clips > 1]
    width = max([len(group.group) for group in shown] + [5])
    header = f"{'group':<{width}} {'clips':>6} {'measured':>8}  {'field of view':<20} focal length known to"
    lines = [header] if shown else []
    for group in shown:
        lines += _calibrated(group, width)
    if alone := len(summary.groups) - len(shown):
        wider = "" if summary.by == "all" else "; another --by makes larger groups"
        lines.append(f"{plural(alone, 'group is', 'groups are')} of one clip: nothing to share{wider}")
    if summary.ungrouped:
        lines.append(f"{plural(summary.ungrouped, 'clip has', 'clips have')} no known {summary.by}: left alone")
    if summary.robots:
        lines.append(f"{plural(summary.robots, 'clip is', 'clips are')} of robots: left alone")
    has = "would have" if summary.dry_run else "has" if summary.num_changed == 1 else "have"
    lines.append(f"{plural(summary.num_changed, 'clip')} of the list {has} another lens or hand size than before")
    if summary.rows:
        made = plural(summary.rows, "row was", "rows were") + " made with the old one"
        then = "would then compute" if summary.dry_run else "computes"
        lines.append(f"{made}: `handloom run --db {db} --recompute` {then} what depends on it again")
    if summary.kept_rows:
        made = plural(summary.kept_rows, "row stays as it is: its video is", "rows stay as they are: their videos are")
        lines.append(f"{made} missing")
    return "\n".join(lines)


def _calibrated(group, width: int) -> Iterator[str]:
    """The lines of one group."""
    lens, hand = group.lens, group.hand
    views, sigmas = _change(lens.before, lens.after, "{:.1f}°"), _change(lens.before_sigma, lens.after_sigma, "{:.1%}")
    yield f"{group.group:<{width}} {group.num_clips:>6} {lens.num_clips:>8}  {views:<20} {sigmas}"
    far, noted = [("°", one) for one in lens.far], [lens.note]
    if hand is not None and hand.num_clips:
        lengths = _change(hand.before, hand.after, "{:.3f} m")
        sigmas = _change(hand.before_sigma, hand.after_sigma, "{:.1%}")
        yield f"{'  hand length':<{width}} {'':>6} {hand.num_clips:>8}  {lengths:<20} {sigmas}"
        far, noted = [*far, *((" m", one) for one in hand.far)], [*noted, hand.note]
    yield from (f"    {note}" for note in noted if note)
    yield from (
        f"    disagrees: {one['clip_id']}, {one['says']:g}{unit}, by {one['sigmas']} sigma" for unit, one in far
    )
    if known := ", ".join(f"{why} {count}" for why, count in sorted(group.known.items())):
        yield f"    lens left alone: {known}"


def _change(before: float | None, after: float | None, form: str) -> str:
    shown = ["-" if value is None else form.format(value) for value in (before, after)]
    return shown[0] if after is None else " -> ".join(shown)


def robot_problems(summary) -> Iterator[str]:
    """The problems of an ingest of robot episodes: all of the dataset, a few of the episodes that are left out for each
    reason, and one line for each kind of note on episodes that are used."""
    from handloom.ingest.robot.source import LEFT_OUT, NOTES, WHAT_TO_DO

    shown: Counter[str] = Counter()
    noted: dict[str, list[str]] = {}
    for problem in summary.problems:
        match = re.match(r"episode -?\d+: (\w+): ", problem)
        if match is None:
            yield f"problem: {problem}"
        elif not problem.endswith(LEFT_OUT):
            noted.setdefault(match[1], []).append(problem.replace(f" {match[1]}:", "", 1))
        else:
            shown[match[1]] += 1
            if shown[match[1]] <= MAX_EPISODES:
                yield f"problem: {problem}"
    for reason, count in shown.items():
        if count > MAX_EPISODES:
            yield f"... and {count - MAX_EPISODES} more {reason} (--json lists all)"
    for name, lines in noted.items():
        todo = f"; {WHAT_TO_DO[name]}" if name in WHAT_TO_DO else ""
        others = " (--json lists all)" if len(lines) > 1 else ""
        yield f"note: {name}: noted {plural(len(lines), 'time')}: {NOTES[name]}{todo}; first: {lines[0]}{others}"


def robots(summary) -> str:
    """What an ingest of robot episodes changed, and what it left out."""
    counts, clips = summary.counts, summary.clips
    lines = [
        f"added {counts['added']}, replaced {counts['replaced']}, already there {counts['already_there']}, "
        f"left out {counts['skipped']} of {counts['listed']} listed: {plural(summary.num_episodes, 'episode')}",
        f"  clips: added {clips['added']}, changed {clips['changed']}: {summary.num_clips} in the list",
    ]
    if clips["changed_videos"]:
        lines.append(f"  {changed_videos(clips['changed_videos'], clips['redone'])}")
    lines += _changed_values(summary)
    for title, counted in (("left out", summary.skipped), ("noted", summary.notes)):
        if counted:
            lines.append(f"  {title}: " + ", ".join(f"{name} {count}" for name, count in counted.items()))
    return "\n".join([*_dry(summary), *lines])


def run(summary, db: str) -> str:
    """What a run did, what it rejected, and how to go on."""
    counts = [plural(summary.num_clips, "clip"), plural(summary.num_rejects, "reject")]
    rate = ""
    if summary.num_frames or not summary.stages:  # nothing is decoded for columns of columns
        counts.append(plural(summary.num_frames, "frame"))
        rate = f" ({summary.num_frames / summary.wall_s if summary.wall_s else 0.0:.1f} frames/s)"
    lines = [f"{', '.join(counts)} in {summary.wall_s:.1f} s{rate}"]
    if summary.changed_videos:
        lines.insert(0, changed_videos(summary.changed_videos, summary.redone))
    if summary.stages:
        first = {stage: num - summary.stages_again.get(stage, 0) for stage, num in summary.stages.items()}
        told = {"missing before": first, "outdated before": summary.stages_again}
        of_stages = [f"; {when}: {_counted(counts)}" for when, counts in told.items() if any(counts.values())]
        lines.append(f"{plural(summary.num_updates, 'row')} got new columns{''.join(of_stages)}")
    if summary.num_stage_rejects:
        failed = plural(summary.num_stage_rejects, "time")
        lines.append(f"a stage failed on a row {failed}: `handloom status --db {db}` shows where and why")
    if summary.left_out:
        listed = ", ".join(f"{stage} {count}" for stage, count in summary.left_out.items())
        lines.append(
            f"rows that lack a stage, as it reads columns of older stage keys: {listed}; "
            f"compute both with: handloom run --db {db} --recompute"
        )
    if summary.exit == "done" and not summary.num_clips and not summary.stages:
        lines.append("there was no clip to process")
    if summary.reasons:
        lines.append("rejected: " + ", ".join(f"{reason} {count}" for reason, count in sorted(summary.reasons.items())))
    lines += [f"left node {host}: {why}" for host, why in summary.left_nodes.items()]
    if summary.exit == "interrupted":
        lines.append(
            f"interrupted: what was finished is committed, {plural(summary.num_pending, 'clip is', 'clips are')} left"
        )
    if summary.reasons.get("video_missing"):
        none = not summary.num_clips and set(summary.reasons) == {"video_missing"}
        lines.append(
            f"{'no video was there' if none else 'for the videos that were missing'}: fetch them, or ingest again with "
            f"their folder; then: handloom run --db {db} --retry-rejects --reason video_missing"
        )
        if none and summary.exit != "interrupted":
            return "\n".join(lines)
    if summary.exit == "interrupted" or summary.num_pending:
        lines.append(f"go on with: handloom run --db {db}")
    return "\n".join(lines)


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{stage} {count}" for stage, count in counts.items() if count)


def clip_state(found) -> str:
    """One line of the list of clips."""
    return f"{found.reason or found.state:<16}  {found.clip_id}  {_times(found)}  {_words(found)}"


def _times(found) -> str:
    end = "end" if found.end_s is None else f"{found.end_s:.2f}"
    return f"{found.start_s:.2f}-{end} s"


def _words(found) -> str:
    return words_of(found.narration, found.verb, found.noun) or "-"


def hit(found) -> str:
    """One line of a search."""
    times = _times(found)
    captions = [_shortened(caption) for caption in found.more.values() if caption]
    words = words_of(found.narration, found.verb, found.noun) or " ".join(captions) or "-"
    score = f"{'-':>8}" if math.isnan(found.score) else f"{found.score:8.4f}"
    line = f"{score}  {found.clip_id}  {times}  {words}  {found.video_uri}"
    if found.match_start_s is not None:
        line += f"  at {found.match_start_s:.2f}-{found.match_end_s:.2f} s"
    if found.parts and found.parts.keys() != {"motion"}:
        line += "  [" + ", ".join(f"{name} {_part(part)}" for name, part in found.parts.items()) + "]"
    if found.score < 0 and any(name.endswith(("words", "meaning")) for name in found.parts):
        line += "  (an opposite action)"
    return line


def _shortened(caption: str) -> str:
    """Of one line: what a model writes may hold line ends, and codes that control the terminal."""
    plain = "".join(letter if letter.isprintable() else " " for letter in caption)
    return f'"{shorten(plain, MAX_CAPTION, placeholder=" ...")}"'


def _part(part) -> str:
    return f"{part.score:.3f}" + ("" if part.rank is None else f" #{part.rank}")


def hits_json(hits) -> dict[str, Any]:
    """The result of a search as JSON values."""
    found = []
    for hit in hits:
        one = {name: value for name, value in vars(hit).items() if name != "more"}
        one["score"] = None if math.isnan(hit.score) else hit.score
        one |= {"captions": dict(hit.more)} if hit.more else {}
        found.append(one | {"parts": {name: part._asdict() for name, part in hit.parts.items()}})
    facts = {"version": hits.version, "exact": hits.exact, "scoring": hits.scoring, "unused": dict(hits.unused)}
    facts["num_duplicates"] = hits.num_duplicates
    return facts | {"num_with": hits.num_with, "num_without": hits.num_without, "hits": found}


_SCORES = {
    "rrf": "sum of reciprocal ranks, in brackets score and rank of each part",
    "weights": "sum of weighted scores, in brackets score and rank of each part",
    "cosine": "cosine, 1 is the best there can be",
    "bm25": "BM25 of the words, which has no best value",
    "moment": "1 / (1 + distance) of the movements, 1 is equal",
    "motion": "1 / (1 + distance) of what moves in the clips, 1 is equal",
    "arvrm": "AR-VRM's sum of cosines of text and images",
}
"""By `Hits.scoring`."""


def search_notes(hits, by: list[str] | None) -> Iterator[str]:
    """What a search left out, and why."""
    if hits.num_with is not None and hits.num_without:
        name = (by or ["motion"])[0].partition("=")[0]
        yield f"{hits.num_without} of {hits.num_with + hits.num_without} clips have no {name} embedding"
    for part, reason in hits.unused.items():
        yield f"not used: {part}: {reason}"
    if hits.num_duplicates is not None:
        yield f"{plural(hits.num_duplicates, 'near-duplicate')} of better clips left out"
    if hits and hits.scoring == "listed":
        more = f"; the first {len(hits)} are listed, -k lists more" if hits.num_with > len(hits) else ""
        yield f"{plural(hits.num_with, 'clip passes', 'clips pass')} --where{more}"
    elif hits:
        yield f"score: {_SCORES[hits.scoring]}"


def finding(found) -> str:
    """One line of the doctor."""
    remedy = f"  ->  {found.remedy}" if found.remedy and found.state != "ok" else ""
    return f"{found.state:<9} {found.name:<24} {found.detail}{remedy}"
