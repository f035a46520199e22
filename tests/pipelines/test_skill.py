"""`handloom skill`, from segments in a table to verdicts."""

import json

import cv2
import pytest
from support.skill_segments import PLACE, POUR, cell, taking
from support.skill_tables import segment_table
from typer.testing import CliRunner

from handloom.api import Database
from handloom.cli import app
from handloom.errors import ConfigError, StoreError
from handloom.pipelines.skills.skill import adapt_skill, learn_skill, match_skills
from handloom.store.skills.bank import read_skill, read_skills

FREE = [cell(0.0, "left", None, None, master="scene", slave="hand_left")]


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    clips = {f"put the cup aside/{seed}": taking(seed, PLACE) for seed in range(6)}
    clips |= {f"pour from the jug/{seed}": taking(seed, POUR) for seed in range(10, 13)}
    db, ids = segment_table(tmp_path_factory.mktemp("skills") / "db", clips | {"wave/0": FREE, "late/0": None})
    learn_skill(db, "aside", ids[:5])
    learn_skill(db, "pour", where="narration LIKE 'pour%'")
    return db, ids


def run(*words: str):
    return CliRunner().invoke(app, ["skill", *words])


def test_a_skill_is_kept_with_its_origin(filled):
    db, ids = filled
    row = read_skill(db, "aside")
    assert row["clip_ids"] == ids[:5]
    assert (row["task"], row["steps"]) == ("put the cup aside", "reach for A, lift A, lower A")
    assert (row["num_clips"], row["reader"], row["stage_keys"]) == (5, "rules", ["1" * 16])
    assert row["clips_version"] == db.version
    assert row["text"] is None
    assert [one["name"] for one in read_skills(db)] == ["aside", "pour"]


def test_clips_are_matched_with_reasons(filled):
    db, ids = filled
    best, other = match_skills(db, clip=ids[5])
    assert (best.name, best.verdict.accepted, best.verdict.num_checked) == ("aside", True, 3)
    assert best.parts["words"] == 1.0
    assert not other.verdict.accepted
    assert other.verdict.reasons
    assert [one.name for one in match_skills(db, text="pour water", k=1)] == ["pour"]
    assert not any(one.verdict.accepted for one in match_skills(db, clip=ids[9]))


def test_the_command_line(filled, tmp_path):
    db, ids = filled
    listed = run("list", "--db", db.uri)
    assert listed.exit_code == 0, listed.output
    assert "aside  5 clips  put the cup aside" in listed.stdout
    matched = json.loads(run("match", "--db", db.uri, "--clip", ids[5], "--json").stdout)
    assert matched[0]["verdict"]["accepted"]
    assert "executed, geometry of 3 of 3 steps compared" in run("match", "--db", db.uri, "--clip", ids[5]).stdout
    picture = tmp_path / "aside.png"
    shown = run("show", "aside", "--db", db.uri, "--out", str(picture))
    assert "the main hand takes A" in shown.stdout
    assert cv2.imread(str(picture)).std() > 5
    assert json.loads(run("show", "aside", "--db", db.uri, "--json").stdout)["name"] == "aside"
    adapted = json.loads(run("adapt", "aside", "--db", db.uri, "--clip", ids[5], "--json").stdout)
    assert adapted["after"]["accepted"]
    assert " x 10.0 cm" in run("adapt", "aside", "--db", db.uri, "--clip", ids[5]).stdout


def test_one_clip_is_learned_and_called_weak(filled):
    db, ids = filled
    done = run("learn", "--db", db.uri, "--name", "from-one", "--clips", ids[6], "--task", "pour", "--json")
    assert done.exit_code == 0, done.output
    assert "learned from one clip" in done.stderr
    assert json.loads(done.stdout)["skills"][0]["clip_ids"] == [ids[6]]
    with pytest.raises(ConfigError, match="already"):
        learn_skill(db, "from-one", [ids[6]])
    learn_skill(db, "from-one", [ids[7]], replace=True)
    assert read_skill(db, "from-one")["clip_ids"] == [ids[7]]


@pytest.mark.parametrize(
    ("chosen", "error", "told"),
    [
        ([0, 1, 6, 7], ConfigError, "different tasks"),
        ([9], ConfigError, "no segment with a thing"),
        ([10], StoreError, "no segments were computed"),
        ([], ConfigError, "takes --clips or --where"),
    ],
)
def test_unusable_clips_are_refused(filled, chosen, error, told):
    db, ids = filled
    with pytest.raises(error, match=told):
        learn_skill(db, "refused", [ids[number] for number in chosen])
    assert "refused" not in [one["name"] for one in read_skills(db)]


def test_wrong_questions_say_what_is_wrong(filled, tmp_path):
    db, ids = filled
    with pytest.raises(ConfigError, match="is no name"):
        learn_skill(db, "a b", ids[:5])
    with pytest.raises(ConfigError, match="passes no clip"):
        learn_skill(db, "none", where="verb = 'fly'")
    with pytest.raises(StoreError, match=r"no skill 'asid'.*\n.*aside"):
        adapt_skill(db, "asid", ids[0])
    with pytest.raises(ConfigError, match="shows no thing"):
        adapt_skill(db, "aside", ids[9])
    with pytest.raises(ConfigError, match="--clip or --text"):
        match_skills(db)
    with pytest.raises(ConfigError, match="has no words"):
        match_skills(db, text=" ")
    empty = Database.open(tmp_path / "empty", create=True)
    with pytest.raises(StoreError, match="no skill in"):
        match_skills(empty, text="pour")
    with pytest.raises(StoreError, match="processed yet"):
        learn_skill(empty, "a", ["x"])
