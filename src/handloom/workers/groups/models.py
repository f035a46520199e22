"""What an actor holds: the models of one group of stages, and a decoder. A bug may leave them in any state."""

from __future__ import annotations

import logging
import os
from collections import defaultdict
from collections.abc import Generator, Sequence

import ray

from handloom.errors import ClipError, ConfigError
from handloom.schemas.clip import Clip
from handloom.stages.extract import Extractor
from handloom.stages.pools.travel import Frames
from handloom.store.runs.runs import LOAD
from handloom.video.decode.decoder import Decoder
from handloom.workers.bugs import bugs_as_rejects
from handloom.workers.setup import WorkerSetup, refusal
from handloom.workers.stage_report import Work

log = logging.getLogger(__name__)


class Models:
    """Loads the models of a group.

    Attributes:
        refused: why this process must make no rows; then nothing is loaded.
        not_loaded: why the models cannot be loaded, perhaps on this node only.
        stage_s: seconds by stage.
    """

    def __init__(self, setup: WorkerSetup, ledger: ray.actor.ActorHandle, work: Work, group: int) -> None:
        self._setup, self._ledger, self._work, self._number = setup, ledger, work, group
        self._group = setup.groups[group]
        self.stage_s: dict[str, float] = defaultdict(float)
        self.refused: tuple[str, str] | None = None
        self.not_loaded: ConfigError | None = None
        self._decoder: Decoder | None = None
        with work.on((), LOAD):
            try:
                setup.check_group(self._group, work.place.host)
            except ConfigError as error:  # returned with the first shard: else Ray restarts the actor again and again
                self.refused = refusal(error, work.place.host)
                return
            try:
                self._load()
            except ConfigError as error:  # returned with each shard
                self.not_loaded = error

    @property
    def are_loaded(self) -> bool:
        return self.refused is None and self.not_loaded is None

    def _load(self) -> None:
        setup, host = self._setup, self._work.place.host
        stages = [name for name in self._group.stages if setup.wanted is None or name in setup.wanted]
        args = (setup.settings, setup.run_key, host, self._work.begin, setup.stage_keys, stages)
        self.extractor = Extractor(*args)
        self.extractor.stage_s = self.stage_s
        for name in set(self._group.stages) & set(self.extractor.graph.own):
            self.extractor.graph[name].stage.count_in = self._count_in

    def _count_in(self, stage: str, name: str, amount: float, most: float | None) -> bool:
        return ray.get(self._ledger.count.remote(stage, name, amount, most))

    def stream(self, clips: Sequence[Clip]) -> Generator[Frames | ClipError, None, None]:
        """The clips' frames, decoded here."""
        self._decoder = self._decoder or self._setup.decoder(self._work.still_fetching)
        return self._decoder.stream(clips)

    def close(self) -> None:
        """End the decoding processes."""
        if self._decoder is not None:
            self._decoder.close()
        self._decoder = None

    def renew(self, bug: ClipError) -> None:
        """Load models and decoder again.

        Where that fails (after an error on a GPU the whole process cannot use it), this process exits; the ledger keeps
        the bug for the next process.
        """
        self.close()
        del self.extractor  # free its memory first
        try:
            with bugs_as_rejects(bug.clip_id, lambda: LOAD):
                self._load()
        except (ClipError, ConfigError) as error:
            log.warning("the models cannot be loaded again after a bug, the worker ends: %s", error.problem)
            ray.get(self._ledger.keep_bug.remote(bug.clip_id, bug.stage, bug.problem, self._number))
            os._exit(1)  # the process may be in any state; Ray starts another
