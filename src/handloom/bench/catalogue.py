"""The benchmarks by name, and their reports as tables."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from handloom.errors import ConfigError
from handloom.io.folder import local_folder

TABLES = ("extract", "accuracy")
TRAINED = ("loop", "arm4r", "arvrm", "robomirror", "command")
WITH_VARIANTS = ("loop", "arm4r", "arvrm")
"""They train, on the clips of a database if one is given, and keep what they have finished."""
OF_SKILLS = ("vlmimic", "vlmimic_controls", "vlmimic_extracted")
"""They let skills act, and keep what they have finished."""
KEEPING = ("retrieval", "serve", *TRAINED, *OF_SKILLS)
"""They keep something in the folder `data`."""


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
    data: Path | None = None,
    variants: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Run the benchmark `name` and return its report; after an interruption, a report of what was measured.

    `extract` measures on a folder of videos, or on rendered clips. `accuracy` measures on `num_clips` rendered clips
    and on a folder of clips with truth, and on `footage` without truth. `feed` measures on `num_clips` clips of a
    database, of a folder of videos, or rendered; with a Python that has the `lerobot` package, also its reader.
    `commit` measures on synthetic shards, `search` and `serve` on synthetic rows, `serve` in Chromium. `stages`
    measures on a few clips of a folder of videos, or rendered, and on copies of their rows; `look` on such clips and on
    altered copies of their images. `segments` measures on `num_clips` rendered sequences, and on the annotated actions
    of a database; `skills` on scripted scenes and on clips that it renders, `sim`, `loop`, `arm4r` and `arvrm` on
    simulated tasks, the last three also on the clips of a database. `vlmimic` and `vlmimic_controls` let skills of
    scripted scenes act in simulated ones, `vlmimic_extracted` those of clips that it renders. `retrieval` renders its
    clips. `robomirror`
    trains on the clips of a database, or on rendered ones; `command` on those of a database, and on tasks.
    `wearer` measures on `num_clips` rendered scenes of two people, and on a folder of first-person videos of one.

    Args:
        save: a folder that keeps the report (`report.keep`).
        footage: videos without truth, or a database of them.
        held: a file with the names of those on which nothing was tuned.
        sheets: a folder for their contact sheets.
        backwards: follow them also from their end.
        stills: images, and videos of cameras at rest, for the virtual camera.
        data: a folder in which `retrieval` keeps its clips, `serve` its table, and those of `TRAINED` and `OF_SKILLS`
            what they have finished, for the next time.
        variants: of `WITH_VARIANTS`, see `bench.loop`; None: all.
        quick: measure less, in under two minutes on two cores.

    Raises:
        ConfigError: no such benchmark, or no videos.
    """
    from handloom.bench.accuracy.measure import Inputs, bench_accuracy
    from handloom.bench.command.measure import bench_command
    from handloom.bench.commit.measure import bench_commit
    from handloom.bench.extract.measure import bench_extract
    from handloom.bench.footage.measure import read_held
    from handloom.bench.look.measure import bench_look
    from handloom.bench.loop.arvrm import bench_arvrm
    from handloom.bench.loop.measure import bench_loop
    from handloom.bench.loop.stages import bench_arm4r
    from handloom.bench.report import keep
    from handloom.bench.retrieval.measure import bench_retrieval
    from handloom.bench.robomirror.measure import bench_robomirror
    from handloom.bench.search.measure import bench_search
    from handloom.bench.segments.measure import bench_segments
    from handloom.bench.serve.measure import bench_serve
    from handloom.bench.sim.measure import bench_sim
    from handloom.bench.skills.measure import bench_skills
    from handloom.bench.stages.measure import bench_stages
    from handloom.bench.vlmimic.controls import bench_vlmimic_controls
    from handloom.bench.vlmimic.extracted import bench_vlmimic_extracted
    from handloom.bench.vlmimic.measure import bench_vlmimic
    from handloom.bench.watch import Watch
    from handloom.bench.wearer.measure import bench_wearer

    if footage is None and (held is not None or sheets is not None or backwards):
        raise ConfigError(
            "--held, --sheets and --backwards are for --footage", "give the videos or the database with --footage"
        )
    if name != "accuracy" and footage is not None:
        raise ConfigError(f"benchmark {name!r} takes no --footage", "it is accuracy's")
    if name != "accuracy" and stills is not None:
        raise ConfigError(f"benchmark {name!r} takes no --stills", "it is accuracy's")

    if name not in KEEPING and data is not None:
        raise ConfigError(f"benchmark {name!r} takes no --data", f"it is for {', '.join(KEEPING)}")

    if name not in WITH_VARIANTS and variants:
        raise ConfigError(f"benchmark {name!r} takes no --variant", f"it is for {', '.join(WITH_VARIANTS)}")

    def of_accuracy(videos: Path | None, watch: Watch) -> dict[str, Any]:
        return bench_accuracy(Inputs(videos, num_clips, footage, read_held(held), sheets, backwards, stills), watch)

    benchmarks = {"extract": bench_extract, "accuracy": of_accuracy, "commit": bench_commit, "stages": bench_stages}
    benchmarks["search"] = bench_search
    benchmarks["look"] = bench_look
    benchmarks["wearer"] = lambda videos, watch: bench_wearer(videos, num_clips, watch)
    benchmarks["skills"] = lambda videos, watch: bench_skills(watch)
    benchmarks["sim"] = lambda videos, watch: bench_sim(watch)
    benchmarks["vlmimic"] = lambda videos, watch: bench_vlmimic(data, watch)
    benchmarks["vlmimic_controls"] = lambda videos, watch: bench_vlmimic_controls(data, watch)
    benchmarks["vlmimic_extracted"] = lambda videos, watch: bench_vlmimic_extracted(data, watch)
    benchmarks["retrieval"] = lambda videos, watch: bench_retrieval(data, watch)
    benchmarks["serve"] = lambda videos, watch: bench_serve(data, watch, num_rows=num_clips)
    if name == "feed":  # needs torch and webdataset
        from handloom.bench.feed.measure import bench_feed

        benchmarks[name] = partial(bench_feed, num_clips=num_clips, db=db, lerobot_python=lerobot_python)
    elif name == "segments":
        benchmarks[name] = lambda videos, watch: bench_segments(num_clips, db, watch)
    elif name == "loop":
        benchmarks[name] = lambda videos, watch: bench_loop(db, data, watch, variants)
    elif name == "arm4r":
        benchmarks[name] = lambda videos, watch: bench_arm4r(db, data, watch, variants)
    elif name == "arvrm":
        benchmarks[name] = lambda videos, watch: bench_arvrm(db, data, watch, variants)
    elif name == "robomirror":
        benchmarks[name] = lambda videos, watch: bench_robomirror(db, data, watch)
    elif name == "command":
        benchmarks[name] = lambda videos, watch: bench_command(db, data, watch)
    elif db is not None or lerobot_python is not None:
        raise ConfigError(f"benchmark {name!r} takes no --db and no --lerobot-python", "they are feed's")
    if name not in benchmarks:
        raise ConfigError(
            f"there is no benchmark {name!r}", f"one of: {', '.join([*benchmarks, 'feed', 'segments', *TRAINED])}"
        )
    synthetic = ("skills", "sim", *TRAINED, "retrieval", "serve", *OF_SKILLS)
    without_clips = ("extract", "commit", "search", "stages", "look", *synthetic)
    if name in without_clips and name != "serve" and num_clips is not None:
        raise ConfigError(
            f"benchmark {name!r} takes no --clips",
            "--quick measures fewer; accuracy, feed, segments, serve and wearer take it",
        )
    if name in ("commit", "search", "segments", *synthetic) and videos is not None:
        raise ConfigError(f"benchmark {name!r} takes no --videos", "what it measures on is synthetic")
    if save is not None:
        local_folder(save, "--save")  # before hours of work
    if data is not None:
        local_folder(data, "--data")
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
