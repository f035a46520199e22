"""`handloom status`: how many, how fast, what was lost and why."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from handloom.api import Database
from handloom.plural import plural
from handloom.schemas.tables.reject import REASONS
from handloom.schemas.tables.robot import TABLE as ROBOT_EPISODES
from handloom.schemas.values import CAMERA_SOURCES, WORLD_SCALES
from handloom.store.clips.clip_list import pending_clips
from handloom.store.clips.row_words import outdated_rows
from handloom.store.embodiment import robot_datasets
from handloom.store.runs.holder import Holder
from handloom.store.runs.runs import latest_run

NUM_EXAMPLES = 3
UNSAID = "camera_source = 'assumed' AND camera IS NULL"
TRUST, TRUSTED = "metric_trust", 0.7
"""`quality.metric_trust` from which on distances count as likely: known to 19 % or better."""
COLUMNS = (
    *("dataset", "num_frames", "duration_s", "hand_left", "hand_right"),
    *("world_scale", "camera_path_source", "camera_source", "camera_preset"),
)


def status(db: Database) -> dict[str, Any]:
    """Everything `handloom status` tells, as JSON values."""
    rejects = db.rejects().to_pylist() if db.table("rejects") is not None else []
    by_reason = Counter((r["stage"], r["reason"]) for r in rejects)
    examples: dict[tuple[str, str], list[dict[str, str]]] = {}
    for reject in rejects:
        shown = examples.setdefault((reject["stage"], reject["reason"]), [])
        if len(shown) < NUM_EXAMPLES:
            shown.append({"clip_id": reject["clip_id"], "detail": reject["detail"]})
    robots = robot_datasets(db)
    table = db.table("clips")
    there = () if table is None else table.schema.names  # rows before 0.4 have no camera_preset
    totals = db.clips([name for name in COLUMNS if name in there]) if table is not None else None
    people = totals
    if totals is not None and robots:
        of_robots = pc.is_in(totals.column("dataset"), value_set=pa.array(robots, pa.string()))
        people = totals.filter(pc.invert(of_robots))
    scales = Counter(totals.column("world_scale").to_pylist() if totals is not None else ())
    sources, presets = _lenses(totals)
    run = latest_run(db)
    outdated = outdated_rows(db)
    return {
        "db": db.uri,
        "version": db.version,
        "clip_list": db.count("clip_list"),
        "clips": totals.num_rows if totals is not None else 0,
        "rejects": len(rejects),
        "pending": len(pending_clips(db)),
        "outdated": None if outdated is None else len(outdated),
        "outdated_examples": (outdated or [])[:NUM_EXAMPLES],
        "frames": _sum(totals, "num_frames"),
        "hours": round(_sum(totals, "duration_s") / 3600, 3),
        "clips_of_people": people.num_rows if people is not None else 0,
        "clips_of_robots": totals.num_rows - people.num_rows if totals is not None else 0,
        "robot_episodes": db.count(ROBOT_EPISODES),
        "robot_datasets": list(robots),
        "clips_with_left_hand": _sum(people, "hand_left"),
        "clips_with_right_hand": _sum(people, "hand_right"),
        "clips_by_world_scale": {scale: scales[scale] for scale in WORLD_SCALES},
        "clips_in_metres_by_source": _metric_sources(totals),
        "clips_by_camera_source": sources,
        "clips_by_camera_preset": presets,
        "clips_with_default_camera": db.count("clips", UNSAID) if sources["assumed"] else 0,
        "share_with_assumed_camera": sources["assumed"] / sum(sources.values()) if sum(sources.values()) else None,
        "clips_by_metric_trust": _trusts(db),
        **_odd(db),
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
        "last_run": _run(run) if run else None,
    }


def status_text(values: dict[str, Any]) -> str:
    """The same for a person."""
    scales = values["clips_by_world_scale"]
    left, metric = plural(values["clips_with_left_hand"], "clip"), plural(scales["metric"], "clip")
    lines = [
        f"{values['db']}  (version {values['version'] if values['version'] is not None else '-'})",
        f"  clip list {values['clip_list']:>8}   rows {values['clips']}, rejects {values['rejects']}, "
        f"pending {values['pending']}",
        f"  frames    {values['frames']:>8}   {values['hours']} h of video",
        *_robots(values),
        f"  hands     left in {left}, right in {values['clips_with_right_hand']}"
        + (", of people" if values["robot_datasets"] else ""),
        *_odd_lines(values),
        f"  cameras   poses in metres in {metric}{_of_sources(values['clips_in_metres_by_source'])}, "
        f"of arbitrary scale in {scales['arbitrary']}, none in {scales['none']}",
        *_lens_lines(values),
        *_metre_lines(values),
    ]
    run = values["last_run"]
    if run:
        lines.append(f"last run {run['run_id']}, begun {run['started_at']}: {_state(run)}")
    if run and run["wall_s"]:
        lines.append(
            f"  {plural(run['clips'], 'clip')}, {plural(run['rejects'], 'reject')}, "
            f"{plural(run['frames'], 'frame')} in {run['wall_s']:.1f} s: {run['frames_per_s']:.1f} frames/s"
        )
        shares = ", ".join(f"{stage} {seconds:.1f}" for stage, seconds in run["stage_s"].items())
        lines.append(f"  seconds per stage, summed over actors: {shares}")
    if run:
        lines += [f"  left node {host}: {why}" for host, why in run["left_nodes"].items()]
    if values["pending"] and not (run and run["exit"] is None):
        lines.append(
            f"{plural(values['pending'], 'clip is', 'clips are')} pending; go on with: handloom run --db {values['db']}"
        )
    if values["outdated"]:
        made = plural(values["outdated"], "row was", "rows were")
        lines += [
            f"{made} made with another camera, view or hand size than the clip list has now, "
            f"{values['outdated_examples'][0]} for one:",
            "  ingest again as last time, with --replace: that removes them, and the next run makes them anew",
        ]
    if values["rejects_by_reason"]:
        lines.append("lost, and why:")
    for item in values["rejects_by_reason"]:
        lines.append(f"  {item['count']:>5}  {item['stage']}/{item['reason']}: {item['meaning']}")
        lines += [f"         {e['clip_id']}: {e['detail'].splitlines()[0]}" for e in item["examples"]]
        lines += [f"         {hint}" for hint in _hints(item["examples"])]
    return "\n".join(lines)


def _hints(examples: list[dict[str, str]]) -> list[str]:
    """What the rejects' details say that may be done, each once."""
    lines = [line for example in examples for line in example["detail"].splitlines()[1:] if line.startswith("hint: ")]
    return list(dict.fromkeys(lines))


def _lenses(totals: pa.Table | None) -> tuple[dict[str, int], dict[str, int]]:
    """Clips by where their intrinsics come from, and by the preset they were made from."""
    names = () if totals is None else totals.schema.names
    sources = Counter(totals.column("camera_source").to_pylist() if "camera_source" in names else ())
    presets = Counter(totals.column("camera_preset").to_pylist() if "camera_preset" in names else ())
    presets.pop(None, None)
    return {source: sources[source] for source in CAMERA_SOURCES}, dict(presets.most_common())


def _metric_sources(totals: pa.Table | None) -> dict[str, int]:
    """Clips whose path is in metres, by where that path comes from."""
    if totals is None or "camera_path_source" not in totals.schema.names:
        return {"given": 0, "estimated": 0}
    pairs = zip(totals.column("world_scale").to_pylist(), totals.column("camera_path_source").to_pylist(), strict=True)
    found = Counter(source for scale, source in pairs if scale == "metric")
    return {source: found[source] for source in ("given", "estimated")}


def _of_sources(sources: dict[str, int]) -> str:
    return f" ({sources['given']} given, {sources['estimated']} estimated)" if sum(sources.values()) else ""


def _lens_lines(values: dict[str, Any]) -> list[str]:
    sources, share = values["clips_by_camera_source"], values["share_with_assumed_camera"]
    if share is None:
        return []
    assumed = f", {share:.0%} of all" if sources["assumed"] else ""
    presets = ", ".join(f"{name} {count}" for name, count in values["clips_by_camera_preset"].items())
    lines = [
        f"  lenses    intrinsics given in {plural(sources['given'], 'clip')}, estimated in {sources['estimated']}, "
        f"assumed in {sources['assumed']}{assumed}{f'; presets: {presets}' if presets else ''}"
    ]
    if bare := values["clips_with_default_camera"]:
        lines.append(
            f"            nothing says the lens of {plural(bare, 'clip')}, distances are in proportion to a guess: say "
            "it when you ingest, --camera-preset, --fov-deg or --intrinsics; clips of one camera tell more together: "
            "handloom calibrate"
        )
    return lines


def _trusts(db: Database) -> dict[str, int]:
    """Clips whose distances are likely within 20 % of the truth, less likely, or of which that is not known."""
    table = db.table("clips")
    if table is None or table.schema.field("quality").type.get_field_index(TRUST) < 0:  # rows before 0.4
        return {"likely": 0, "unlikely": 0, "unknown": db.count("clips")}
    likely, known = (
        db.count("clips", f"quality.{TRUST} >= {TRUSTED}"),
        db.count("clips", f"quality.{TRUST} IS NOT NULL"),
    )
    return {"likely": likely, "unlikely": known - likely, "unknown": db.count("clips") - known}


def _odd(db: Database) -> dict[str, int]:
    """Clips of several shots, and those whose pictures spoke against the view that was given."""
    table = db.table("clips")
    has_cuts = table is not None and table.schema.field("quality").type.get_field_index("num_cuts") >= 0
    has_view = table is not None and {"view", "hand_view"} <= set(table.schema.names)  # rows before 0.4 may lack them
    return {
        "clips_with_cuts": db.count("clips", "quality.num_cuts > 0") if has_cuts else 0,
        "clips_with_other_view": db.count("clips", "view <> hand_view") if has_view else 0,
    }


def _odd_lines(values: dict[str, Any]) -> list[str]:
    cuts, views = values["clips_with_cuts"], values["clips_with_other_view"]
    lines = []
    if cuts:
        lines.append(f"  cuts      in {plural(cuts, 'clip')} another shot begins (quality.num_cuts, flag CUT)")
    if views:
        lines.append(
            f"  views     the pictures of {plural(views, 'clip')} speak against the given --view (view <> hand_view)"
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


def _robots(values: dict[str, Any]) -> list[str]:
    """Whose the clips are, where there are robots."""
    if not values["robot_datasets"]:
        return []
    return [
        f"  rows      of people {values['clips_of_people']}, of robots {values['clips_of_robots']}",
        f"  robots  {values['robot_episodes']:>10}   episodes of {', '.join(values['robot_datasets'])}",
    ]


def _sum(table, column: str):
    if table is None or not table.num_rows:
        return 0
    return sum(value for value in table.column(column).to_pylist() if value is not None)


def _holder(run) -> dict[str, Any] | None:
    """Who runs it, and whether that process has gone: null where it cannot be seen from here."""
    if run.holder is None:
        return None
    holder = Holder.from_json(run.holder)
    return {
        "host": holder.host,
        "pid": holder.pid,
        "user": holder.user,
        "where": holder.where,
        "gone": holder.has_gone(),
    }


def _state(run: dict[str, Any]) -> str:
    holder = run["holder"]
    if run["exit"] or holder is None:
        return run["exit"] or "running, or killed"
    who = f"on host {holder['host']}, process {holder['pid']}, user {holder['user']}"
    return f"{'died' if holder['gone'] else 'running'} {who}; last heartbeat {run['heartbeat_at']}"


def _run(run) -> dict[str, Any]:
    stage_s = json.loads(run.stage_s) if run.stage_s else {}
    rate = run.num_frames / run.wall_s if run.wall_s and run.num_frames is not None else None
    return {
        "run_id": run.run_id,
        "run_key": run.run_key,
        "started_at": run.started_at.isoformat(timespec="seconds"),
        "exit": run.exit,
        "holder": _holder(run),
        "heartbeat_at": run.heartbeat_at.isoformat(timespec="seconds") if run.heartbeat_at else None,
        "clips": run.num_clips,
        "rejects": run.num_rejects,
        "frames": run.num_frames,
        "wall_s": run.wall_s,
        "frames_per_s": rate,
        "left_nodes": json.loads(run.left_nodes) if run.left_nodes else {},
        "stage_s": {stage: round(seconds, 2) for stage, seconds in stage_s.items()},
    }
