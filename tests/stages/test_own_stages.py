"""Stages of one's own: every fault is named before a run begins, or costs that stage of that clip."""

from __future__ import annotations

import json
import logging

import numpy as np
import pyarrow as pa
import pytest
from support import own_stages
from support.rows import make_clip, make_row

from handloom.errors import ClipError, ConfigError
from handloom.schemas.settings import RunConfig, Settings
from handloom.schemas.tables.reject import Reject
from handloom.schemas.tables.row import row_arrays
from handloom.stages import registry
from handloom.stages.extract import Extractor
from handloom.stages.own import MAX_PRINTED, OwnStage, clip_input, compute_own
from handloom.stages.registry import own_identities, stage_graph
from handloom.stages.stage import FrameRequest, embedding_field, frame_field
from handloom.stages.versions import check_same
from handloom.workers.ledger import Ledger

CLIPS = [make_clip(number) for number in range(3)]


def settings_of(**stages) -> Settings:
    """`name="Class"`, or `name=("Class", {settings})`."""
    declared = {}
    for name, what in stages.items():
        cls, given = what if isinstance(what, tuple) else (what, {})
        declared[name] = {"class": cls if ":" in cls else f"{own_stages.HERE}:{cls}", "settings": given}
    return RunConfig(**{"stages": declared}).settings()


def stage(cls: str, **given) -> OwnStage:
    return stage_graph(settings_of(mine=(cls, given)))["mine"]


def results(own: OwnStage, num_clips: int = 1):
    return compute_own(own, [clip_input(clip, own, {}, None) for clip in CLIPS[:num_clips]])


@pytest.mark.parametrize(
    ("stages", "told"),
    [
        ({"mine": "nowhere.at_all:Mine"}, "nowhere.at_all cannot be imported: ModuleNotFoundError"),
        ({"mine": "support.own_stages"}, "'support.own_stages:support.own_stages' is not package"),
        ({"mine": ":Mine"}, "is not package.module:Name"),
        ({"mine": "Nobody"}, "support.own_stages has no Nobody"),
        ({"mine": "NoStage"}, "support.own_stages:NoStage is no Stage"),
        ({"mine": "MEGABYTE"}, "support.own_stages:MEGABYTE is no Stage"),
        ({"Mine": "Reads"}, "small letters"),
        (
            {"mine": ("Brightness", {"scale": "x", "other": 1})},
            'stages.mine.settings.scale = "x": input should be a valid number.*; there is no setting '
            r"stages.mine.settings.other\nhint: settings of .*:Brightness, in \[stages.mine.settings\]: scale$",
        ),
        ({"mine": "NeedsMore"}, "cannot be made: TypeError"),
        ({"mine": "RaisesWhenMade"}, "cannot be made: KeyError: 'weights'"),
        ({"mine": "NoFields"}, "cannot be made: NotImplementedError"),
        ({"mine": "TextColumns"}, "columns is 'hand_visible'"),
        ({"mine": "NoRequest"}, "frames is 8"),
        ({"mine": "NumberedVersion"}, "version is 2"),
        ({"mine": "PlainSettings"}, "Settings is no subclass of handloom.stages.StageSettings"),
        ({"none": "Reads"}, "--recompute none has a meaning of its own"),
        ({"all": "Reads"}, "--recompute all has a meaning of its own"),
        ({"hands_2d": "Reads"}, "handloom brings the stage hands_2d"),
        ({"mine": ("Reads", {"writes": ["hand_left"]})}, "hand_left is one that handloom writes"),
        ({"mine": ("Reads", {"writes": ["narration"]})}, "narration is one that handloom writes"),
        ({"mine": ("Reads", {"writes": ["stage_key_mine"]})}, "the name is taken"),
        ({"mine": ("Reads", {"writes": ["a.b"]})}, "a.b has no name of letters"),
        ({"mine": ("Reads", {"writes": ["embedding_mine"]})}, "embedding_field"),
        ({"mine": ("Reads", {"writes": []})}, "at least one"),
        ({"one": "Reads", "two": "Reads"}, "mine is written by 'one' and by the stage 'two'"),
        ({"mine": ("Reads", {"writes": ["a", "a"]})}, "written by 'mine' and by the stage 'mine'"),
        ({"mine": ("Reads", {"reads": ["hand_visibel"]})}, "'mine' reads 'hand_visibel'.*near: hand_visible"),
        ({"mine": ("Reads", {"reads": ["gripper_closed"]})}, "left out of the settings"),
        ({"mine": ("Reads", {"reads": ["host"]})}, "reads 'host', which no stage writes"),
        ({"mine": ("Reads", {"reads": ["mine"]})}, "circle: mine -> mine"),
        (
            {
                "one": ("Reads", {"reads": ["b"], "writes": ["a"]}),
                "two": ("Reads", {"reads": ["a"], "writes": ["b"]}),
            },
            "circle: .*one.*two",
        ),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else None,
)
def test_a_wrong_declaration_is_an_error_that_names_it(stages, told):
    if stages == {"mine": "support.own_stages"}:
        declared = RunConfig(**{"stages": {"mine": {"class": "support.own_stages"}}}).settings()
        told = "'support.own_stages' is not package.module:Name"
    else:
        declared = settings_of(**stages)
    with pytest.raises(ConfigError, match=f"(?s){told}"):
        stage_graph(declared)


@pytest.mark.parametrize(
    ("field", "told"),
    [
        (pa.field("typed", pa.float32(), nullable=False), "is not nullable"),
        (pa.field("typed", pa.list_(pa.struct([pa.field("a", pa.int8(), nullable=False)]))), "is not nullable"),
        (pa.field("typed", pa.null()), "is null, which cannot be stored"),
        (pa.field("typed", pa.month_day_nano_interval()), "month_day_nano_interval, which cannot be stored"),
        (pa.field("typed", pa.list_(pa.string(), 2)), "cannot be stored.*lists of a fixed size hold numbers"),
        (pa.field("typed", pa.list_(pa.list_(pa.list_(pa.int8()), 2))), "cannot be stored"),
        (pa.field("typed", pa.list_(pa.struct([("a", pa.int8())]), 2)), "cannot be stored"),
        (pa.field("typed", pa.list_(pa.float32(), 0)), "cannot be stored"),
        (pa.field("typed", pa.list_(pa.struct([]))), "cannot be stored"),
        (pa.field("typed", pa.struct([("a", pa.int8()), ("a", pa.int8())])), "cannot be stored"),
        (pa.field("typed", pa.list_(pa.dense_union([pa.field("a", pa.int8())]))), "cannot be stored"),
        (pa.field("typed", pa.list_(pa.float32(), 2), metadata={"encoder": "x"}), "embedding_field"),
        ("typed", "gives no list of Arrow fields"),
    ],
)
def test_columns_that_no_table_can_have(field, told, monkeypatch):
    monkeypatch.setattr(own_stages.Typed, "field", field)
    with pytest.raises(ConfigError, match=f"(?s){told}"):
        stage("Typed")


def test_a_column_by_frame_has_a_value_for_each_frame(monkeypatch):
    monkeypatch.setattr(own_stages.Typed, "field", frame_field("typed", pa.float32(), 2))
    own = stage("Typed")
    assert "frame_s" in own.reads_columns
    for shape, fits in (((4, 2), True), ((3, 2), False), ((4, 3), False)):
        monkeypatch.setattr(own_stages.Typed, "give", staticmethod(lambda shape=shape: np.zeros(shape)))
        (found,) = compute_own(own, [clip_input(CLIPS[0], own, {"frame_s": np.arange(4.0)}, None)])
        assert isinstance(found, dict) == fits
    monkeypatch.setattr(own_stages.Typed, "give", staticmethod(lambda: np.zeros((3, 2))))
    (error,) = compute_own(own, [clip_input(CLIPS[0], own, {"frame_s": np.arange(4.0)}, None)])
    assert "has a value for each frame, compute() gave 3 for 4" in error.problem
    for kind, width in ((pa.string(), None), (pa.float32(), 0)):
        with pytest.raises(ConfigError, match="a kind of number, and a width of 1 or more"):
            frame_field("typed", kind, width)
    monkeypatch.setattr(
        own_stages.Typed, "field", pa.field("typed", pa.float32(), metadata={"handloom_per_frame": "true"})
    )
    with pytest.raises(ConfigError, match=r"make it with handloom.stages.frame_field"):
        stage("Typed")


def test_an_embedding_has_a_width():
    with pytest.raises(ConfigError, match="width of 1 or more"):
        embedding_field("mine", 0, model="m", version="1")


def test_what_is_read_gives_order_and_keys():
    first = ("Reads", {"reads": ["mine"], "writes": ["first"]})
    graph = stage_graph(settings_of(later=first, mine=("Reads", {"reads": ["hand_visible", "narration", "end_s"]})))
    assert graph.names.index("hands_2d") < graph.names.index("mine") < graph.names.index("later")
    assert graph["mine"].reads_stages == ("probe", "hands_2d")
    assert graph["mine"].clip_fields == ("narration", "end_s")
    assert graph.dependents(["mine"]) == ["mine", "later"]


def keys_with(**stages) -> dict[str, str]:
    settings = settings_of(**stages)
    return stage_graph(settings).keys(own_identities(settings))


def test_keys_follow_settings_and_columns():
    before = keys_with(mine="Reads", later=("Reads", {"reads": ["mine"], "writes": ["l"]}), words="Words")
    other = keys_with(
        mine=("Reads", {"writes": ["mine", "m"]}), later=("Reads", {"reads": ["mine"], "writes": ["l"]}), words="Words"
    )
    assert {name for name in before if before[name] != other[name]} == {"mine", "later"}


def test_numbers_of_a_run_are_summed_and_bounded():
    """Alone a stage counts by itself; in a run the ledger does, for all workers, by the same rule."""
    ledger, alone, first, second = Ledger(), *(stage("Reads").stage for _ in range(3))
    first.count_in = second.count_in = ledger.count
    for one, other in ((alone, alone), (first, second)):
        assert one.count("requests", 2, most=3)
        assert not other.count("requests", 2, most=3)
        assert other.count("requests", most=3)
        assert one.count("tokens", 812.5)
    assert ledger.stage_counts() == {"mine": {"requests": 3, "tokens": 812.5}}
    assert alone.counted == {"requests": 3, "tokens": 812.5}
    assert not first.counted


def test_a_set_among_the_settings_gives_one_key():
    """A set's order is another one in every process: its rows were outdated in each run."""
    words = sorted({"open", "close", "take", "put", "cut", "wash"}, key=lambda word: word[1:])
    given = {"verbs": words, "by_hand": {"left": words, "right": []}, "groups": [words]}
    made = [stage("ReadsSets", **given).key_settings()]
    made.append(
        stage("ReadsSets", verbs=words[::-1], by_hand={"right": [], "left": words[2:] + words[:2]}, groups=[words])
    )
    assert made[0]["verbs"] == sorted(words)
    assert made[0]["by_hand"] == {"left": sorted(words), "right": []}
    assert made[0]["groups"] == [sorted(words)]
    assert made[0] == made[1].key_settings()


def test_settings_without_an_end_are_recorded_as_they_are():
    """inf was recorded as null: the next run, with the settings of the database, refused it."""
    declared = settings_of(mine=("Brightness", {"scale": np.inf}))
    recorded = json.loads(json.dumps(declared.model_dump(mode="json")))
    again = Settings(**recorded)
    assert stage_graph(again)["mine"].key_settings() == {"scale": np.inf}
    assert json.loads(RunConfig(**recorded).model_dump_json())["stages"]["mine"]["settings"] == {"scale": "Infinity"}


def test_another_type_is_another_key(monkeypatch):
    before = keys_with(mine="Typed")
    monkeypatch.setattr(own_stages.Typed, "field", pa.field("typed", pa.list_(pa.float64())))
    assert before["mine"] != keys_with(mine="Typed")["mine"]


def test_an_identity_is_the_same_each_time():
    with pytest.raises(ConfigError, match="gives 'made' as '0' and, asked again, as '1'"):
        own_identities(settings_of(mine="Unstable"))
    with pytest.raises(ConfigError, match=r"cannot tell its identity: FileNotFoundError: weights\.bin"):
        own_identities(settings_of(mine="CannotTell"))


def test_a_worker_with_another_version_is_refused(monkeypatch):
    ours = own_identities(settings_of(mine="Reads"))
    monkeypatch.setattr(own_stages.Reads, "version", "2")
    theirs = own_identities(settings_of(mine="Reads"))
    with pytest.raises(ConfigError, match=r'(?s)worker on node7.*stage mine is .*"version": "2".*"version": "1"'):
        check_same(ours, theirs, "node7")


@pytest.mark.parametrize(
    ("field", "value", "told"),
    [
        (pa.field("typed", pa.list_(pa.float32())), 1.0, "compute() gave a float"),
        (pa.field("typed", pa.list_(pa.float32())), np.float64(1.0), "compute() gave a float64"),
        (pa.field("typed", pa.list_(pa.float32())), np.array(["a"]), "compute() gave an array <U1 (1,)"),
        (pa.field("typed", pa.list_(pa.float32())), np.array([1e300]), "above 3.4e+38"),
        (pa.field("typed", pa.list_(pa.int32())), np.array([1.0, 2.0]), "no whole numbers"),
        (pa.field("typed", pa.int32()), 1.5, "1.5"),
        (pa.field("typed", pa.int32()), np.float32(1.5), "1.5"),
        (pa.field("typed", pa.list_(pa.int32())), [1, 1.5], "1.5"),
        (pa.field("typed", pa.struct([("a", pa.int8())])), {"a": 1.0}, "1.0"),
        (pa.field("typed", pa.int8()), 1000, "1000"),
        (pa.field("typed", pa.int8()), np.int64(1000), "1000"),
        (pa.field("typed", pa.bool_()), 1, "compute() gave a int"),
        (pa.field("typed", pa.string()), 5, "compute() gave a int"),
        (pa.field("typed", pa.list_(pa.list_(pa.float32(), 4))), np.zeros((3, 5)), "list"),
        (pa.field("typed", pa.list_(pa.list_(pa.float32(), 4))), np.zeros(4), "1 dimensions, expected 2"),
        (pa.field("typed", pa.list_(pa.float32())), object(), "compute() gave a object"),
        (embedding_field("typed", 2, model="m", version="1"), np.ones(2), "unit norm, this one 1.41421"),
        (embedding_field("typed", 2, model="m", version="1"), np.array([np.nan, 1.0]), "unit norm, this one nan"),
        (embedding_field("typed", 2, model="m", version="1"), [0.0, None], "unit norm, this one nan"),
        (embedding_field("typed", 2, model="m", version="1"), np.array([1.0, 0, 0]), "list"),
    ],
)
def test_a_value_that_does_not_fit_is_a_reject(field, value, told, monkeypatch):
    monkeypatch.setattr(own_stages.Typed, "field", field)
    monkeypatch.setattr(own_stages.Typed, "give", staticmethod(lambda: value))
    (error,) = results(stage("Typed"))
    assert (error.reason, error.stage, error.clip_id) == ("bad_output", "mine", CLIPS[0].clip_id)
    assert told in error.problem
    assert f"the column {field.name} is " in error.problem
    assert "--retry-rejects" in error.hint


@pytest.mark.parametrize(
    ("kind", "value", "stored"),
    [
        (pa.list_(pa.float32()), None, None),
        (pa.list_(pa.float32()), np.array([np.nan, 1.0]), "nan 1"),
        (pa.list_(pa.float32()), np.array([np.inf]), [np.inf]),
        (pa.list_(pa.float32()), np.array([1, 2]), [1, 2]),
        (pa.list_(pa.list_(pa.float32(), 4)), np.ones((2, 2, 2)), [[1] * 4] * 2),
        (pa.list_(pa.list_(pa.float32(), 4)), np.ones((0, 2, 2)), []),
        (pa.list_(pa.list_(pa.float32(), 2), 2), np.ones((2, 2)), [[1, 1]] * 2),
        (pa.list_(pa.list_(pa.list_(pa.float32(), 2), 2)), np.ones((3, 2, 2)), [[[1, 1]] * 2] * 3),
        (pa.list_(pa.list_(pa.list_(pa.float32(), 2), 2)), np.ones((0, 2, 2)), []),
        (pa.int32(), np.int64(3), 3),
        (pa.float32(), np.float64(0.5), 0.5),
        (pa.string(), "cup", "cup"),
        (pa.list_(pa.string()), ["cup", None], ["cup", None]),
        (pa.struct([("a", pa.int32())]), {"a": 1}, {"a": 1}),
        (pa.binary(), b"\x00", b"\x00"),
    ],
)
def test_values_that_fit(kind, value, stored, monkeypatch):
    monkeypatch.setattr(own_stages.Typed, "field", pa.field("typed", kind))
    monkeypatch.setattr(own_stages.Typed, "give", staticmethod(lambda: value))
    (cells,) = results(stage("Typed"))
    found = cells["typed"][0].as_py()
    if stored == "nan 1":
        assert np.isnan(found[0])
        assert found[1] == 1
    else:
        assert found == stored
    assert cells["typed"].type == kind


@pytest.mark.parametrize("given", [[], [{}], [{"typed": None}] * 3, None, "ab", [{"typed": None}, 5]])
def test_a_wrong_number_of_results(given, monkeypatch):
    monkeypatch.setattr(own_stages.Typed, "compute", lambda self, clips: given)
    errors = results(stage("Typed"), 2)
    if given == [{"typed": None}, 5]:
        assert "compute() gave int" in errors[1].problem
        return
    assert {error.reason for error in errors} == {"bad_output"}
    assert [error.clip_id for error in errors] == [clip.clip_id for clip in CLIPS[:2]]


def test_one_array_for_several_clips_is_seen():
    for cls, told in (("OneArray", "the same array of mine"), ("OneDict", "the same dict")):
        assert all(told in error.problem for error in results(stage(cls), 3))
        assert isinstance(results(stage(cls), 1)[0], dict)
    assert all(isinstance(cells, dict) for cells in results(stage("Constant"), 3))


def test_one_clip_that_fails_costs_that_clip_alone():
    found = results(stage("Fails"), 3)
    assert isinstance(found[0], dict)
    assert [error.reason for error in found[1:]] == ["bug", "bug"]
    assert found[1].problem.startswith(f"ValueError: no idea of {CLIPS[1].clip_id}\n  at ")
    assert "own_stages.py" in found[1].problem


@pytest.mark.parametrize(("cls", "told"), [("Exits", "SystemExit: no licence"), ("Panics", "Panic: index out of")])
def test_an_end_of_the_process_and_a_panic_in_rust_are_bugs(cls, told):
    (error,) = results(stage(cls))
    assert error.reason == "bug"
    assert told in error.problem.splitlines()[0]


def test_a_stage_that_ends_the_process_when_it_is_loaded():
    settings = Settings(stages={"mine": {"class": "support.own_stages:ExitsWhenLoaded"}})
    with pytest.raises(ConfigError, match="the stage 'mine' cannot be loaded: SystemExit: no GPU"):
        Extractor(settings, "", stages=["mine"])


def test_an_error_of_a_stage_is_of_its_clip():
    (error,) = results(stage("Says"))
    assert (error.clip_id, error.stage, error.reason) == (CLIPS[0].clip_id, "mine", "model_failed")
    assert error.problem == "gripper_lost: no gripper in the image"


def test_what_a_stage_says_is_text_and_cut_short(monkeypatch):
    error = ClipError("a", "b", "bug", KeyError("grip"), None)
    monkeypatch.setattr(own_stages.Reads, "compute", lambda self, clips: [error])
    (told,) = results(stage("Reads"))
    assert (told.reason, told.problem, told.hint) == ("bug", "'grip'", "")
    assert Reject.from_error(told).detail == "'grip'"
    error.reason, error.problem = ["x"], "y" * 1_000_000
    (told,) = results(stage("Reads"))
    assert told.problem.startswith("['x']: yyy")
    for values in ({"mine": "z" * 1_000_000}, dict.fromkeys(map(str, range(100_000)))):
        monkeypatch.setattr(own_stages.Reads, "compute", lambda self, clips, values=values: [values])
        (told,) = results(stage("Reads"))
        assert told.reason == "bad_output"
        assert len(told.problem) < 2100


def test_what_a_stage_prints_is_logged_and_cut_short(capsys, caplog):
    with caplog.at_level(logging.INFO, logger="handloom"):
        assert isinstance(results(stage("Prints"))[0], dict)
    assert capsys.readouterr() == ("", "")
    (record,) = caplog.records
    assert len(record.getMessage()) < MAX_PRINTED + 100
    assert f"... {2 * own_stages.MEGABYTE + 2 - MAX_PRINTED} characters more" in record.getMessage()


@pytest.mark.parametrize("what", ["hand_visible", "frame_s", "frames", "row", "video_notes"])
def test_a_stage_cannot_change_what_others_read(what, request):
    import cv2

    own = stage("Writes", what=what)
    image = cv2.imencode(".jpg", np.full((8, 8, 3), 200, np.uint8))[1].tobytes()
    row = row_arrays(make_row(CLIPS[0], frame_jpeg=[image] * 3))
    columns = {name: row[name] for name in own.reads_columns}
    before = {name: np.copy(value) for name, value in columns.items()}
    (found,) = compute_own(own, [clip_input(CLIPS[0], own, dict(columns), None)])
    if what == "video_notes":
        assert isinstance(found, dict), "it has a list of its own"
    else:
        assert found.reason == "bug"
        assert "read-only" in found.problem or "item assignment" in found.problem
    for name, value in columns.items():
        assert np.array_equal(before[name], value), name


def test_stored_frames_that_are_not_there():
    from handloom.errors import ClipError

    own = stage("Brightness")
    with pytest.raises(ClipError, match=r"frames\.store is off"):
        clip_input(CLIPS[0], own, {"frame_s": np.zeros(3), "frame_jpeg": None, "hand_visible": None}, None)


def test_frames_that_are_asked_for():
    frame_s = np.arange(30) / 15
    assert FrameRequest(count=4).indices(frame_s).tolist() == [3, 11, 18, 26]
    assert FrameRequest(count=99).indices(frame_s).tolist() == list(range(30))
    assert FrameRequest(hz=5).indices(frame_s).tolist() == list(range(0, 30, 3))
    assert FrameRequest(hz=5).indices(frame_s[:0]).tolist() == []
    assert FrameRequest().indices(frame_s).tolist() == list(range(30))
    for wrong in ({"hz": 0}, {"count": -1}, {"hz": 1, "count": 1}, {"short_side_px": 0}):
        with pytest.raises(ConfigError, match="frames are asked for"):
            FrameRequest(**wrong)


def test_a_new_stage_of_the_package_is_one_file_and_one_line(monkeypatch):
    """Users set its settings and resources without naming its class."""
    monkeypatch.setitem(registry.MORE, "brightness", f"{own_stages.HERE}:Brightness")
    graph = stage_graph(Settings())
    assert "brightness" in graph.own
    assert {"brightness", "embedding_brightness", "stage_key_brightness"} <= set(graph.schema().names)
    given = {"settings": {"scale": 2.0}, "batch_clips": 4}
    graph = stage_graph(RunConfig(**{"stages": {"brightness": given}}).settings())
    assert graph["brightness"].stage.settings.scale == 2.0
    assert graph["brightness"].config.batch_clips == 4
    with pytest.raises(ConfigError, match="cannot take its place"):
        stage_graph(settings_of(brightness="Reads"))
