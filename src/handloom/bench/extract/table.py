"""The report of `bench extract` as Markdown: the paragraph on speed of docs/benchmarks.md."""

from __future__ import annotations

from typing import Any

LINES = (
    ("end_to_end", "`handloom run`, from the first clip to the last commit"),
    ("ceiling", "ceiling: the same decoding and models in plain processes, nothing written"),
    ("plain_script", "a plain script: decord, `mp.solutions.hands`, OpenCV LK, one process a core"),
)
RATIOS = {
    "end to end against the ceiling": "the ceiling's frames",
    "end to end against the plain script": "the plain script's",
    "cost linear in clips: rate with twice the clips": "its rate with twice the clips",
}


def markdown(report: dict[str, Any]) -> str:
    """The machine and the clips, the table, and the ratios; a dash for what was not measured."""
    return "\n\n".join([_where(report), _table(report["results"]), _ratios(report)]) + "\n"


def _where(report: dict[str, Any]) -> str:
    hardware, found = report["hardware"], report["results"]
    gpu = hardware["gpu"]
    machine = f"{hardware['cores_allowed']} cores of {hardware['cpu']}, "
    machine += ", ".join(one["name"] for one in gpu) if gpu else "no GPU"
    amount = f"{found['clips_per_round']} clips of {found['videos']}"
    amount += f", {found['video_s_per_round']:.0f} s of video a round"
    unlike = [word for word in ("quick", "interrupted") if report[word]]
    mark = f" ({' and '.join(unlike)}: not a whole measurement)" if unlike else ""
    rounds = "one round" if len(found["rounds"]) == 1 else f"medians of {len(found['rounds'])} rounds"
    return f"{machine}; {amount}, {rounds}, with models loaded{mark}:"


def _table(found: dict[str, Any]) -> str:
    lines = ["| | frames/s | CPU ms a frame |", "|---|---:|---:|"]
    for kind, words in LINES:
        cells = [_cell(found[kind], name) for name in ("frames_per_s", "cpu_ms_per_frame")]
        lines.append(f"| {words} | {cells[0]} | {cells[1]} |")
    with_start = _cell(found["end_to_end"], "frames_per_s_with_start")
    lines.insert(3, f"| the same, with the start of Ray and of the models | {with_start} | - |")
    return "\n".join(lines)


def _ratios(report: dict[str, Any]) -> str:
    values = {goal["name"]: goal["value"] for goal in report["goals"]}
    told = [f"{values[name]:.2f} of {words}" for name, words in RATIOS.items() if values[name] is not None]
    return f"Within a round `handloom run` does {', '.join(told)}." if told else "No ratio was measured."


def _cell(values: dict[str, float] | None, name: str) -> str:
    return "-" if values is None else f"{values[name]:.1f}"
