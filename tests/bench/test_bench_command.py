"""`bench command`: what an episode looks like, tables over seeds, and finished cells that are kept."""

from __future__ import annotations

import json

import numpy as np
import pytest
from support.hand_tables import hand_db, hand_row
from support.training import kept

pytest.importorskip("metaworld", reason="the simulator is not installed: pip install '.[sim]'")
pytest.importorskip("torch", reason="training is not installed: pip install '.[train]'")

import torch

from handloom.bench.command.measure import Size, bench_command, cells_of, robomirror
from handloom.bench.command.probe import probe
from handloom.bench.command.tables import (
    MOTION,
    NOT_ANY,
    NOTHING,
    SEEN,
    added_of,
    done_of,
    follows,
    goals_of,
    told_of,
)
from handloom.bench.watch import Watch
from handloom.errors import ConfigError
from handloom.pipelines.sim.jobs import world_of
from handloom.sim.policies import Expert
from handloom.sim.rollouts import moves
from handloom.sim.scores import wilson
from handloom.sim.tasks import Use, find_task, scene_seed
from handloom.train.robomirror.settings import RobomirrorSettings


@pytest.mark.parametrize(("name", "number"), [("reach", 0), ("push", 0), ("pick-place", 1)])
def test_experts_do_what_they_are_for(name, number):
    task = find_task(name)
    seen = list(moves(world_of(task), Expert(task), scene_seed(task, Use.evaluate, 7, number), 0, 90))
    hand = np.stack([one.before.state[:3] for one in seen])
    things = np.stack([one.before.environment for one in seen])
    assert done_of(hand, things[:, :3], things[0, -3:]) == name
    assert done_of(hand[:2], things[:2, :3], things[0, -3:]) == NOT_ANY


def test_tables_are_over_all_seeds():
    cells = []
    for cell in cells_of(Size(seeds=2)):
        if cell.told_by not in (MOTION, NOTHING):
            continue
        episodes = [
            {"scene": scene, "told": told, "done": told if told == "push" else "reach", "success": scene == "push"}
            for scene in ("reach", "push")
            for told in ([scene] if cell.told_by == NOTHING else ("reach", "push"))
            for _ in range(4)
        ]
        errors = {"reach": {"reach": 10.0 + cell.seed}}
        cells.append({"told_by": cell.told_by, "seed": cell.seed, "episodes": episodes, "errors_mm": errors})
    found = told_of(cells)
    assert found[MOTION]["done"]["reach"] == {"reach": {"reach": 8}, "push": {"push": 8}}
    assert found[MOTION]["followed"] | {"by_seed": 0} == {
        "rate": 1.0, "interval": list(wilson(32, 32)), "episodes": 32, "by_seed": 0,
    }  # fmt: skip
    assert found[MOTION]["success"]["reach"]["rate"] == 0.0
    assert found[MOTION]["errors_mm"] == {"reach": {"reach": 10.5}}
    assert found[MOTION]["success"]["push"] | {"interval": 0} == {
        "rate": 1.0, "interval": 0, "episodes": 8, "by_seed": {"0": 1.0, "1": 1.0},
    }  # fmt: skip
    assert found[NOTHING]["followed"]["episodes"] == 16
    assert "other" not in found[NOTHING]
    assert found[MOTION]["own"]["episodes"] == found[MOTION]["other"]["episodes"] == 16
    for seed, cell in enumerate(cells[1::2]):  # told by nothing; the second seed leaves the puck, which it should push
        cell["episodes"] = [one | {"done": "reach"} if seed else one for one in cell["episodes"]]
    added = added_of(cells)
    assert added.keys() == {MOTION}
    assert added[MOTION]["followed"]["added"] == 0.25, "of two tasks and two seeds one"
    assert added[MOTION]["success"]["interval"] == [0.0, 0.0]
    assert [one["met"] for one in goals_of(found, added)] == [True, None, True], f"{SEEN} was not measured"


def commands(rng: np.random.Generator, num: int, apart: float, width: int = 40) -> dict[str, dict[str, np.ndarray]]:
    """Of three tasks, each of which has another tenth of all numbers higher, by `apart` deviations."""
    own = np.arange(width) % 10
    tasks = enumerate(("reach", "push", "place"))
    return {task: {str(n): rng.normal(size=width) + apart * (own == at) for n in range(num)} for at, task in tasks}


def test_a_classifier_tells_what_clips_can_tell_at_most():
    rng = np.random.default_rng(0)
    clear = probe(commands(rng, 20, 4.0), commands(rng, 8, 4.0))
    assert clear["held_out"] > 0.9, clear
    assert clear["left_out"] > 0.9, clear
    assert clear["clips"] == 24
    assert set(clear["by_task"]) == {"reach", "push", "place"}
    assert abs(clear["within"] + clear["between"] - 1) < 1e-6
    alike = probe(commands(rng, 20, 0.0), commands(rng, 8, 0.0))
    assert max(alike["held_out"], alike["left_out"]) < 0.65, alike
    assert alike["between"] < clear["between"]


def test_a_task_of_few_clips_is_named_as_often_as_it_is_shown():
    """Five clips of reaching beside fifty of others, and more numbers than clips: with a constant that is penalised
    most of the others were named reaching, and without weights nothing was."""
    rng = np.random.default_rng(1)
    many, few = commands(rng, 25, 1.0, 200), commands(rng, 5, 1.0, 200)
    found = probe({**many, "reach": few["reach"]}, commands(rng, 20, 1.5, 200))
    assert found["left_out"] > 0.8, found
    assert min(found["by_task"].values()) > 0.6, found


def test_a_puck_that_is_pushed_or_carried_was_not_left():
    assert [follows(done, told) for done, told in (("reach", "reach"), ("push", "reach"), (NOT_ANY, "reach"))] == [
        True,
        False,
        False,
    ]
    assert [follows(done, "push") for done in ("push", "pick-place", "reach", NOT_ANY)] == [True, True, False, False]


def test_it_needs_clips():
    with pytest.raises(ConfigError, match="needs clips of people"):
        bench_command(None, None, Watch(lambda line: None, quick=True))


def test_robomirror_is_trained_to_its_end(tmp_path, monkeypatch):
    """A folder that a kill left behind was taken for a finished network."""
    db = hand_db(tmp_path / "db", [hand_row(0)], [], 0)
    asked = []
    monkeypatch.setattr(
        "handloom.train.loop.train", lambda recipe, db, settings, out: asked.append((settings.init, out.uri))
    )
    for clips in ("a", "a", "b"):
        people = robomirror(db.uri, clips, tmp_path)
        people.motion.mkdir(exist_ok=True)
        motion = str(tmp_path / f"motion-{clips}")
        assert asked[-2:] == [("", motion), (motion, str(tmp_path / f"understand-{clips}"))]
    (tmp_path / "motion").mkdir()
    with pytest.raises(ConfigError, match=r"no complete checkpoint at .*motion"):
        robomirror(db.uri, "a", tmp_path)


def test_an_out_of_yours_is_taken(tmp_path):
    """As `handloom train` leaves it, with a folder for each variant: it was refused as one without a checkpoint."""
    for name, variant in (("motion", "motion"), ("understand", "reconstruction")):
        kept(tmp_path / name / variant, torch.nn.Linear(1, 1), RobomirrorSettings(), {})
        (tmp_path / name / "job.json").write_text(json.dumps({"variants": [variant]}))
    people = robomirror("no database is needed", "a", tmp_path)
    assert (people.motion, people.understand) == (tmp_path / "motion", tmp_path / "understand")
    facts = next(tmp_path.rglob("reconstruction/*/*/checkpoint.json"))
    facts.write_text(facts.read_text().replace('"finished": true', '"finished": false'))
    with pytest.raises(ConfigError, match=r"understand has a training that has not ended"):
        robomirror("no database is needed", "a", tmp_path)
