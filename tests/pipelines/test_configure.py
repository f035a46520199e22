"""All rows of a database have the same settings: an error names those that differ, and what to do."""

from __future__ import annotations

import hashlib
import json

import pytest

from handloom.errors import ConfigError
from handloom.pipelines.configure import checked, load_config, near_names
from handloom.pipelines.run.todo.recompute import change_since, check_allowed
from handloom.schemas.settings import RunConfig, Settings, flatten, of_any_version
from handloom.schemas.tables.arrow import SCHEMA_VERSION
from handloom.schemas.version_policy import counted
from handloom.stages.registry import stage_graph
from handloom.store.runs.runs import StoredSettings
from handloom.train.arvrm.settings import ArvrmSettings

VERSIONS = {"decode": "numbered packets"}


def check_stored(stored: StoredSettings, settings: Settings, versions: dict[str, str]) -> None:
    """As a run does that finds one row which every changed stage must be computed for."""
    graph = stage_graph(settings)
    change = change_since(stored, graph, graph.keys(versions), settings, versions)
    check_allowed(change, graph, None, dict.fromkeys(graph.names, 1), {"hands_2d": 3600.0})


def refused(settings: Settings, versions: dict[str, str]) -> str:
    plain = Settings()
    stored = StoredSettings(plain.run_key(VERSIONS), plain.model_dump(mode="json"), VERSIONS)
    with pytest.raises(ConfigError) as error:
        check_stored(stored, settings, versions)
    return str(error.value)


def test_rows_of_other_settings_are_not_mixed():
    said = refused(Settings(video={"sample_hz": 5}), VERSIONS)
    assert "made with other settings: video.sample_hz is" in said
    assert "leave out --config and --set" in said


def test_no_setting_makes_up_for_another_version():
    """A table of an older release: the hint must not be to leave out --config."""
    said = refused(Settings(), {})
    assert "another version of handloom" in said
    assert "version of decode is 'numbered packets' in the database" in said.replace('"', "'")
    assert "ingest into another --db" in said
    assert "--set" not in said


def test_another_patch_release_goes_on_and_says_so(caplog):
    stored = StoredSettings(
        Settings().run_key({"pyav": "18.1.0"}), Settings().model_dump(mode="json"), {"pyav": "18.1.0"}
    )
    now = {"pyav": "18.1.1"}
    check_stored(stored, Settings(), now)
    assert [record.message for record in caplog.records] == [
        "the rows so far were made with other releases, which count as the same: pyav 18.1.0 -> 18.1.1"
    ]
    caplog.clear()
    check_stored(stored, Settings(), stored.versions)
    assert not caplog.records


def test_a_minor_release_is_another_version():
    assert 'version of pyav is "18.1.0" in the database, "18.2.0" now' in refused_versions("18.1.0", "18.2.0")


def refused_versions(before: str, now: str) -> str:
    stored = StoredSettings(Settings().run_key({"pyav": before}), Settings().model_dump(mode="json"), {"pyav": before})
    with pytest.raises(ConfigError) as error:
        check_stored(stored, Settings(), {"pyav": now})
    return str(error.value)


def test_a_setting_that_came_later_changes_no_key_while_it_has_its_default():
    """A table of a release that had no `depth.device`."""
    older = Settings().model_dump(mode="json")
    del older["depth"]["device"]
    stored = StoredSettings("0" * 16, older, VERSIONS)
    check_stored(stored, Settings(), VERSIONS)
    with pytest.raises(ConfigError) as error:
        check_stored(stored, Settings(depth={"device": "cuda"}), VERSIONS)
    assert "another version of handloom, or of its packages: depth.device is absent" in str(error.value)


def test_a_change_names_stages_rows_and_hours():
    said = refused(Settings(hands={"model_complexity": 0}), VERSIONS)
    assert (
        "1 row of stages hands_2d, lens, depth, camera, hands_3d, tracks, world, lift, quality, motion, appearance"
        in said
    )
    assert "more than 1.0 h of one core" in said
    assert "compute them again with --recompute;" in said


def test_a_change_of_stages_that_were_not_allowed_names_them():
    settings = Settings(hands={"model_complexity": 0}, frames={"jpeg_quality": 80})
    graph, plain = stage_graph(settings), Settings()
    stored = StoredSettings("0" * 16, plain.model_dump(mode="json"), VERSIONS)
    change = change_since(stored, graph, graph.keys(VERSIONS), settings, VERSIONS)
    assert change.roots == ("frames", "hands_2d")
    rows = dict.fromkeys(graph.names, 2)
    with pytest.raises(ConfigError, match=r"(?s)2 rows of stages frames would be .*--recompute hands_2d,frames"):
        check_allowed(change, graph, ["hands_2d"], rows, {})
    check_allowed(change, graph, ["hands_2d", "frames"], rows, {})
    check_allowed(change, graph, ["all"], rows, {})
    check_allowed(change, graph, None, dict.fromkeys(graph.names, 0), {})


@pytest.mark.parametrize(
    ("word", "first"),
    [
        ("sample_hz", "video.sample_hz"),
        ("video.sample_hertz", "video.sample_hz"),
        ("tracker", "tracks.tracker"),
        ("tracks.traker", "tracks.tracker"),
        ("resource.commit_s", "resources.commit_s"),
        ("memory", "resources.actor_memory_mb"),
    ],
)
def test_a_setting_that_is_not_there_is_answered_with_the_nearest(word, first):
    names = list(flatten(RunConfig().model_dump()))
    assert near_names(word, names)[0] == first
    with pytest.raises(ConfigError, match=f"there is no setting {word.split('.')[0]}") as caught:
        load_config(None, [f"{word}=1"])
    assert first in caught.value.hint
    assert "--show-settings" in caught.value.hint
    assert len(caught.value.hint) < 200  # no list of all of them


def test_a_word_like_no_setting_is_told_where_all_are():
    assert near_names("zzz", list(flatten(RunConfig().model_dump()))) == []
    with pytest.raises(ConfigError) as caught:
        load_config(None, ["zzz=1"])
    assert "did you mean" not in caught.value.hint
    assert "docs/settings.md" in caught.value.hint


def test_what_does_not_fit_together_is_told_without_all_settings():
    values = ArvrmSettings().model_dump() | {"dim": 20, "heads": 3}
    for prefix, before in (("", ""), ("train.", "train: ")):
        with pytest.raises(ConfigError) as caught:
            checked(ArvrmSettings, values, "all are listed", prefix)
        assert caught.value.problem == f"{before}dim is 20, expected a multiple of heads = 3"
    with pytest.raises(ConfigError, match=r'^hands\.backend = "other": expected offline, mediapipe or '):
        load_config(None, ["hands.backend=other"])


@pytest.mark.parametrize("name", ["camera.assumed_fov_deg", "hands.keypoint_scale"])
def test_a_table_by_dataset_name_is_told_what_does_its_work_now(tmp_path, name):
    """Configuration files of 0.3."""
    section, _, setting = name.partition(".")
    (tmp_path / "old.toml").write_text(f'[{name}]\negodex = 1.2\n"*" = 1.0\n')
    with pytest.raises(ConfigError, match=rf"{section}\.{setting} = .*one number.*--camera-preset"):
        load_config(tmp_path / "old.toml", [])
    assert getattr(getattr(load_config(None, [f"{name}=1.5"]), section), setting) == 1.5


def test_a_setting_under_its_old_name_is_read_and_the_user_is_told(tmp_path, caplog):
    """`hands.seen_size` is `hands.keypoint_scale` since 0.4: in files, on the command line and in Python."""
    (tmp_path / "old.toml").write_text("[hands]\nseen_size = 0.8\n")
    from_file = load_config(tmp_path / "old.toml", [])
    assert f"{tmp_path / 'old.toml'}: the setting hands.seen_size is called hands.keypoint_scale" in caplog.text
    caplog.clear()
    over_file = load_config(tmp_path / "old.toml", ["hands.keypoint_scale=0.7"])
    from_old_word = load_config(None, ["hands.seen_size=0.7"])
    assert "--set hands.seen_size=0.7: the setting hands.seen_size is called" in caplog.text
    assert [one.hands.keypoint_scale for one in (from_file, over_file, from_old_word)] == [0.8, 0.7, 0.7]
    with pytest.warns(FutureWarning, match="called hands.keypoint_scale since"):
        in_python = Settings(hands={"seen_size": 0.7})
    with pytest.warns(FutureWarning):
        in_json = load_config(None, ['hands={"seen_size": 0.7}'])
    made = [over_file.settings(), from_old_word.settings(), in_python, in_json.settings()]
    made.append(Settings(hands={"keypoint_scale": 0.7}))
    assert len({one.run_key(VERSIONS) for one in made}) == 1
    (tmp_path / "both.toml").write_text("[hands]\nseen_size = 0.8\nkeypoint_scale = 0.8\n")
    with pytest.raises(ConfigError, match=r"no setting hands\.seen_size"):
        load_config(tmp_path / "both.toml", [])


def test_two_values_for_one_setting_are_an_error():
    assert load_config(None, ["video.sample_hz=10", "video.sample_hz=10.0"]).video.sample_hz == 10, "no mistake"
    with pytest.raises(ConfigError, match=r"--set gives video\.sample_hz two values, .*=10' and .*=12'"):
        load_config(None, ["video.sample_hz=10", "video.short_side_px=240", "video.sample_hz=12"])


def test_a_database_with_a_setting_under_its_old_name_goes_on():
    """The run key of 0.4 is that of the database, which has the setting under its old name."""
    now = Settings(hands={"keypoint_scale": 0.8})
    old = now.model_dump(mode="json")
    old["hands"]["seen_size"] = old["hands"].pop("keypoint_scale")
    del old["hands"]["options"], old["frames"]["blur_faces"], old["stages"]  # came with 0.4
    content = {"settings": old, "versions": counted(VERSIONS), "schema": SCHEMA_VERSION}
    key = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
    assert now.run_key(VERSIONS) == key
    assert RunConfig(**of_any_version(old)).settings() == now
    check_stored(StoredSettings(key, old, VERSIONS), now, VERSIONS)
    other = Settings(hands={"keypoint_scale": 0.9})
    with pytest.raises(ConfigError, match=r"other settings: hands.keypoint_scale is 0.8 in the database, 0.9 now"):
        check_stored(StoredSettings(key, old, VERSIONS), other, VERSIONS)


def test_a_database_of_tables_by_dataset_name_stays_readable():
    settings = Settings().model_dump(mode="json")
    old = settings | {"camera": {"poses": "given", "assumed_fov_deg": {"epic": 85.0, "*": 60.0}}}
    old["hands"] = {"backend": "offline", "seen_size": {"egodex": 0.75, "*": 0.9}}
    read = RunConfig(**of_any_version(old))
    assert (read.camera.assumed_fov_deg, read.camera.poses, read.hands.keypoint_scale) == (60.0, "given", 0.9)
    stored = StoredSettings("old", old, {})
    with pytest.raises(ConfigError, match=r"another version of handloom.*version of decode is absent") as caught:
        check_stored(stored, read.settings(), VERSIONS)
    assert "with --recompute none: these rows stay as they are" in caught.value.hint


def test_a_stage_that_comes_with_its_class_is_declared_anew(tmp_path):
    file = tmp_path / "run.toml"
    file.write_text('[stages.mine]\nclass = "a:B"\n[stages.mine.settings]\nk = 1\n[stages.mine.env]\npip = ["x==1"]\n')
    stored = load_config(file, []).settings().model_dump(mode="json")
    assert load_config(None, [], stored).stages["mine"].settings == {"k": 1}
    file.write_text('[stages.mine]\nclass = "a:C"\n')
    mine = load_config(file, [], stored).stages["mine"]
    assert (mine.class_, mine.settings, mine.env) == ("a:C", {}, {})
    file.write_text('[stages.mine]\nenv = {env_vars = {A = "1"}}\n')
    mine = load_config(file, ["stages.mine.settings.j=2"], stored).stages["mine"]
    assert (mine.class_, mine.settings, mine.env) == ("a:B", {"k": 1, "j": 2}, {"env_vars": {"A": "1"}})
    assert load_config(None, ["stages.mine=null"], stored).stages == {}


def test_stages_that_are_taken_out_are_not_listed_as_changes():
    """They outdate no other; nor does what only changes their cost."""
    stages = {"look": {"class": "my_lab.stages:Look", "env": {"pip": ["blurhash"]}, "settings": {"side": 4}}}
    before = {**Settings().model_dump(mode="json"), "stages": stages}
    stored = StoredSettings("key", before, VERSIONS)
    with pytest.raises(ConfigError) as error:
        check_stored(stored, Settings(video={"sample_hz": 5}), VERSIONS)
    assert "video.sample_hz is" in str(error.value)
    assert "look" not in str(error.value)


def test_a_setting_of_a_stages_class_in_the_wrong_place_is_named_with_the_right_one():
    with pytest.raises(ConfigError, match=r"no setting stages.pinch.side; .* \[stages.pinch.settings\]"):
        load_config(None, ["stages.pinch.class=my_lab.stages:Pinch", "stages.pinch.side=4"])
