"""`handloom skill`, from segments in a table to verdicts."""

import json
import threading

import cv2
import pytest
from support.fake_endpoint import Reply, fake_endpoint, said
from support.skill_segments import FRAMES, NONE, PLACE, POUR, cell, taking
from support.skill_tables import segment_table
from typer.testing import CliRunner

from handloom.api import Database
from handloom.cli import app
from handloom.errors import ConfigError, StoreError
from handloom.pipelines.remove import remove
from handloom.pipelines.skills.episodes import EpisodeLog
from handloom.pipelines.skills.skill import adapt_skill, learn_skill, match_skills
from handloom.skills.model_reader import NoAnswer
from handloom.skills.skill import Skill
from handloom.store.skills.bank import read_skill, read_skills, write_skills

FREE = [cell(0.0, "left", None, None, master="scene", slave="hand_left")]


def blind(seed: int, words: bool = False) -> list[dict]:
    """A clip in which a thing was taken and moved twice, no pose is known, and perhaps not even what was done."""
    unknown = {"grasp_pose": None, "object_box_m": None, "trajectory": [NONE] * FRAMES}
    cells = [one | unknown for one in taking(seed, PLACE)]
    return [one | {"text": one["text"] if words or one["phase"] != "manipulation" else None} for one in cells]


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
    (best, other), notes = match_skills(db, clip=ids[5])
    assert notes == []
    assert (best.name, best.verdict.accepted, best.verdict.num_checked) == ("aside", True, 3)
    assert best.parts["words"] == 1.0
    assert not other.verdict.accepted
    assert other.verdict.reasons
    assert [one.name for one in match_skills(db, text="pour water", k=1)[0]] == ["pour"]
    assert not any(one.verdict.accepted for one in match_skills(db, clip=ids[9])[0])


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


def test_clips_that_look_alike_and_are_called_different_things_are_named(tmp_path):
    names = ["put the cup aside/0", "put the cup aside/1", "throw the cup/2"]
    db, ids = segment_table(tmp_path / "db", {name: taking(seed, PLACE) for seed, name in enumerate(names)})
    notes = learn_skill(db, "mixed", ids)[1]
    assert any("the verbs of the clips differ (put 2, throw 1)" in note for note in notes)
    assert not any("verbs" in note for note in learn_skill(db, "one", ids[:2])[1])


def test_the_words_of_a_skill_are_those_of_the_clips_that_taught_it(tmp_path):
    """Clips that were left out, or went to another skill, say something else."""
    clips = {f"wave/{n}": FREE for n in range(3)}
    clips |= {"put the cup aside/0": taking(0, PLACE), "put the cup aside/2": taking(2, PLACE)}
    clips |= {"lay it down/1": taking(1, PLACE)}
    clips |= {f"pour from the jug/{n}": taking(n, POUR) for n in (10, 11, 12)}
    db, ids = segment_table(tmp_path / "db", clips)
    (skill,), _ = learn_skill(db, "aside", ids[:5])
    assert (skill.task, read_skill(db, "aside")["task"]) == ("put the cup aside", "put the cup aside")
    found, _ = learn_skill(db, "both", ids, split=True)
    assert sorted(one.task for one in found) == ["pour from the jug", "put the cup aside"]
    (skill,), _ = learn_skill(db, "undecided", ids[4:6])
    assert skill.task == "", "half of the clips are no majority"


def test_what_is_not_known_is_said(tmp_path, cli):
    """Of two clips a thing was taken and moved, and no pose is known: other verbs are other tasks, one is no skill; a
    skill of actions alone is called so, and one that was kept in spite of all cannot tell."""
    clips = {"put the cup aside/0": blind(0), "wave/1": blind(1), "fold it/2": blind(2, words=True)}
    db, ids = segment_table(tmp_path / "db", clips)
    with pytest.raises(ConfigError, match=r"different tasks: .*\(put: reach for A, do something with A.*\(wave: "):
        learn_skill(db, "odd", ids[:2])
    with pytest.raises(ConfigError, match="nothing can be recognised by these clips"):
        learn_skill(db, "odd", ids[:1])
    _, notes = learn_skill(db, "words", ids[2:])
    assert "NOTHING CAN BE RECOGNISED BY GEOMETRY" in notes[0]
    assert "the order of the steps is all that is compared" in notes[0]
    assert "executed, by the order of its 3 steps alone" in run("match", "--db", db.uri, "--clip", ids[2]).stdout
    assert "cannot tell" in run("match", "--db", db.uri, "--clip", ids[0]).stdout
    picture = tmp_path / "words.png"
    shown = run("show", "words", "--db", db.uri, "--out", str(picture))
    assert "A, B: things in the order" in shown.stdout
    drawn = cv2.imread(str(picture))
    assert drawn.shape[0] < 300, "three lines of words and no axes"
    assert (drawn < 128).any()


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
    with pytest.raises(
        ConfigError, match=r"passes no clip\nhint: of the 11 clips .* verb is 'put' \(6\), 'pour' \(3\)"
    ):
        learn_skill(db, "none", where="verb = 'fly'")
    with pytest.raises(StoreError, match=r"no skill 'asid'.*\n.*aside"):
        adapt_skill(db, "asid", ids[0])
    with pytest.raises(ConfigError, match="shows no thing"):
        adapt_skill(db, "aside", ids[9])
    with pytest.raises(ConfigError, match="--clip or --text"):
        match_skills(db)
    with pytest.raises(ConfigError, match="has no words"):
        match_skills(db, text=" ")
    with pytest.raises(ConfigError, match="got both"):
        match_skills(db, clip="", text="pour")
    with pytest.raises(ConfigError, match="k is -1"):
        match_skills(db, text="pour", k=-1)
    with pytest.raises(ConfigError, match="no UTF-8"):
        learn_skill(db, "bytes", ids[:5], task="put \udcff")
    for text in ("null", "[]", "{}"):
        with pytest.raises(ValueError, match="format None"):
            Skill.from_json(text)
    empty = Database.open(tmp_path / "empty", create=True)
    with pytest.raises(StoreError, match="no skill in"):
        match_skills(empty, text="pour")
    with pytest.raises(StoreError, match="processed yet"):
        learn_skill(empty, "a", ["x"])


@pytest.mark.parametrize(
    ("kept", "reason"),
    [
        ('{"format": 99}', "format 99, expected 1"),
        ('{"format": 1, "name": "odd"}', "not its fields: KeyError 'constraints'"),
        ("[" * 5000, "nested too deeply"),
        ('{"form', "Unterminated string"),
    ],
    ids=["newer", "fields", "deep", "cut short"],
)
def test_a_skill_that_cannot_be_read_is_named_and_left_out(tmp_path, kept, reason):
    """All others are matched; alone it is an error, and by words it is found."""
    db, ids = segment_table(tmp_path / "db", {f"put the cup aside/{seed}": taking(seed, PLACE) for seed in range(3)})
    learn_skill(db, "odd", ids[:1])
    row = read_skill(db, "odd") | {"constraints": kept}
    write_skills(db, [row], replace=True)
    with pytest.raises(StoreError, match=r"'odd' cannot be read.*\n.*--name odd --replace"):
        match_skills(db, clip=ids[2])
    learn_skill(db, "aside", ids)
    shown = run("match", "--db", db.uri, "--clip", ids[2])
    assert shown.exit_code == 0, shown.output
    assert "aside" in shown.stdout
    assert "odd" not in shown.stdout
    assert "left out: skill 'odd' cannot be read" in shown.stderr
    assert reason in shown.stderr
    assert {one.name for one in match_skills(db, text="put")[0]} == {"odd", "aside"}


def test_a_clip_in_which_nothing_was_found_is_said_to_tell_nothing(filled):
    db, ids = filled
    shown = run("match", "--db", db.uri, "--clip", ids[9]).stdout
    assert "       cannot tell\n       no segment with a thing was found in the clip" in shown


def test_whole_paths_are_told_and_drawn(tmp_path):
    """Of clips that are cut differently."""
    cells = {f"put the cup aside/{seed}": taking(seed, PLACE) for seed in range(4)}
    for one in list(cells.values())[:2]:
        up, down = one[1:3]
        up |= {"text": "move object 1", "trajectory": [*up["trajectory"], *down["trajectory"]]}
        up |= {name: down[name] for name in ("end_s", "end_frame")}
        del one[2]
    db, ids = segment_table(tmp_path / "db", cells)
    told = run("learn", "--db", db.uri, "--name", "aside", "--where", "verb = 'put'").stdout
    assert "as one path, as the clips are cut differently: carry A" in told
    run("show", "aside", "--db", db.uri, "--out", str(tmp_path / "x.png"))
    assert cv2.imread(str(tmp_path / "x.png")).shape[0] == 80 + 3 * 340  # two steps, and the whole of the second
    adapted = json.loads(run("adapt", "aside", "--db", db.uri, "--clip", ids[3], "--json").stdout)
    assert adapted["skill"]["carried"]
    assert adapted["after"]["accepted"]


def answers(num: int, body: dict) -> Reply:
    """What is asked for, as a model would say it: by the schema of the question."""
    asked = body["response_format"]["json_schema"]["schema"]["properties"]
    for name, value in {
        "constraint": {"constraint": f"held by its side, {num}"},
        "num_regions": {"num_regions": 1, "reason": "alike"},
        "succeeds": {"succeeds": False, "move_cm": [1, 0, 0], "reason": "too near"},
    }.items():
        if name in asked:
            return said(json.dumps(value))
    raise AssertionError(asked)


def reads(endpoint, *more: str) -> tuple[str, ...]:
    return ("--set", "model=m", "--set", f"base_url={endpoint.base_url}", *(f"--set={one}" for one in more))


def test_a_model_behind_an_endpoint_reads(filled):
    """Its words, its groups and its moves; how much was asked is said, and the key is sent but not kept."""
    db, ids = filled
    with fake_endpoint(lambda num, body: Reply(status=429) if num == 1 else answers(num, body)) as endpoint:
        clips = [f"--clips={one}" for one in ids[:3]]
        done = run("learn", "--db", db.uri, "--name", "read", *clips, *reads(endpoint), "--json")
        assert done.exit_code == 0, done.output
        told = json.loads(done.stdout)
        assert told["skills"][0]["reader"] == read_skill(db, "read")["reader"] == "m (vlmimic/skill-1)"
        texts = [one["text"] for one in told["skills"][0]["constraints"]]
        assert texts == ["held by its side, 0", "held by its side, 3", "held by its side, 4"]
        (cost,) = [note for note in told["notes"] if "was asked" in note]
        assert "requests 5, failed requests 1, prompt tokens 400" in cost
        parts = endpoint.requests[0][1]["messages"][0]["content"]
        assert sum(part["type"] == "image_url" for part in parts) == 1, "rows without stored frames: the picture alone"
        adapted = run("adapt", "read", "--db", db.uri, "--clip", ids[5], *reads(endpoint), "--json")
        changes = json.loads(adapted.stdout)["changes"]
        assert [(one["round"], one["moved_m"], one["reason"]) for one in changes] == [
            (number, [0.01, 0.0, 0.0], "too near") for number in (1, 2, 3, 4)
        ]


@pytest.mark.parametrize(
    ("answer", "more", "told"),
    [
        (lambda num, body: said("as you like"), ["tries=2"], "2 answers were not what was asked"),
        (lambda num, body: said('{"constraint": ""}'), ["tries=1"], "1 answers were not what was asked"),
        (lambda num, body: Reply(status=500), ["max_requests_clip=1"], "failed (500)"),
        (lambda num, body: Reply(status=401, body=b"who?"), [], "refuses the request (401)"),
        (answers, ["max_requests=2"], "the run has sent max_requests requests"),
    ],
    ids=["nonsense", "empty", "fails", "refuses", "costs too much"],
)
def test_nothing_is_kept_of_a_skill_that_the_model_did_not_read(filled, cli, answer, more, told):
    db, ids = filled
    with fake_endpoint(answer) as endpoint:
        options = (f"--clips={ids[0]}", *reads(endpoint, *more))
        code, _, err = cli("skill", "learn", "--db", db.uri, "--name", "unread", *options)
    assert code == 1
    assert told in err
    assert "nothing was written" in err
    assert "unread" not in [one["name"] for one in read_skills(db)]


def test_an_endpoint_that_is_silent_is_not_waited_for(filled, cli):
    db, ids = filled
    answered = threading.Event()
    with fake_endpoint(lambda num, body: Reply(wait=answered)) as endpoint:
        options = (f"--clips={ids[0]}", *reads(endpoint, "timeout_s=0.2", "max_requests_clip=1"))
        code, _, err = cli("skill", "learn", "--db", db.uri, "--name", "unread", *options)
        answered.set()
    assert code == 1
    assert "has not answered a request within timeout_s = 0.2" in err


def test_wrong_settings_of_a_model_are_named(filled, cli):
    db, ids = filled
    learn = ("skill", "learn", "--db", db.uri, "--name", "unread", f"--clips={ids[0]}")
    for given, told in (
        (["--set", "base=http://x"], "did you mean"),
        (["--set", "model=m", "--set", "base_url=nowhere"], "base_url is 'nowhere'"),
        (["--set", "base_url=http://localhost:1/v1"], "model"),
        (["--set", "model=m", "--set", "base_url=http://localhost:1/v1", "--set", "key_variable=NO_KEY"], "NO_KEY"),
    ):
        code, _, err = cli(*learn, *given)
        assert code == 2, err
        assert told in err


@pytest.mark.slow  # tests/stages/test_captions.py asks the same model through the same door
def test_a_model_of_this_machine_reads(filled, cli, tmp_path):
    """A tiny random one: it is shown what the other is shown, and what it says is no answer."""
    pytest.importorskip("transformers")
    from support.tiny_vlm import save_vlm

    save_vlm(tmp_path / "vlm")
    db, ids = filled
    tiny = ("--set", f"model={tmp_path / 'vlm'}", "--set", "tries=2", "--set", "max_tokens=8")
    code, _, err = cli("skill", "learn", "--db", db.uri, "--name", "unread", f"--clips={ids[0]}", *tiny)
    assert code == 1, err
    assert "2 answers were not what was asked" in err


def test_clips_that_are_removed_are_named_and_the_skill_stays(tmp_path, cli):
    db, ids = segment_table(tmp_path / "db", {f"put the cup aside/{seed}": taking(seed, PLACE) for seed in range(3)})
    learn_skill(db, "aside", ids[:2])
    assert remove(db, clips=[ids[2]]).skills == ()
    removed = CliRunner().invoke(app, ["remove", "--db", db.uri, "--clip", ids[0]])
    assert "1 skill was learned from some of these clips and it keeps what was learned: aside" in removed.stderr
    listed = run("list", "--db", db.uri)
    assert "aside  2 clips, 1 without a row  put" in listed.stdout
    shown = run("show", "aside", "--db", db.uri)
    assert f"1 of the 2 clips that taught it have no row any more ({ids[0]})" in shown.stderr
    assert match_skills(db, clip=ids[1])[0][0].verdict.accepted, "what was learned holds"
    assert run("remove", "aside", "--db", db.uri).exit_code == 0
    assert read_skills(db) == []
    code, _, err = cli("skill", "remove", "aside", "--db", db.uri)
    assert (code, "no skill 'aside'" in err) == (1, True)


def test_a_skill_is_run_and_reported(filled, tmp_path):
    db, _ = filled
    words = ["run", "aside", "--db", db.uri, "--episodes", "2", "--out", str(tmp_path / "run"), "--no-video"]
    done = run(*words, "--workers", "1")
    assert done.exit_code == 0, done.output
    assert "aside, hierarchical, seen:" in done.output
    told = json.loads((tmp_path / "run" / "run.json").read_text())
    assert (told["num_episodes"], told["mode"], told["rounds"], len(told["episodes"])) == (2, "hierarchical", 2, 2)
    assert (told["error_m"], told["reasoner"]) == (0.0, "rules")
    assert told["successes"] + sum(told["failures"].values()) == 2
    low, high = told["interval"]
    assert low <= told["success_rate"] <= high
    assert [one["seed"] for one in told["episodes"]] == [0, 1]
    scene = tmp_path / "scene.json"
    scene.write_text(json.dumps(told["episodes"][1]["scene"]))
    kept = tmp_path / "run" / "episodes.jsonl"
    head, first, second = kept.read_bytes().splitlines(keepends=True)
    marked = json.loads(first)
    marked["episode"]["seconds"] = 123.0
    kept.write_bytes(head + json.dumps(marked).encode() + b"\n" + second[:40])  # as a kill leaves it
    assert run(*words, "--workers", "1").exit_code == 0
    resumed = json.loads((tmp_path / "run" / "run.json").read_text())["episodes"]
    assert resumed == [told["episodes"][0] | {"seconds": 123.0}, told["episodes"][1]], "the first was not run again"
    assert kept.read_bytes().splitlines(keepends=True)[2] == second
    with pytest.raises(ConfigError, match=r"holds episodes of another job: mode was \"hierarchical\", is \"semantic\""):
        CliRunner().invoke(app, ["skill", *words, "--mode", "semantic"], catch_exceptions=False)
    again = run("run", "aside", "--db", db.uri, "--episodes", "1", "--seed", "1", "--scene", str(scene), "--json",
                "--workers", "1")  # fmt: skip
    assert json.loads(again.stdout)["episodes"][0] == told["episodes"][1]


def test_a_folder_of_episodes_is_of_one_process_at_a_time(tmp_path):
    with EpisodeLog(tmp_path, {"mode": "semantic"}):
        for resume in (True, False):
            before = (tmp_path / EpisodeLog.FILE).read_bytes()
            with pytest.raises(StoreError, match=r"episodes\.jsonl is in use by another process"):
                EpisodeLog(tmp_path, {"mode": "semantic"}, resume)
            assert (tmp_path / EpisodeLog.FILE).read_bytes() == before
    for _ in range(2):  # what was refused lets go of it, too
        with pytest.raises(ConfigError, match="of another job"):
            EpisodeLog(tmp_path, {"mode": "best"})
    EpisodeLog(tmp_path, {"mode": "best"}, resume=False).__exit__()
    assert len((tmp_path / EpisodeLog.FILE).read_bytes().splitlines()) == 1


def test_a_model_reasons_about_failures(filled, tmp_path):
    """It is shown the table; answers that are no remedies are refused and counted, and rules choose."""
    db, _ = filled
    scene = tmp_path / "wide.json"
    thing = {"name": "A", "kind": "box", "size_m": [0.2, 0.2, 0.05], "place_m": [0.05, 0.1]}
    scene.write_text(json.dumps({"things": [thing], "goals": [{"thing": "A", "place_m": [0.1, 0, 0]}]}))
    good = said('{"remedies": ["carry_higher"], "reason": "it is wide"}')
    with fake_endpoint(
        lambda num, body: good if num == 0 else said('{"remedies": ["pray"], "reason": "x"}')
    ) as endpoint:
        words = ("run", "aside", "--db", db.uri, "--episodes", "1", "--scene", str(scene), "--rounds", "2")
        done = run(*words, *reads(endpoint, "tries=1"), "--json")
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert (told["reasoner"], told["error_m"]) == ("m (vlmimic/failure-1)", 0.0)
    attempts = told["episodes"][0]["attempts"]
    assert [one["reason"] for one in attempts] == ["unreachable_grasp"] * 3
    assert [one["remedies"] for one in attempts] == [["carry_higher"], ["from_higher"], []]
    assert "m (vlmimic/failure-1) chose remedies after 2 failures; after 1 it gave none that can be used" in done.stderr
    parts = endpoint.requests[0][1]["messages"][0]["content"]
    assert sum(part["type"] == "image_url" for part in parts) == 1

    out = tmp_path / "dead"
    with fake_endpoint(lambda num, body: Reply(status=401)) as endpoint:
        words = ["skill", *words, "--out", str(out), "--no-video", *reads(endpoint)]
        with pytest.raises(NoAnswer, match=r"the model has not answered yet: .*refuses the request \(401\)"):
            CliRunner().invoke(app, words, catch_exceptions=False)
    assert len((out / "episodes.jsonl").read_bytes().splitlines()) == 1, "its episode is not kept"


def test_what_cannot_be_run_is_refused(filled, tmp_path):
    db, _ = filled
    for name, holds in (("mine", ["best.mp4"]), ("trained", ["episodes.jsonl", "job.json"])):
        (tmp_path / name).mkdir()
        for one in holds:
            (tmp_path / name / one).write_text("mine")
        words = ["skill", "run", "aside", "--db", db.uri, "--out", str(tmp_path / name), "--no-video", "--no-resume"]
        with pytest.raises(ConfigError, match=rf"{name} holds other files: {', '.join(holds)}"):
            CliRunner().invoke(app, words, catch_exceptions=False)
        assert {one.name: one.read_text() for one in (tmp_path / name).iterdir()} == dict.fromkeys(holds, "mine")
    for words, problem in (
        (["--mode", "best"], "--mode 'best' is not known"),
        (["--scene", str(tmp_path / "none.json")], "cannot be read"),
        (["--error-m", "2"], "--error-m 2"),
    ):
        with pytest.raises(ConfigError, match=problem):
            CliRunner().invoke(app, ["skill", "run", "aside", "--db", db.uri, *words], catch_exceptions=False)
