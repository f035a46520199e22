"""One database, one way of making rows: what differs is named, and the way on."""

from __future__ import annotations

import pytest

from handloom.errors import ConfigError
from handloom.pipelines.configure import check_stored
from handloom.schemas.settings import Settings
from handloom.store.runs import StoredSettings

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
