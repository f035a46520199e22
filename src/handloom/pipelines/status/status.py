"""`handloom status`: counts, speed, and rejects by reason; or the state of every clip."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from handloom.api import Database
from handloom.pipelines.index import duplicate_lines, duplicates_json, index_counts, index_lines
from handloom.pipelines.status.runs import run_json, run_lines
from handloom.pipelines.status.totals import (
    TRUSTED,
    lenses,
    metric_sources,
    odd,
    read_totals,
    sum_of,
    trusts,
    with_default_lens,
)
from handloom.plural import plural
from handloom.schemas.tables.arrow import VERDICTS
from handloom.schemas.tables.duplicates import STAGE as DUPLICATES
from handloom.schemas.tables.reject import REASONS
from handloom.schemas.tables.robot import PEOPLE
from handloom.schemas.values import WORLD_SCALES
from handloom.store.clips.changed_inputs import fields_text, outdated_rows
from handloom.store.clips.commit import done_ids, num_pending
from handloom.store.embodiment import robot_datasets
from handloom.store.episodes import read_episodes
from handloom.store.filters import stages_of
from handloom.store.runs.runs import latest_run, newest_of_stages
from handloom.store.stages.rejects import count_rejects, example_rejects
from handloom.store.stages.row_keys import Spread, key_spread, mixed

NUM_EXAMPLES = 3


@dataclass(frozen=True)
class ClipState:
    """One clip of the list. state: `row`, `rejected` (with its `reason`) or `pending`."""

    clip_id: str
    state: str
    reason: str | None
    start_s: float
    end_s: float | None
    narration: str | None
    verb: str | None
    noun: str | None
    video_uri: str


def clip_states(db: Database) -> list[ClipState]:
    """The clips in the order of the list. Raises StoreError if the database cannot be read."""
    done, rejects = done_ids(db), db.rejects()
    lost: dict[str, str] = {}
    if rejects.num_rows:
        pairs = (rejects.column(name).to_pylist() for name in ("clip_id", "reason"))
        lost = dict(zip(*pairs, strict=True))
    columns = ("clip_id", "start_s", "end_s", "narration", "verb", "noun", "video_uri")
    listed = db.read("clip_list", columns)
    return [
        ClipState(clip_id, _clip_state(clip_id, done, lost), lost.get(clip_id), *rest)
        for clip_id, *rest in zip(*(listed.column(name).to_pylist() for name in columns), strict=True)
    ]


def _clip_state(clip_id: str, done: set[str], lost: dict[str, str]) -> str:
    return "row" if clip_id in done else "rejected" if clip_id in lost else "pending"


def status(db: Database) -> dict[str, Any]:
    """Everything that `handloom status` reports, as JSON values."""
    rejects = db.rejects().to_pylist() if db.table("rejects") is not None else []
    by_reason = Counter((r["stage"], r["reason"]) for r in rejects)
    examples: dict[tuple[str, str], list[dict[str, str]]] = {}
    for reject in rejects:
        shown = examples.setdefault((reject["stage"], reject["reason"]), [])
        if len(shown) < NUM_EXAMPLES:
            shown.append({"clip_id": reject["clip_id"], "detail": reject["detail"]})
    robots = robot_datasets(db)
    totals, table = read_totals(db), db.table("clips")
    people = totals
    if totals is not None and robots:
        of_robots = pc.is_in(totals.column("dataset"), value_set=pa.array(robots, pa.string()))
        people = totals.filter(pc.invert(of_robots))
    scales = Counter(totals.column("world_scale").to_pylist() if totals is not None else ())
    sources, presets = lenses(totals)
    run = latest_run(db)
    outdated = outdated_rows(db)
    newest = newest_of_stages(db)
    keys = None if newest is None else json.loads(newest.stage_keys or "{}")
    failed = example_rejects(db, NUM_EXAMPLES, keys)
    spread = {} if table is None else key_spread(table, [s for s in stages_of(table.schema) if s != DUPLICATES])
    return {
        "db": db.uri,
        "version": db.version,
        "clip_list": db.count("clip_list"),
        "clips": totals.num_rows if totals is not None else 0,
        "rejects": len(rejects),
        "pending": num_pending(db),
        "outdated": None if outdated is None else len(outdated),
        "outdated_examples": list(outdated or ())[:NUM_EXAMPLES],
        "outdated_fields": dict(Counter(name for fields in (outdated or {}).values() for name in sorted(fields))),
        "frames": sum_of(totals, "num_frames"),
        "hours": round(sum_of(totals, "duration_s") / 3600, 6),
        "clips_of_people": people.num_rows if people is not None else 0,
        "clips_of_robots": totals.num_rows - people.num_rows if totals is not None and people is not None else 0,
        **_episodes(db),
        "clips_with_left_hand": sum_of(people, "hand_left"),
        "clips_with_right_hand": sum_of(people, "hand_right"),
        "clips_by_world_scale": {scale: scales[scale] for scale in WORLD_SCALES},
        "clips_in_metres_by_source": metric_sources(totals),
        "clips_by_camera_source": sources,
        "clips_by_camera_preset": presets,
        "clips_with_default_camera": with_default_lens(totals),
        "share_with_assumed_camera": sources["assumed"] / sum(sources.values()) if sum(sources.values()) else None,
        "clips_by_metric_trust": trusts(totals),
        **odd(totals),
        "rejects_by_reason": [
            {
                "stage": stage,
                "reason": reason,
                "meaning": REASONS.get(reason, ""),
                "count": count,
                "examples": examples[stage, reason],
            }
            for (stage, reason), count in by_reason.most_common()
        ],
        "indexes": index_counts(db),
        "duplicates": duplicates_json(db),
        "rows_without_stage": {stage: counts[None] for stage, counts in spread.items() if counts[None]},
        "stages_of_several_keys": _several(spread),
        "stage_rejects_by_reason": [
            {
                "stage": stage,
                "reason": reason,
                "meaning": REASONS.get(reason, ""),
                "count": count,
                "examples": failed[stage, reason],
            }
            for (stage, reason), count in count_rejects(db, keys).items()
        ],
        "judgements": _judgements(db),
        "last_run": run_json(run) if run else None,
    }


def _judgements(db: Database) -> dict[str, int]:
    """How many clips people found good and bad, and how many of these have no row any more."""
    rows = db.read("judgements", ["clip_id", "verdict"])
    if not rows.num_rows:
        return {**dict.fromkeys(VERDICTS, 0), "without_row": 0}
    there = db.clips(["clip_id"]).column("clip_id") if db.table("clips") is not None else pa.array([], pa.string())
    without = pc.invert(pc.is_in(rows.column("clip_id"), value_set=pa.array(there.to_pylist(), pa.string())))
    verdicts = Counter(rows.column("verdict").to_pylist())
    return {**{verdict: verdicts[verdict] for verdict in VERDICTS}, "without_row": pc.sum(without).as_py()}


def status_text(values: dict[str, Any]) -> str:
    """The result of `status` as text."""
    scales = values["clips_by_world_scale"]
    left, metric = plural(values["clips_with_left_hand"], "clip"), plural(scales["metric"], "clip")
    robots = _robots(values)
    lines = [
        f"{values['db']}  (version {values['version'] if values['version'] is not None else '-'})",
        f"  clip list {values['clip_list']:>8}   rows {values['clips']}, rejects {values['rejects']}, "
        f"pending {values['pending']}",
        f"  frames    {values['frames']:>8}   {round(values['hours'], 3)} h of video",
        *robots,
        f"  hands     left in {left}, right in {values['clips_with_right_hand']}" + (", of people" if robots else ""),
        *_odd_lines(values),
        f"  cameras   poses in metres in {metric}{_of_sources(values['clips_in_metres_by_source'])}, "
        f"of arbitrary scale in {scales['arbitrary']}, none in {scales['none']}",
        *_lens_lines(values),
        *_metre_lines(values),
        *_judgement_lines(values["judgements"], values["db"]),
        *index_lines(values["indexes"], values["db"]),
        *duplicate_lines(values["duplicates"], values["db"]),
    ]
    run = values["last_run"]
    lines += [] if run is None else run_lines(run)
    if values["pending"] and not (run and run["exit"] is None):
        lines.append(
            f"{plural(values['pending'], 'clip is', 'clips are')} pending; go on with: handloom run --db {values['db']}"
        )
    if values["outdated"]:
        made = plural(values["outdated"], "row was", "rows were")
        lines += [
            f"{made} made with another {fields_text(values['outdated_fields'])} than the clip list has now, "
            f"{values['outdated_examples'][0]} for one:",
            f"  what depends on it is computed again by: handloom run --db {values['db']} --recompute",
        ]
    if values["rejects_by_reason"]:
        lines.append("rejected, and why:")
    for item in values["rejects_by_reason"]:
        lines.append(f"  {item['count']:>5}  {item['stage']}/{item['reason']}: {item['meaning']}")
        lines += [f"         {e['clip_id']}: {e['detail'].splitlines()[0]}" for e in item["examples"]]
        lines += [f"         {hint}" for hint in _hints(item["examples"])]
    return "\n".join([*lines, *_stage_lines(values)])


def _several(spread: Spread) -> dict[str, str]:
    """How many rows have which key, of stages with several keys."""
    return {stage: mixed({stage: counts}).partition(": ")[2] for stage, counts in spread.items() if len(counts) > 1}


def _stage_lines(values: dict[str, Any]) -> list[str]:
    """Stages that some rows lack or have with different keys, and stages that failed on rows."""
    lines = []
    if several := values["stages_of_several_keys"]:
        lines.append(
            f"rows differ in the keys of {', '.join(several)}: `handloom stages --db {values['db']}` counts them"
        )
    if failed := values["stage_rejects_by_reason"]:
        lines.append("stages that failed on clips with a row (run with --retry-rejects tries them again):")
    for one in failed:
        lines.append(f"  {one['count']:>5}  {one['stage']}/{one['reason']}: {one['meaning']}")
        for example in one["examples"]:
            told = example["detail"].split("\nhint: ")[0].splitlines()
            lines += [f"         {example['clip_id']}: {told[0]}", *(f"         {line}" for line in told[1:3])]
        lines += [f"         {hint}" for hint in _hints(one["examples"])]
    return lines


def _hints(examples: list[dict[str, str]]) -> list[str]:
    """The hints in the rejects' details, each once."""
    lines = [line for example in examples for line in example["detail"].splitlines()[1:] if line.startswith("hint: ")]
    return list(dict.fromkeys(lines))


def _of_sources(sources: dict[str, int]) -> str:
    return f" ({sources['given']} given, {sources['estimated']} estimated)" if sum(sources.values()) else ""


def _lens_lines(values: dict[str, Any]) -> list[str]:
    sources, share = values["clips_by_camera_source"], values["share_with_assumed_camera"]
    if share is None:
        return []
    assumed = f" ({share:.0%} of the clips)" if sources["assumed"] else ""
    presets = ", ".join(f"{name} {count}" for name, count in values["clips_by_camera_preset"].items())
    lines = [
        f"  lenses    intrinsics given in {plural(sources['given'], 'clip')}, estimated in {sources['estimated']}, "
        f"assumed in {sources['assumed']}{assumed}{f'; presets: {presets}' if presets else ''}"
    ]
    if bare := values["clips_with_default_camera"]:
        lines.append(
            f"            the lens of {plural(bare, 'clip')} is unknown, distances are in proportion to a guess: give "
            "it when you ingest, --camera-preset, --fov-deg or --intrinsics; clips of one camera measure it better "
            "together: handloom calibrate"
        )
    return lines


def _judgement_lines(counts: dict[str, int], uri: str) -> list[str]:
    judged = sum(counts[verdict] for verdict in VERDICTS)
    if not judged:
        return []
    told = ", ".join(f"{verdict} {counts[verdict]}" for verdict in VERDICTS)
    lost = counts["without_row"]
    more = f"; {plural(lost, 'clip has', 'clips have')} no row now (handloom judgements --db {uri})" if lost else ""
    return [f"  judged    {judged:>8}   {told}{more}"]


def _odd_lines(values: dict[str, Any]) -> list[str]:
    cuts, views = values["clips_with_cuts"], values["clips_with_other_view"]
    lines = []
    if cuts:
        lines.append(f"  cuts      in {plural(cuts, 'clip')} another shot begins (quality.num_cuts, flag CUT)")
    if views:
        lines.append(
            f"  views     the images of {plural(views, 'clip')} contradict the given --view (view <> hand_view)"
        )
    return lines


def _metre_lines(values: dict[str, Any]) -> list[str]:
    trusts = values["clips_by_metric_trust"]
    if not trusts["likely"] and not trusts["unlikely"]:
        return []
    likely = plural(trusts["likely"], "clip")
    return [
        f"  metres    distances within 20 % of the truth: likely ({TRUSTED:g} or more) in {likely}, less so in "
        f"{trusts['unlikely']}, not known in {trusts['unknown']}"
    ]


def _episodes(db: Database) -> dict[str, Any]:
    """Episodes of robots, those of people's hands (`export interactions` and `export lerobot`), and their datasets."""
    rows = read_episodes(db, ["dataset", "robot_type"])
    pairs = zip(*(rows.column(name).to_pylist() for name in rows.column_names), strict=True)
    counts: dict[bool, Counter[str]] = {True: Counter(), False: Counter()}
    for dataset, robot_type in pairs:
        counts[robot_type in PEOPLE][dataset] += 1
    return {
        f"{name}_{what}": found
        for name, of in (("robot", counts[False]), ("human", counts[True]))
        for what, found in (("episodes", of.total()), ("datasets", sorted(of)))
    }


def _robots(values: dict[str, Any]) -> list[str]:
    """Clips of people and of robots, and episodes of both; no line where there are none."""
    robots, people = values["robot_datasets"], values["human_datasets"]
    lines = []
    if robots or values["clips_of_robots"]:
        lines.append(f"  rows      of people {values['clips_of_people']}, of robots {values['clips_of_robots']}")
    if robots:
        lines.append(f"  robots  {values['robot_episodes']:>10}   episodes of {', '.join(robots)}")
    if people:
        lines.append(f"  people  {values['human_episodes']:>10}   episodes of people's hands: {', '.join(people)}")
    return lines
