"""`handloom train vlmimic`: from segments in a table to skills, held-out clips and episodes."""

import json
from pathlib import Path

import pytest
from support.skill_segments import PLACE, POUR, taking
from support.skill_tables import segment_table
from typer.testing import CliRunner

from handloom.cli import app
from handloom.errors import ConfigError
from handloom.pipelines.skills.training.tasks import grouped, in_turn, name_of, unique_names
from handloom.store.skills.bank import delete_skill, read_skills

SMALL = ("--set", "episodes=1", "--set", 'scenes=["seen"]', "--set", 'modes=["hierarchical", "replay"]',
         "--set", "video=false", "--workers", "1", "--json")  # fmt: skip


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    clips = {f"put the cup aside/{seed}": taking(seed, PLACE) for seed in range(6)}
    clips |= {f"pour from the jug/{seed}": taking(seed, POUR) for seed in range(10, 14)}
    return segment_table(
        tmp_path_factory.mktemp("tasks") / "db", clips | {"wave/0": [], "wave/1": [], "late/0": None}, apart=10
    )


def train(db, out, *more):
    return CliRunner().invoke(app, ["train", "vlmimic", "--db", db.uri, "--out", str(out), *SMALL, *more])


def test_skills_of_all_tasks_are_learned_judged_and_run(table, tmp_path):
    """A job that was killed goes on: what is kept is not made again, and the report is the same."""
    db, _ = table
    out = tmp_path / "job"
    done = train(db, out)
    assert done.exit_code == 0, done.output
    assert "wave: taught by 1 clip, 1 held out; no skill: no segment with a thing" in done.stderr
    summary = json.loads(done.stdout)
    assert (summary["exit"], summary["tasks"], summary["skills"]) == ("done", 3, 2)
    told = json.loads((out / "report.json").read_text())
    assert [one["name"] for one in read_skills(db)] == ["pour", "put"]
    for task in told["tasks"]:
        assert not {*task["teach"]} & {*task["held_out"]}
        assert len(task["teach"]) <= 5
        assert len(task["teach"]) + len(task["held_out"]) == task["clips"]
    own, others = (told["judged"]["hierarchical"][side] for side in ("own", "others"))
    assert own["share"] == 1.0
    assert (others["answers"].get("executed", 0), others["share"]) == (0, 0.0)
    assert own["clips"] == sum(len(one["held_out"]) for one in told["tasks"] if one["skills"])
    assert told["robot"]["seen"]["hierarchical"]["episodes"] == 2
    assert "1 clip has no segments yet and is left out" in told["notes"][0]
    assert told["notes"][1].startswith("pour: 'pour' is not executed as such: the arm ")
    assert f"note: {told['notes'][1]}" in done.stderr
    page = (out / "report.html").read_text()
    assert "pour" in page
    assert "data:image/png;base64" in page
    assert page.index("wave has taught no skill: no segment with a thing") < page.index("<h2>")

    kept = out / "episodes.jsonl"
    lines = kept.read_bytes().splitlines(keepends=True)
    kept.write_bytes(b"".join(lines[:-1]) + lines[-1][:30])
    (out / "report.json").unlink()
    delete_skill(db, "pour")
    assert train(db, out).exit_code == 0
    assert json.loads((out / "report.json").read_text()) == told
    assert sorted(kept.read_bytes().splitlines()) == sorted(b"".join(lines).splitlines())
    assert [one["name"] for one in read_skills(db)] == ["pour", "put"]
    with pytest.raises(ConfigError, match=r"holds a job with other settings: seed was 0, is 1"):
        CliRunner().invoke(
            app, ["train", "vlmimic", "--db", db.uri, "--out", str(out), *SMALL, "--set", "seed=1"],
            catch_exceptions=False,
        )  # fmt: skip


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (
            ["--set", "where=verb = 'fly'"],
            r"the filter \"verb = 'fly'\" passes no clip of people .*\nhint: .*'put' \(6\)",
        ),
        (["--set", "where=verb = 'wave'"], "no task has taught a skill: wave: no segment with a thing"),
        (["--set", "episode=3"], "did you mean episodes"),
        (["--set", 'modes=["best"]'], "modes"),
        (["--size", "huge"], "no size 'huge'\nhint: give one of small, full"),
    ],
    ids=["filter", "nothing", "name", "mode", "size"],
)
def test_what_cannot_be_learned_is_refused(table, tmp_path, more, told):
    db, _ = table
    words = ["train", "vlmimic", "--db", db.uri, "--out", str(tmp_path / "job"), *more]
    with pytest.raises(ConfigError, match=told):
        CliRunner().invoke(app, words, catch_exceptions=False)


def test_skills_of_others_are_not_replaced(tmp_path):
    db, ids = segment_table(tmp_path / "db", {f"put the cup aside/{seed}": taking(seed, PLACE) for seed in range(3)})
    other = ["skill", "learn", "--db", db.uri, "--name", "put", "--clips", ids[0], "--task", "mine"]
    assert CliRunner().invoke(app, other).exit_code == 0
    words = ["train", "vlmimic", "--db", db.uri, "--out", str(tmp_path / "job"), "--set", "episodes=0"]
    with pytest.raises(ConfigError, match=r"has other skills of the names put\nhint: --set replace=true"):
        CliRunner().invoke(app, words, catch_exceptions=False)
    assert read_skills(db)[0]["task"] == "mine"
    done = CliRunner().invoke(app, [*words, "--set", "replace=true"])
    assert "no robot: episodes is 0" in done.stderr
    assert done.exit_code == 0
    assert read_skills(db)[0]["task"] != "mine"


def test_a_job_that_was_refused_can_be_corrected_in_its_folder(tmp_path):
    """It has kept nothing, or skills alone, whose names may change; its leftovers are its own without `job.json`."""
    clips = {f"put the cup aside/{seed}": taking(seed, PLACE) for seed in range(4)}
    db, ids = segment_table(tmp_path / "db", clips, apart=10)
    out = tmp_path / "job"
    words = ["train", "vlmimic", "--db", db.uri, "--out", str(out), "--set", "episodes=0"]

    def refused(problem, *more):
        with pytest.raises(ConfigError, match=problem):
            CliRunner().invoke(app, [*words, *more], catch_exceptions=False)

    refused("passes no clip of people", "--set", "where=verb = 'putt'")
    (out / "job.json").write_text(json.dumps({"recipe": "vlmimic", "db": "other", "version": 9, "settings": {}}))
    told = json.loads(CliRunner().invoke(app, [*words, "--json"]).stdout)
    assert told["skills"] == 1, "a job that has kept nothing is no job"
    (skill,) = read_skills(db)
    refused("holds a job with other settings: prefix was '', is 'my-'", "--set", "prefix=my-")

    (out / "job.json").write_text("{")
    refused("holds a job of the recipe vlmimic whose job.json is damaged\nhint: .*--no-resume")
    assert CliRunner().invoke(app, [*words, "--no-resume"]).exit_code == 0, "its own skills are in nobody's way"
    (out / "job.json").unlink()
    refused("whose job.json is missing")
    assert CliRunner().invoke(app, [*words, "--no-resume"]).exit_code == 0
    (out / "mine.txt").touch()
    (out / "job.json").unlink()
    refused("holds other files: mine.txt", "--no-resume")

    other = next(clip for clip in ids if clip not in skill["clip_ids"])
    words[5] = str(tmp_path / "second")
    for clip, kept in ((skill["clip_ids"][0], ["job.json", "skills"]), (other, [])):
        learn = ["skill", "learn", "--db", db.uri, "--name", "put", "--clips", clip, "--task", "mine", "--replace"]
        assert CliRunner().invoke(app, learn).exit_code == 0
        refused("has other skills of the names put\nhint: .*--set prefix=mine-")
        assert sorted(path.name for path in Path(words[5]).glob("[a-z]*")) == kept, "told before it is learned"
        assert CliRunner().invoke(app, [*words, "--set", "prefix=mine-"]).exit_code == 0
        assert [one["name"] for one in read_skills(db)] == ["mine-put", "put"]
        assert [path.name for path in Path(words[5], "skills").iterdir()] == ["mine-put.json"]
        delete_skill(db, "mine-put")
        words[5] = str(tmp_path / "third")


def test_rare_things_of_a_verb_are_one_task():
    rows = [{"verb": verb, "noun": noun} for verb, noun in
            [("put", "cup")] * 3 + [("Put", "can"), ("put", "box"), (None, "cup"), ("", None)]]  # fmt: skip
    assert {words: len(its) for words, its in grouped(rows, 3).items()} == {
        ("put", "cup"): 3,
        ("put", ""): 2,
        ("", ""): 2,
    }
    assert [name_of(*words) for words in (("put", "Cup 2"), ("take out", ""), ("", ""), ("取る", ""))] == [
        "put-Cup-2", "take-out", "unnamed", "unnamed"]  # fmt: skip
    assert unique_names(["a", "b", "a"]) == ["a", "b", "a.2"]
    assert in_turn([["a", "b"], ["c"], []], 2) == ["a", "c"]
    assert in_turn([["a", "b"], ["c"]], 9) == ["a", "c", "b"]
