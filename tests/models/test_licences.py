"""The licence that a model's own files name."""

from __future__ import annotations

import pytest

from handloom.models.hub.licences import licence_of_card, licence_of_folder
from handloom.models.licences import weights_licences
from handloom.schemas.settings import Settings
from handloom.schemas.version_policy import counted, licences_in, with_licences


@pytest.mark.parametrize(
    ("front_matter", "licence"),
    [
        ("license: apache-2.0", "apache-2.0"),
        ('license: "cc-by-nc-4.0"  # as the paper says', "cc-by-nc-4.0"),
        ("tags:\n- vision\nlicense: mit\nlibrary_name: transformers", "mit"),
        ("license:\n- mit\n- apache-2.0\ntags:\n- vision", "mit, apache-2.0"),
        ("license: [mit, 'bsd-3-clause']", "mit, bsd-3-clause"),
        ("license: other\nlicense_name: dinov3-license\nlicense_link: https://example.org", "dinov3-license"),
        ("license: other", "other"),
        ("license:\ntags:\n- vision", None),
        ("license_name: mine", None),
        ("", None),
    ],
)
def test_the_front_matter_names_the_licence(front_matter, licence):
    assert licence_of_card(f"---\n{front_matter}\n---\n\n# Model\nlicense: gpl\n") == licence


def test_a_folder_without_a_card_has_none(tmp_path):
    assert licence_of_folder(tmp_path) is None
    (tmp_path / "README.md").write_bytes(b"\xff\xfe no front matter\nlicense: mit\n")
    assert licence_of_folder(tmp_path) is None
    (tmp_path / "README.md").write_text("\ufeff---\r\nlicense: mit\r\n---\r\n")
    assert licence_of_folder(tmp_path) == "mit"


def test_the_licences_of_a_runs_weights(tmp_path):
    """The model's own card first; of the two families whose cards may be missing what their authors say."""
    assert weights_licences(Settings()) == {"hands_2d": "apache-2.0"}
    assert weights_licences(Settings(tracks={"tracker": "cotracker3"}))["tracks"] == "cc-by-nc-4.0"

    def of_depth(model: str) -> str | None:
        return weights_licences(Settings(depth={"provider": "transformers", "model": model}))["depth"]

    name = "depth-anything/Depth-Anything-V2-Metric-Indoor"
    assert [of_depth(f"{name}-{size}-hf") for size in ("Small", "Large")] == ["apache-2.0", "cc-by-nc-4.0"]
    assert of_depth(str(tmp_path)) is None
    (tmp_path / "README.md").write_text("---\nlicense: mit\n---\n")
    assert of_depth(str(tmp_path)) == "mit"


def test_a_licence_is_recorded_and_changes_no_key():
    versions = {"hands": "offline 1", "torch": "2.13.0"}
    recorded = with_licences(versions, {"tracks": "cc-by-nc-4.0", "depth": None})
    assert licences_in(recorded) == {"tracks": "cc-by-nc-4.0", "depth": "unknown"}
    assert counted(recorded) == counted(versions)
    assert Settings().run_key(recorded) == Settings().run_key(versions)
