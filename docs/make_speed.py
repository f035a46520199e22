"""Writes the speeds in docs/benchmarks.md from the report of `handloom bench extract --save benchmarks/results`."""

import json
import re
from pathlib import Path

from handloom.bench.catalogue import table

ROOT = Path(__file__).parents[1]
REPORT, PAGE = ROOT / "benchmarks/results/extract.json", ROOT / "docs/benchmarks.md"
BETWEEN = re.compile(r"(?<=<!-- docs/make_speed.py -->\n).*?(?=<!-- end -->)", re.DOTALL)


def figures() -> str:
    """The text between the page's two marks."""
    link = "[`handloom bench extract`](../benchmarks/results/extract.json)"
    return f"**Speed** ({link}). {table(json.loads(REPORT.read_text()))}"


if __name__ == "__main__":
    PAGE.write_text(BETWEEN.sub(lambda _: figures(), PAGE.read_text()))
