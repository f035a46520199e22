"""`Windows`: windows of one version of a table, with loaders, a stream and statistics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from handloom.errors import ConfigError, StoreError, with_extra
from handloom.plural import plural
from handloom.store.embodiment import robot_datasets
from handloom.store.stages.row_keys import StageKeys, demanded, note_mixed
from handloom.windows.chosen import narrowed_to
from handloom.windows.dataset import Memory, Transform, WindowDataset
from handloom.windows.neighbours import Neighbours, columns_for
from handloom.windows.plan import check_images, make_plan
from handloom.windows.spec import WindowSpec, check_columns, make_spec

if TYPE_CHECKING:
    from handloom.store.tables import Tables
    from handloom.windows.loading.loader import WindowLoader
    from handloom.windows.loading.stream import WindowStream


class Windows(WindowDataset):
    """Windows of one version of a table, by number: `len(windows)`, `windows[i]`, and loaders over them.

    Opens nothing before the first read, and can be pickled. Made by `Database.windows`, which describes samples.
    """

    def at(self, version: int | None = None) -> Windows:
        """The same windows of another version, by default the newest. Raises as `Database.windows`."""
        spec = self.spec
        return open_windows(self.db, spec, version, self.transform, self.neighbours, self.memory)

    def statistics(self, fields: Sequence[str] | None = None) -> dict[str, dict[str, Any]]:
        """Per element of each per-frame field: see `handloom.windows.statistics.statistics`."""
        from handloom.windows.statistics import statistics

        return statistics(self, fields)

    def loader(self, batch_size: int, **options: Any) -> WindowLoader:
        """Batches as torch tensors, resumable: see `handloom.windows.loading.loader.WindowLoader`."""
        _need_torch()
        from handloom.windows.loading.loader import WindowLoader

        return WindowLoader(self, batch_size, **options)

    def stream(self, **options: Any) -> WindowStream:
        """A torch IterableDataset of samples: see `handloom.windows.loading.stream.WindowStream`."""
        _need_torch()
        from handloom.windows.loading.stream import WindowStream

        return WindowStream(self, **options)


def open_windows(
    db: Tables,
    spec: WindowSpec,
    version: int | None,
    transform: Transform | None = None,
    neighbours: Neighbours | Mapping[str, Sequence[str]] | None = None,
    memory: Memory | None = None,
    stage_keys: StageKeys = None,
) -> Windows:
    """The windows of `spec` in a version, by default the newest. stage_keys: in addition to the spec's. Raises as
    `Database.windows`."""
    table = db.table(spec.table, version)
    if table is None:
        what = "`handloom run`" if spec.table == "clips" else "`handloom ingest lerobot` or `calvin`"
        raise StoreError(f"{db.uri} has no table {spec.table}", f"fill it with {what}")
    check_columns(spec, table.schema)
    if stage_keys:
        demand = demanded(db, table.schema, stage_keys, [*spec.read_columns(), *columns_for(neighbours)])
        spec = replace(spec, stage_keys=tuple(sorted((dict(spec.stage_keys) | demand).items())))
    plan = make_plan(table, spec, robot_datasets(db) if spec.table == "clips" else ())
    check_images(table, spec, plan)
    note_mixed(plan.stage_keys, f"windows of {', '.join(spec.fields)} in {db.uri}")
    made = Windows(db, spec, table.version, plan, transform=transform, neighbours=neighbours, memory=memory)
    made.check_neighbours()
    return made


def windows_of(db: Tables, **asked: Any) -> Windows:
    """`Database.windows`, from its arguments."""
    reading = {name: asked.pop(name) for name in ("transform", "neighbours", "memory", "stage_keys")}
    clips = asked.pop("clips", None)
    asked["where"] = _without_judged(db, asked)
    asked = asked if clips is None else narrowed_to(db, clips, asked)
    version = asked.pop("version")
    return open_windows(db, make_spec(**asked), version, **reading)


def _without_judged(db: Tables, asked: Mapping[str, Any]) -> str | None:
    """The filter with the clips that are judged by now: later judgements do not change windows that exist.

    Raises ConfigError, with the filter as it was given, if it passes no row because of the judgements."""
    where: str | None = asked["where"]
    expanded = db.expanded(where)
    if expanded != where and not db.count(asked["table"], where):
        problem = f"where = {where!r} passes no row: {plural(len(db.judged()), 'clip')} of {db.uri} judged"
        raise ConfigError(problem, "judge some with `handloom serve --judge` or `db.judge(clip_id, 'good')`")
    return expanded


def _need_torch() -> None:
    try:
        import torch  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            f"loaders give torch tensors, and torch is not installed ({error})", with_extra("train")
        ) from error
