"""A dataset card (README.md) for an export: content, sources, licences, quality, limits.

The front matter is what the Hugging Face hub reads (hub-docs, `datasetcard.md`).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from handloom import __version__
from handloom.plural import plural
from handloom.schemas.tables.arrow import QUALITY_FIELDS
from handloom.schemas.tables.robot import TABLE as ROBOT_EPISODES
from handloom.schemas.tables.stage_columns import KEY_PREFIX, key_column, owner_of

TALLIED = (
    "dataset",
    "licence",
    "num_frames",
    "duration_s",
    "narration",
    "world_scale",
    "camera_source",
    "camera_model",
    "camera_distortion",
    "track_depth_source",
    "quality",
    "robot_type",
    "task",
    "fps",
)
UNKNOWN = "unknown"
# Licences by the hub's names: https://huggingface.co/docs/hub/repositories-licenses
HUB_LICENCES = {
    "apache-2.0",
    "mit",
    "bsd-3-clause",
    "cc0-1.0",
    "cc-by-4.0",
    "cc-by-sa-4.0",
    "cc-by-nc-4.0",
    "cc-by-nc-sa-4.0",
    "cc-by-nc-nd-4.0",
    "cc-by-nd-4.0",
    "odc-by",
    "odbl",
}
SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
SHOWN_QUALITY = (
    "hand_coverage",
    "hand_jitter_px",
    "hand_jitter_mm",
    "track_survival",
    "track_mean_visible",
    "camera_coverage",
    "share_flagged",
    "duplicate_share",
)
"""Shown first; every other quality number that is known follows."""


def tallied(schema: pa.Schema, source: Mapping[str, Any]) -> list[str]:
    """Columns that a tally reads of rows of which an export may leave out some: `TALLIED`, and the keys of the stages
    in `source`."""
    keys = {key_column(stage) for stage in source.get("rows_of_key", ())}
    return [name for name in schema.names if name in TALLIED or name in keys]


@dataclass
class CardTally:
    """Counts and quality numbers of the exported rows. Memory grows by a few numbers a row.

    num_episodes: that were made of them; None: each row is one.
    """

    sources: Counter[str] = field(default_factory=Counter)
    licences: dict[str, Counter[str]] = field(default_factory=dict)
    world_scale: Counter[str] = field(default_factory=Counter)
    camera_source: Counter[str] = field(default_factory=Counter)
    lens: Counter[str] = field(default_factory=Counter)
    depth_source: Counter[str] = field(default_factory=Counter)
    weights: dict[str, tuple[str, str]] = field(default_factory=dict)
    """`{column: (stage, licence of its weights)}` of the columns that name a licence."""
    stage_keys: dict[str, Counter[str | None]] = field(default_factory=dict)
    """Rows by the key that made each stage's columns; None: not computed."""
    num_rows: int = 0
    num_episodes: int | None = None
    num_frames: int = 0
    num_without_text: int = 0
    duration_s: float = 0.0
    quality: dict[str, list[float]] = field(default_factory=dict)

    def add(self, row: Mapping[str, Any]) -> None:
        """Count one row of `clips` or `robot_episodes`: its values of `TALLIED`, and the keys of its stages."""
        dataset = row["dataset"]
        self.num_rows += 1
        self.num_frames += row["num_frames"]
        duration_s = row.get("duration_s")
        self.duration_s += row["num_frames"] / row["fps"] if duration_s is None else duration_s
        self.sources[dataset] += 1
        self.licences.setdefault(row.get("licence") or UNKNOWN, Counter())[dataset] += 1
        for name, counter in (("world_scale", self.world_scale), ("camera_source", self.camera_source)):
            if name in row:
                counter[row[name] or "none"] += 1
        if "camera_distortion" in row:
            self.lens["pinhole" if row["camera_distortion"] is None else row.get("camera_model") or "opencv"] += 1
        if "track_depth_source" in row:
            self.depth_source[row["track_depth_source"] or "none"] += 1
        self.num_without_text += not (row.get("narration") or row.get("task"))
        for name, value in (row.get("quality") or {}).items():
            if value is not None and np.isfinite(value):
                self.quality.setdefault(name, []).append(float(value))

        for name in (name for name in row if name.startswith(KEY_PREFIX)):
            self.stage_keys.setdefault(name.removeprefix(KEY_PREFIX), Counter())[row[name]] += 1

    def add_all(self, batch: pa.RecordBatch) -> None:
        """Count the rows of a batch."""
        for column in batch.schema:
            if licence := (column.metadata or {}).get(b"licence"):
                self.weights[column.name] = (owner_of(column) or "", licence.decode())
        names = [name for name in batch.schema.names if name in TALLIED or name.startswith(KEY_PREFIX)]
        for row in batch.select(names).to_pylist():
            self.add(row)

    def over(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """The same batches, counted as they pass."""
        for batch in batches:
            self.add_all(batch)
            yield batch


@dataclass(frozen=True)
class Card:
    """The content of a card besides the tally.

    form: the format's name. title: of the page. layout: how the files are laid out and read, in Markdown. data_files:
    pattern for the hub's viewer, None where it cannot read the files. source: as in `index.json`: table, version,
    where, run_key, settings, versions, licences. limits: what is wrong or missing in the data. tags: beside handloom's.
    """

    form: str
    title: str
    layout: str
    source: Mapping[str, Any]
    data_files: str | None = None
    limits: Sequence[str] = ()
    tags: Sequence[str] = ()

    def text(self, tally: CardTally) -> str:
        """README.md."""
        read = {stage: tally.stage_keys.get(stage, keys) for stage, keys in self.source.get("rows_of_key", {}).items()}
        source = {**self.source, "rows_of_key": read}
        parts = [
            _front_matter(self, tally),
            f"# {self.title}",
            _summary(tally, self.source),
            "## Files",
            self.layout.strip(),
        ]
        parts += ["## Sources and licences", _sources(tally), _licence_note(tally)]
        parts += [_weights(tally, self.source)]
        if tally.quality or tally.world_scale:
            parts += ["## Quality", _quality(tally)]
        parts += ["## Known limits", _limits([*self.limits, *_limits_of(tally, source)])]
        parts += ["## How it was made", _made(source)]
        return "\n\n".join(part for part in parts if part) + "\n"


def hub_licence(licences: Iterable[str]) -> str:
    """The hub's name of the licence: `unknown` without any, `other` for several and for one not on the hub's list."""
    found = list(licences)
    if len(found) != 1:
        return "other" if found else UNKNOWN
    name = found[0].strip().lower().replace(" ", "-")
    return name if name in HUB_LICENCES or name == UNKNOWN else "other"


def _front_matter(card: Card, tally: CardTally) -> str:
    licence = hub_licence(tally.licences)
    lines = ["---", f"pretty_name: {_text(card.title)}", f"license: {licence}"]
    if licence == "other":
        lines.append(f"license_name: {_text(', '.join(sorted(tally.licences)))}")
    lines += ["task_categories:", "- robotics", "tags:"]
    lines += [f"- {_text(tag)}" for tag in dict.fromkeys((*card.tags, "handloom", card.form))]
    num = tally.num_rows if tally.num_episodes is None else tally.num_episodes
    lines += ["size_categories:", f"- {_text(_size(num))}"]
    if card.data_files:
        lines += ["configs:", "- config_name: default", f"  data_files: {_text(card.data_files)}"]
    return "\n".join([*lines, "---"])


def _text(value: str) -> str:
    """A YAML string: JSON's are."""
    return json.dumps(value, ensure_ascii=False)


def _size(num_rows: int) -> str:
    return next((name for limit, name in SIZES if num_rows < limit), "n>1M")


def _summary(tally: CardTally, source: Mapping[str, Any]) -> str:
    hours = tally.duration_s / 3600
    long = f"{hours:.1f} hours" if hours >= 1 else f"{tally.duration_s:.1f} s"
    rows = plural(tally.num_rows, "episode" if source.get("table") == ROBOT_EPISODES else "clip")
    if robots := source.get("robot_datasets"):
        of_robots = sum(tally.sources[dataset] for dataset in robots)
        rows += f" ({tally.num_rows - of_robots} of people, {of_robots} of robots)"
    if tally.num_episodes is not None:
        rows = f"{plural(tally.num_episodes, 'episode')} of {rows}"
    return f"{rows}, {tally.num_frames} frames, {long} of video, from {plural(len(tally.sources), 'dataset')}."


def _sources(tally: CardTally) -> str:
    lines = ["| dataset | rows | licences |", "| --- | --- | --- |"]
    for dataset, count in sorted(tally.sources.items()):
        licences = sorted(name for name, by_dataset in tally.licences.items() if dataset in by_dataset)
        lines.append(f"| {_cell(dataset)} | {count} | {_cell(', '.join(licences))} |")
    return "\n".join(lines)


def _cell(value: str) -> str:
    return value.replace("|", "\\|").replace("\n", " ")


def _licence_note(tally: CardTally) -> str:
    notes = []
    missing = sum(tally.licences.get(UNKNOWN, Counter()).values())
    if missing:
        notes.append(f"The licence of {missing} rows is unknown. Find it out before you share them.")
    if len(tally.licences) > 1:
        notes.append("Rows carry their own licence; the strictest of them holds for the whole.")
    return " ".join(notes)


def _weights(tally: CardTally, source: Mapping[str, Any]) -> str:
    """The licences of the weights that made columns of these rows; empty where no run has recorded any.

    By the key of each row's stage, so that a run with other weights that made none of these rows is left out.
    """
    found: list[tuple[str, str, str]] = []
    for stage, by_key in sorted((source.get("licences") or {}).items()):
        rows = tally.stage_keys.get(stage)
        if rows is None:  # the form of the export has no keys
            found += [(f"stage `{stage}`", licence, "") for licence in sorted(set(by_key.values()))]
            continue
        count: Counter[str] = Counter()
        for key, num in rows.items():
            count[by_key.get(key or "", UNKNOWN)] += num if key else 0
        found += [(f"stage `{stage}`", licence, str(num)) for licence, num in sorted(count.items()) if num]
    told = source.get("licences") or {}
    named = {name: licence for name, (stage, licence) in tally.weights.items() if stage not in told}
    found += sorted((f"column `{name}`", licence, "") for name, licence in named.items())
    if not found:
        return ""
    lines = ["Learned weights made columns of these rows:", "", "| made by | licence of the weights | rows |"]
    lines += ["| --- | --- | --- |", *(f"| {what} | {_cell(licence)} | {rows} |" for what, licence, rows in found)]
    limited = sorted({licence for _, licence, _ in found if "-nc" in licence.lower()})
    if limited:
        problem = f"Weights under {' and '.join(limited)} may not be used commercially"
        lines += ["", f"{problem}: find out what that means for the rows."]
    return "\n".join(lines)


def _quality(tally: CardTally) -> str:
    order = [*SHOWN_QUALITY, *(name for name in QUALITY_FIELDS if name not in SHOWN_QUALITY)]
    lines = ["| measure | rows | 10 % | median | 90 % | meaning |", "| --- | --- | --- | --- | --- | --- |"]
    for name in (name for name in order if name in tally.quality):
        values = np.array(tally.quality[name])
        low, middle, high = (f"{value:.4g}" for value in np.quantile(values, (0.1, 0.5, 0.9)))
        lines.append(f"| {name} | {len(values)} | {low} | {middle} | {high} | {QUALITY_FIELDS[name]} |")
    counts = [
        f"- {name}: {', '.join(f'{kind} {count}' for kind, count in sorted(counter.items()))}"
        for name, counter in (
            ("World scale", tally.world_scale),
            ("Camera intrinsics", tally.camera_source),
            ("Lens", tally.lens),
            ("Depth of tracks", tally.depth_source),
        )
        if counter
    ]
    table = "\n".join(lines) if tally.quality else ""
    return "\n\n".join(part for part in (table, "\n".join(counts)) if part)


def _limits_of(tally: CardTally, source: Mapping[str, Any]) -> list[str]:
    found = []
    if source.get("other_embodiment"):
        others = "robots" if source["embodiment"] == "human" else "people"
        found.append(f"{source['other_embodiment']} clips of {others} that pass the filter were left out.")
    if tally.num_without_text:
        found.append(f"{tally.num_without_text} rows have no text that describes the action.")
    if source.get("other_stage_key"):
        keys = ", ".join(f"{stage} {key}" for stage, key in source["stage_keys"].items())
        found.append(f"{source['other_stage_key']} clips of other stage keys than {keys} were left out.")
    if several := [stage for stage, counts in source.get("rows_of_key", {}).items() if len(counts) > 1]:
        found.append(
            f"Rows were made by different settings or models: {', '.join(several)} with several keys (below). "
            "`stage_key_NAME` of the table has each row's."
        )
    assumed = tally.camera_source.get("assumed", 0)
    if assumed:
        found.append(f"The camera of {assumed} rows is assumed, not measured: their metres are as good as that guess.")
    bent = sum(count for name, count in tally.lens.items() if name != "pinhole")
    if bent:
        found.append(
            f"The lens of {plural(bent, 'row')} distorts: pixels are as the camera shows them, and `camera_matrix` "
            "alone does not give their rays. handloom's docs/tables.md (`camera_model`) explains a lens's numbers."
        )
    return found


def _limits(limits: Sequence[str]) -> str:
    return "\n".join(f"- {limit}" for limit in limits) if limits else "None are known."


def _made(source: Mapping[str, Any]) -> str:
    facts = {
        "handloom": __version__,
        "table": source.get("table", "clips"),
        "table version": source.get("version"),
        "filter": source.get("where") or "none",
        "run key": source.get("run_key") or UNKNOWN,
    }
    lines = ["| | |", "| --- | --- |", *(f"| {name} | `{value}` |" for name, value in facts.items())]
    parts = ["\n".join(lines)]
    if source.get("rows_of_key"):
        rows = [(stage, key, num) for stage, counts in source["rows_of_key"].items() for key, num in counts.items()]
        lines = ["| stage | key | rows |", "| --- | --- | --- |"]
        lines += [f"| {_cell(stage)} | {f'`{key}`' if key else 'not computed'} | {num} |" for stage, key, num in rows]
        parts.append("\n".join(["Stages, by the key of their settings, models and versions:", "", *lines]))
    for title, name in (("Models and libraries", "versions"), ("Settings", "settings")):
        if source.get(name):
            text = json.dumps(_without_folders(source[name]), indent=2, sort_keys=True)
            parts.append(f"{title}:\n\n```json\n{text}\n```")
    return "\n\n".join(parts)


def _without_folders(value: Any) -> Any:
    """Settings without the folders of this machine: a card is for others."""
    if isinstance(value, Mapping):
        return {name: _without_folders(inner) for name, inner in value.items()}
    return value.rstrip("/").rsplit("/", 1)[-1] if isinstance(value, str) and value.startswith(("/", "~")) else value
