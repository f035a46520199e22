"""Writes the accuracy tables of docs/accuracy.md and docs/benchmarks.md from the reports of `handloom bench accuracy`
in benchmarks/results: `accuracy.json`, `footage.json` (real footage), and `footage_before.json` (real footage, with the
version before). The list of goals has those of other reports as well."""

import json
import re
from pathlib import Path

from handloom.bench.accuracy.table import markdown

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks/results"
PAGES = (ROOT / "docs/accuracy.md", ROOT / "docs/benchmarks.md")
MARKS = re.compile(r"(<!-- docs/make_benchmarks.py: (goals|parts|truth|others) -->\n).*?(<!-- end -->)", re.DOTALL)
REPORTS = ("accuracy", "footage")
GOALS = (*REPORTS, "commit", "stages", "segments", "skills", "retrieval", "look", "search", "wearer", "sim")
PARTS = ("virtual", "footage", "published_tracks")
SOURCES = ("rendered", "egodex", "crossing")


def report(name: str) -> dict:
    """A report; without goals and results if the file does not exist."""
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else {"goals": [], "results": {}}


def goals() -> str:
    """Every goal: the value of the version before (if measured), the value now, the goal, and whether it is met."""
    before = {goal["name"]: goal["value"] for goal in report("footage_before")["goals"]}
    lines = ["| what | unit | before | now | goal | met |", "|---|---|---:|---:|---:|---|"]
    seen = set()
    for name in GOALS:
        for goal in report(name)["goals"]:
            if name in REPORTS and goal["name"] in seen:
                continue
            seen.add(goal["name"])
            met = {True: "yes", False: "no", None: "not measured"}[goal["met"]]
            values = [number(before.get(goal["name"])), number(goal["value"]), number(goal["goal"])]
            unit = goal["unit"].replace("|", "\\|")
            what = goal["name"] if name in REPORTS else f"{name}: {goal['name'].replace('_', ' ')}"
            lines.append(f"| {what} | {unit} | " + " | ".join(values) + f" | {met} |")
    return "\n".join(lines) + "\n"


def parts() -> str:
    """The tables of `PARTS`; clips with truth have tables of their own."""
    found = {
        part: report(name)["results"][part] for name in REPORTS for part in PARTS if part in report(name)["results"]
    }
    return markdown(found) if found else "Not measured yet.\n"


def truth() -> str:
    """Clips with truth: the tables of our own numbers."""
    return "\n\n".join(table for table in _with_truth() if not _of_others(table)) + "\n"


def others() -> str:
    """Clips with truth: the tables of the numbers that other projects print, and of clips in which hands cross."""
    return "\n\n".join(table for table in _with_truth() if _of_others(table)) + "\n"


def _with_truth() -> list[str]:
    results = report("accuracy")["results"]
    return markdown({name: results[name] for name in SOURCES if name in results}).strip().split("\n\n")


def _of_others(table: str) -> bool:
    head = table.split("|")[1]
    return "as others print it" in head or "hands cross" in head


def number(value: float | None) -> str:
    """Three significant digits; `-` for None."""
    return "-" if value is None else f"{value:.3g}"


def page(text: str) -> str:
    """The page with its tables replaced."""
    tables = {"goals": goals, "parts": parts, "truth": truth, "others": others}
    return MARKS.sub(lambda found: found[1] + tables[found[2]]() + found[3], text)


if __name__ == "__main__":
    for path in PAGES:
        path.write_text(page(path.read_text()))
