"""A clip's frames to its row, stage after stage. Chunks are processed as they arrive: memory does not grow with T."""

from __future__ import annotations

import sys
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, cast

import cv2
import pyarrow as pa
from threadpoolctl import ThreadpoolController

from handloom.errors import ClipError, ConfigError, HandloomError
from handloom.models.protocols import ClipFrames
from handloom.schemas.clip import Clip
from handloom.schemas.settings import Settings
from handloom.schemas.tables.arrow import CLIP_LIST
from handloom.schemas.tables.row import cell_to_arrow, row_arrays
from handloom.schemas.tables.stage_columns import WITH_STATE, key_column, state_column
from handloom.stages.choose import heavy_stages
from handloom.stages.own import OwnStage, clip_input, compute_own, printing_is_logged
from handloom.stages.pools.travel import Frames, Plan, UnderWay, Update
from handloom.stages.registry import stage_graph
from handloom.stages.stage import ClipInput
from handloom.stages.work import MISSING, BuiltinStage, Work
from handloom.video.decode.frame_store import FrameStore

OF_LIST = frozenset(CLIP_LIST.names) - {"end_s"}  # of a clip that ends with its video the row knows the end

_LIBRARIES: list[tuple[int, ThreadpoolController]] = []  # the last scan, and the number of modules then


@contextmanager
def settled() -> Iterator[None]:
    """One thread in every library, no code that depends on addresses, OpenCV's random numbers from their start.

    Processes that handloom starts have one thread anyway (`kernels.PINNED`); this is for others, which imported numpy
    earlier. BLAS and OpenMP get their threads back at the end.
    """
    cv2.setNumThreads(1)
    # Intel's primitives in OpenCV choose their code by processor and address. Set for this thread only, like the seed.
    cv2.ipp.setUseIPP(False)
    cv2.setRNGSeed(0)
    with _libraries().limit(limits=1):
        yield


def _libraries() -> ThreadpoolController:
    """The loaded libraries. A scan takes milliseconds, and is repeated after imports only."""
    num_modules = len(sys.modules)
    if not _LIBRARIES or _LIBRARIES[0][0] != num_modules:
        _LIBRARIES[:] = [(num_modules, ThreadpoolController())]
    return _LIBRARIES[0][1]


def ignore_stage(stage: str, num_frames: int) -> None:
    """Do nothing when a stage begins."""


class Extractor:
    """Holds the models; turns a clip's frames into its row, or into new columns of a row that exists.

    keys: `{stage: key}`, written beside the stages' columns; None: null, for rows that are not stored. host: the rows'
    column `host`. on_stage: called when a stage begins, with its name and the number of frames to process (times a
    factor for heavy networks), to which its time limit is proportional. stages: those that are loaded at once, others
    when a clip needs them; None: all.
    `stage_s` sums the seconds spent per stage.
    """

    def __init__(
        self,
        settings: Settings,
        run_key: str,
        host: str | None = None,
        on_stage: Callable[[str, int], None] = ignore_stage,
        keys: Mapping[str, str] | None = None,
        stages: Collection[str] | None = None,
    ) -> None:
        self._settings, self._run_key, self._host, self._on_stage = settings, run_key, host, on_stage
        self.graph = stage_graph(settings)
        self._keys = keys or {}
        self.schema = self.graph.schema()
        self._heavy = heavy_stages(settings)
        self.stage_s: dict[str, float] = defaultdict(float)
        self._not_loaded = set(self.graph.names)
        for node in self.graph.nodes:
            if stages is None or node.name in stages:
                self._load(node)

    def _load(self, node: Any) -> None:
        """Load a stage's models, once."""
        if node.name in self._not_loaded:
            self._on_stage(f"load {node.name}", 0)
            self._load_now(node)
            self._not_loaded.discard(node.name)

    def _load_now(self, node: Any) -> None:
        if not isinstance(node, OwnStage):
            return node.load()
        try:
            with printing_is_logged(node.name):
                node.stage.load()
        except HandloomError:
            raise
        except (Exception, SystemExit) as error:
            problem = f"the stage {node.name!r} cannot be loaded: {type(error).__name__}: {error}"
            raise ConfigError(problem, f"mend load() of {node.config.class_}, or what it needs on this node") from error

    def row(self, frames: Frames) -> pa.RecordBatch:
        """The clip's row of `clips`. A stage of one's own that fails leaves its columns null (`row_and_errors`).

        Raises:
            ClipError: the clip cannot be decoded or processed.
        """
        return self.row_and_errors(frames)[0]

    def row_and_errors(self, frames: Frames) -> tuple[pa.RecordBatch, dict[str, ClipError]]:
        """The clip's row, and the errors of stages of one's own, by stage."""
        with self.begun(frames.clip, None, self.plan(None, self.graph.names), frames) as one:
            self.compute(one, self.graph.names)
            return self.row_of(one)

    def columns(self, frames: Frames, targets: Collection[str]) -> dict[str, Any]:
        """The columns of some stages of a clip that is not stored, as `row_arrays` gives them. Raises ClipError."""
        plan = self.plan(None, targets)
        with self.begun(frames.clip, None, plan, frames) as one:
            self.compute(one, plan.compute)
            update = self.end(one)
        for error in update.errors.values():
            raise error
        return self._arrays(update.cells)

    def row_of(self, one: UnderWay) -> tuple[pa.RecordBatch, dict[str, ClipError]]:
        """As `row_and_errors`, of a new clip whose stages are computed."""
        update = self.end(one)
        for error in update.errors.values():
            if error.stage not in self.graph.own:
                raise error
        known = {**one.clip.to_dict(), "host": self._host, "run_key": self._run_key}
        columns = [
            update.cells[field.name] if field.name in update.cells else cell_to_arrow(known.get(field.name), field)
            for field in self.schema
        ]
        row = pa.RecordBatch.from_arrays(columns, schema=self.schema)
        row.validate()
        return row, update.errors

    def plan(self, row: Mapping[str, Any] | None, targets: Collection[str]) -> Plan:
        """What must be computed for new columns of a row (`row_arrays`); for a new clip, without a row, everything.

        A value that the row does not hold, or holds with another key, is computed anew and not written.
        """
        compute = set(targets)
        queue = list(targets)
        while queue:
            node = self.graph[queue.pop()]
            holds = self._holds_columns if isinstance(node, OwnStage) else self._holds_value
            for read in node.reads_stages:
                if read not in compute and (row is None or not holds(row, read)):
                    compute.add(read)
                    queue.append(read)
        ordered = tuple(name for name in self.graph.names if name in compute)
        reads = any(self.graph[name].reads_frames for name in ordered)
        return Plan(tuple(name for name in ordered if name in set(targets)), ordered, reads)

    def columns_for(self, targets: Collection[str]) -> list[str]:
        """The columns of a row that `plan` and `update` read."""
        own = [name for name in targets if name in self.graph.own]
        near = self.graph.ancestors(set(targets) - set(own))
        wanted = {"frame_s"} | {column for name in near for column in self.graph[name].columns}
        wanted |= {column for name in own for column in self.graph[name].reads_columns}
        wanted |= {key_column(name) for name in self.graph.names} | {state_column(name) for name in near}
        return [field.name for field in self.schema if field.name in wanted]

    def update(self, clip: Clip, row: Mapping[str, Any], plan: Plan, frames: Frames | None) -> Update:
        """New columns of an existing row: of the plan's targets, with their keys.

        A stage that fails has no new columns, nor have those that depend on it. If the row has old columns of it, the
        stages that they were made from keep theirs, too: columns that depend on each other change together.
        """
        with self.begun(clip, row, plan, frames) as one:
            self.compute(one, plan.compute)
            return self.end(one)

    def _holds_columns(self, row: Mapping[str, Any], stage: str) -> bool:
        return row.get(key_column(stage)) == self._keys.get(stage)

    def _holds_value(self, row: Mapping[str, Any], stage: str) -> bool:
        return self._holds_columns(row, stage) and self._restored(row, stage) is not MISSING

    def _restored(self, row: Mapping[str, Any], stage: str) -> Any:
        return self.graph[stage].restore(row, row.get(state_column(stage)))

    @contextmanager
    def begun(self, clip: Clip, row: Mapping[str, Any] | None, plan: Plan, frames: Frames | None) -> Iterator[UnderWay]:
        """A clip of which nothing is computed. Its frames are forgotten at the end."""
        one = self.begin(clip, row, plan, frames)
        try:
            yield one
        finally:
            one.close()

    def begin(self, clip: Clip, row: Mapping[str, Any] | None, plan: Plan, frames: Frames | None) -> UnderWay:
        """A clip of which nothing is computed; `close` it."""
        one = UnderWay(clip, plan, row, source=frames if plan.reads_frames else None)
        if row is not None:
            one.values |= {name: self._restored(row, name) for name in self._read_values(plan)}
        return one

    def _read_values(self, plan: Plan) -> set[str]:
        """The stages whose values are taken from the row."""
        computed = [self.graph[name] for name in plan.compute if name not in self.graph.own]
        return {read for node in computed for read in node.reads_stages} - set(plan.compute)

    def compute(self, one: UnderWay, stages: Collection[str]) -> None:
        """Compute those of these stages that the clip needs. A stage that has an error is left out, and so are those
        that read it.

        Raises:
            ClipError: the clip cannot be decoded; a stage that handloom brings has failed on a new clip.
        """
        with settled():
            if one.source is not None and one.store is None:
                one.store = FrameStore(one.source.header.frame_s)
            work = Work(one.clip, self._settings, one.values, one.store, one.row)
            names = [name for name in one.plan.compute if name in stages]
            if one.source is not None:
                self._feed(one, work, names)
            self._finish(one, work, names)

    def compute_together(self, clips: Sequence[UnderWay], stage: str, batch_clips: int) -> None:
        """Compute a stage of one's own for several clips, at most `batch_clips` at once."""
        own, clock = self.graph[stage], Clock(self.stage_s, self._on_stage)
        self._load(own)
        with settled():
            inputs: list[tuple[UnderWay, ClipInput]] = []
            for one in clips:
                try:
                    if stage in one.plan.compute and not self._left_out(one, own):
                        inputs.append((one, self._input(one, own)))
                except ClipError as error:
                    one.errors[stage] = error
            for at in range(0, len(inputs), batch_clips):
                batch = inputs[at : at + batch_clips]
                frames = sum(_num_frames(one) for one, _ in batch)
                clock.begin(stage, round(frames * self._heavy.get(stage, 1.0)))
                try:
                    found = compute_own(own, [given for _, given in batch])
                finally:
                    clock.end()
                for (one, _), made in zip(batch, found, strict=True):
                    if isinstance(made, ClipError):
                        one.errors[stage] = made
                    else:
                        one.cells[stage] = self._with_key(stage, made)

    def end(self, one: UnderWay) -> Update:
        """What was computed of a clip that all stages are done with."""
        done = self._kept(one)
        merged = {column: cell for name in done for column, cell in one.cells[name].items()}
        return Update(merged, done, {name: error for name, error in one.errors.items() if name in one.plan.targets})

    def _feed(self, one: UnderWay, work: Work, names: Collection[str]) -> None:
        frames, store = cast("Frames", one.source), cast("FrameStore", one.store)
        fed = [self.graph[name] for name in names if name not in self.graph.own and name not in one.errors]
        fed = [stage for stage in fed if stage.reads_frames and type(stage).feed is not BuiltinStage.feed]
        for stage in fed:
            self._load(stage)

        def begin() -> None:
            store.clear()
            work.values["probe"] = frames.header
            for stage in fed:
                stage.begin(work)

        clock = Clock(self.stage_s, self._on_stage)
        clock.begin("decode_wait")
        for chunk in frames.chunks(begin):
            clock.end()
            frame_s = store.frame_s[len(store) : len(store) + len(chunk)]
            store.append(chunk)
            for stage in fed:
                clock.begin(stage.name, len(chunk))
                stage.feed(chunk, frame_s)
            clock.begin("decode_wait")
        clock.end()
        one.source, one.num_frames = None, len(store)

    def _left_out(self, one: UnderWay, node: Any) -> bool:
        """Whether a stage has an error already, or reads one that has."""
        why = next((one.errors[read] for read in node.reads_stages if read in one.errors), None)
        if why is not None:
            one.errors.setdefault(node.name, why)
        return node.name in one.errors

    def _finish(self, one: UnderWay, work: Work, names: Collection[str]) -> None:
        clock = Clock(self.stage_s, self._on_stage)
        for name in names:
            node = self.graph[name]
            if self._left_out(one, node):
                continue
            self._load(node)
            clock.begin(name, round(_num_frames(one) * self._heavy.get(name, 1.0)))
            cv2.setRNGSeed(0)
            try:
                made = self._own(one, node) if isinstance(node, OwnStage) else self._builtin(work, node)
            except ClipError as error:
                if one.row is None and name not in self.graph.own:
                    raise
                one.errors[name] = error
                continue
            finally:
                clock.end()
            one.cells[name] = made

    def _builtin(self, work: Work, stage: BuiltinStage) -> dict[str, pa.Array]:
        if stage.name not in work.values:  # the probe's value comes with the frames
            work.values[stage.name] = stage.run(work)
        value = work.values[stage.name]
        found = stage.cells(value, work)
        if stage.name in WITH_STATE:
            found[state_column(stage.name)] = stage.state(value)
        return self._with_key(stage.name, {n: cell_to_arrow(v, self.schema.field(n)) for n, v in found.items()})

    def _with_key(self, stage: str, cells: dict[str, pa.Array]) -> dict[str, pa.Array]:
        return cells | {key_column(stage): pa.array([self._keys.get(stage)], pa.string())}

    def _own(self, one: UnderWay, own: OwnStage) -> dict[str, pa.Array]:
        (found,) = compute_own(own, [self._input(one, own)])
        if isinstance(found, ClipError):
            raise found
        return self._with_key(own.name, found)

    def _input(self, one: UnderWay, own: OwnStage) -> ClipInput:
        """What a stage of one's own gets: columns as they are stored, so that it is the same in a later run; those of
        the clip list as the list has them now, which the row may not have yet (`workers.update_rows`)."""
        made = {column: cell for some in one.cells.values() for column, cell in some.items()}
        columns = self._arrays({name: made[name] for name in own.reads_columns if name in made})
        row = one.row or {}
        for name in own.reads_columns:
            if name not in columns:
                in_row = name in row and name not in OF_LIST
                columns[name] = row[name] if in_row else getattr(one.clip, name, None)
        return clip_input(one.clip, own, columns, cast("ClipFrames | None", one.frames_for(own)))

    def _arrays(self, cells: Mapping[str, pa.Array]) -> dict[str, Any]:
        """The cells as `row_arrays` gives those of a stored row: it reads the fields' metadata, too."""
        schema = pa.schema([self.schema.field(name) for name in cells])
        return row_arrays(pa.RecordBatch.from_arrays(list(cells.values()), schema=schema)) if cells else {}

    def _kept(self, one: UnderWay) -> tuple[str, ...]:
        """The targets whose new columns may be written, see `update`."""
        blocked: set[str] = set()
        for name in one.errors:
            if one.row is not None and name in one.plan.targets and one.row.get(key_column(name)) is not None:
                blocked.update(self.graph.dependents(set(self.graph.ancestors([name])) & set(one.plan.targets)))
        return tuple(name for name in one.plan.targets if name in one.cells and name not in blocked)


def _num_frames(one: UnderWay) -> int:
    """T; of a row by an earlier version, which holds no value of `probe`, by its column."""
    if one.values.get("probe", MISSING) is not MISSING:
        return len(one.values["probe"].frame_s)
    return len((one.row or {}).get("frame_s", ()))


class Clock:
    """Adds the seconds of each stage to its sum, and calls `on_stage(stage, num_frames)` when one begins."""

    def __init__(self, sums: dict[str, float], on_stage: Callable[[str, int], None]) -> None:
        self._sums, self._on_stage = sums, on_stage
        self._stage, self._last = "", 0.0

    def begin(self, stage: str, num_frames: int = 0) -> None:
        """End the current stage, if there is one, and begin `stage`."""
        self.end()
        self._stage = stage
        self._on_stage(stage, num_frames)

    def end(self) -> None:
        now = time.perf_counter()
        if self._stage:
            self._sums[self._stage] += now - self._last
        self._stage, self._last = "", now
