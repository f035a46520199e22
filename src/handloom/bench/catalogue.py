"""The benchmarks by name, and their reports as tables."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from handloom.errors import ConfigError

TABLES = ("extract", "accuracy")


def run_benchmark(
    name: str,
    videos: Path | None,
    save: Path | None,
    say: Callable[[str], None],
    num_clips: int | None = None,
    db: str | None = None,
    lerobot_python: str | None = None,
    quick: bool = False,
    footage: Path | None = None,
    held: Path | None = None,
    sheets: Path | None = None,
    backwards: bool = False,
    stills: Path | None = None,
) -> dict[str, Any]:
    """Run the benchmark `name` and return its report, that of what was measured where it is interrupted.

    `extract` measures on a folder of videos, or on rendered clips. `accuracy` measures on `num_clips` rendered clips
    and, beside them, on a folder of clips with truth, and on `footage` without any. `feed` measures on `num_clips`
    clips of a database, of a folder of videos, or rendered; with a Python that has the `lerobot` package, on that
    package's reader too.

    Args:
        save: a folder that keeps the report (`report.keep`).
        footage: videos without truth, or a database of them; held: a file that names those that nothing was tuned on;
            sheets: a folder for their contact sheets; backwards: follow them from their end as well.
        stills: pictures, and videos of still cameras, that a virtual camera films.
        quick: measure less, in under two minutes on two cores.

    Raises:
        ConfigError: no such benchmark, or no videos.
    """
    from handloom.bench.accuracy.measure import Inputs, bench_accuracy
    from handloom.bench.extract.measure import bench_extract
    from handloom.bench.footage.measure import read_held
    from handloom.bench.report import keep
    from handloom.bench.watch import Watch

    if footage is None and (held is not None or sheets is not None or backwards):
        raise ConfigError(
            "--held, --sheets and --backwards are for --footage", "give the videos or the database with --footage"
        )
    if name != "accuracy" and footage is not None:
        raise ConfigError(f"benchmark {name!r} takes no --footage", "it is accuracy's")
    if name != "accuracy" and stills is not None:
        raise ConfigError(f"benchmark {name!r} takes no --stills", "it is accuracy's")

    def of_accuracy(videos: Path | None, watch: Watch) -> dict[str, Any]:
        return bench_accuracy(Inputs(videos, num_clips, footage, read_held(held), sheets, backwards, stills), watch)

    benchmarks = {"extract": bench_extract, "accuracy": of_accuracy}
    if name == "feed":  # needs torch and webdataset
        from handloom.bench.feed.measure import bench_feed

        benchmarks[name] = partial(bench_feed, num_clips=num_clips, db=db, lerobot_python=lerobot_python)
    elif db is not None or lerobot_python is not None:
        raise ConfigError(f"benchmark {name!r} takes no --db and no --lerobot-python", "they are feed's")
    if name not in benchmarks:
        raise ConfigError(f"there is no benchmark {name!r}", f"one of: {', '.join([*benchmarks, 'feed'])}")
    if name == "extract" and num_clips is not None:
        raise ConfigError("benchmark 'extract' takes no --clips", "--quick measures fewer; accuracy and feed take it")
    watch = Watch(say, quick)
    report = benchmarks[name](videos, watch)
    if save is not None:
        watch.say(f"kept in {keep(report, save)}")
    return report


def table(report: dict[str, Any]) -> str:
    """A report of one of `TABLES` as Markdown, as docs/benchmarks.md shows it."""
    if report["name"] == "extract":
        from handloom.bench.extract.table import markdown

        return markdown(report)
    from handloom.bench.accuracy.table import markdown as of_results

    return of_results(report["results"])
