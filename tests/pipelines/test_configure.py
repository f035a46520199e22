"""One database, one way of making rows: what differs is named, and the way on."""

from __future__ import annotations

import pytest

from handloom.errors import ConfigError
from handloom.pipelines.configure import check_stored, load_config, near_names
from handloom.schemas.settings import RunConfig, Settings, flatten, of_any_version
from handloom.store.runs.runs import StoredSettings

VERSIONS = {"decode": "numbered packets"}


def refused(settings: Settings, versions: dict[str, str]) -> str:
    plain = Settings()
    stored = StoredSettings(plain.run_key(VERSIONS), plain.model_dump(mode="json"), VERSIONS)
    with pytest.raises(ConfigError) as error:
        check_stored(stored, settings, versions, settings.run_key(versions))
    return str(error.value)


def test_rows_of_other_settings_are_not_mixed():
    said = refused(Settings(video={"sample_hz": 5}), VERSIONS)
    assert "made with other settings: video.sample_hz is" in said
    assert "leave out --config and --set" in said


def test_no_setting_makes_up_for_another_version():
    """A table of an older release: there is nothing in --config that its user could leave out."""
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
    check_stored(stored, Settings(), now, Settings().run_key(now))
    assert [record.message for record in caplog.records] == [
        "the rows so far were made with other releases, which count as the same: pyav 18.1.0 -> 18.1.1"
    ]
    caplog.clear()
    check_stored(stored, Settings(), stored.versions, stored.run_key)
    assert not caplog.records


def test_a_minor_release_is_another_version():
    assert 'version of pyav is "18.1.0" in the database, "18.2.0" now' in refused_versions("18.1.0", "18.2.0")


def refused_versions(before: str, now: str) -> str:
    stored = StoredSettings(Settings().run_key({"pyav": before}), Settings().model_dump(mode="json"), {"pyav": before})
    with pytest.raises(ConfigError) as error:
        check_stored(stored, Settings(), {"pyav": now}, Settings().run_key({"pyav": now}))
    return str(error.value)


def test_a_setting_that_came_later_is_no_fault_of_the_user():
    """A table of a release that had no `depth.device`: the way on is not to leave out --set."""
    older = Settings().model_dump(mode="json")
    del older["depth"]["device"]
    with pytest.raises(ConfigError) as error:
        check_stored(StoredSettings("0" * 16, older, VERSIONS), Settings(), VERSIONS, Settings().run_key(VERSIONS))
    assert "another version of handloom, or of its packages: depth.device is absent" in str(error.value)


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


@pytest.mark.parametrize("name", ["camera.assumed_fov_deg", "hands.seen_size"])
def test_a_table_by_dataset_name_is_told_what_does_its_work_now(tmp_path, name):
    """Configuration files of 0.3."""
    section, _, setting = name.partition(".")
    (tmp_path / "old.toml").write_text(f'[{name}]\negodex = 1.2\n"*" = 1.0\n')
    with pytest.raises(ConfigError, match=rf"{section}\.{setting} = .*one number.*--camera-preset"):
        load_config(tmp_path / "old.toml", [])
    assert getattr(getattr(load_config(None, [f"{name}=1.5"]), section), setting) == 1.5


def test_a_database_of_tables_by_dataset_name_stays_readable():
    settings = Settings().model_dump(mode="json")
    old = settings | {"camera": {"poses": "given", "assumed_fov_deg": {"epic": 85.0, "*": 60.0}}}
    old["hands"] = settings["hands"] | {"seen_size": {"egodex": 0.75, "*": 0.9}}
    read = RunConfig(**of_any_version(old))
    assert (read.camera.assumed_fov_deg, read.camera.poses, read.hands.seen_size) == (60.0, "given", 0.9)
    stored = StoredSettings("old", old, {})
    with pytest.raises(ConfigError, match=r"another version of handloom.*camera\.assumed_focal_sigma") as caught:
        check_stored(stored, read.settings(), {}, "new")
    assert "stay readable" in caught.value.hint
