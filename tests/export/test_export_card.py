"""Dataset cards: every export has one with its content, sources and licences."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from support.rows import FISHEYE, RUN_KEY, make_clip, make_row

from handloom.api import Database
from handloom.errors import ConfigError
from handloom.export.card import Card, CardTally, hub_licence
from handloom.pipelines.export.lerobot import lerobot
from handloom.pipelines.export.parquet import export
from handloom.pipelines.export.webdataset import webdataset
from handloom.schemas.tables.arrow import clips_schema
from handloom.store.clips.commit import Committer
from handloom.store.fragments import write_fragment
from handloom.store.runs.runs import recorded_licences, start_run

yaml = pytest.importorskip("yaml")
SCHEMA = clips_schema(4)
SETTINGS = {"video": {"sample_hz": 15.0}, "depth": {"folder": "/data/secret/depth"}}
WRITERS = {
    "parquet": lambda db, out, **options: export(db, "parquet", out, **options),
    "arrow": lambda db, out, **options: export(db, "arrow", out, **options),
    "lerobot": lerobot,
    "webdataset": webdataset,
}


def jpeg(size: tuple[int, int] = (48, 36)) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.full((*size[::-1], 3), 99, np.uint8)).save(buffer, "JPEG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def db(tmp_path_factory) -> Database:
    """Four clips of two datasets: two licences, one unknown; one clip has other images."""
    db = Database.open(tmp_path_factory.mktemp("db"), create=True)
    start_run(db, RUN_KEY, settings=SETTINGS, resources={}, versions={"hands": "offline 1"})
    facts = [
        {"dataset": "a|b", "licence": "CC-BY-4.0", "narration": "open the drawer"},
        {"dataset": "a|b", "licence": "CC-BY-4.0"},
        {"dataset": "kitchen", "licence": None, "verb": "wash"},
        {"dataset": "kitchen", "licence": "my own terms"},
    ]
    rows = []
    for number, fact in enumerate(facts):
        image = jpeg((48, 48) if number == 3 else (48, 36))
        row = make_row(make_clip(number, **fact), num_frames=3, frame_jpeg=[image] * 3)
        if number == 3:
            row = row.set_column(
                row.schema.get_field_index("width"), SCHEMA.field("width"), pa.array([360], pa.int32())
            )
        rows.append(row)
    Committer(db, RUN_KEY, SCHEMA).commit([write_fragment(db.uri, rows, SCHEMA)])
    return db


def read_card(out: Path) -> tuple[dict, str]:
    """(front matter, the rest)."""
    _, front, text = (out / "README.md").read_text().split("---\n", 2)
    return yaml.safe_load(front), text


def licences(card: str) -> list[str]:
    """The rows of the table of weights."""
    _, found, rest = card.partition("| made by | licence of the weights | rows |\n")
    return rest.partition("\n\n")[0].splitlines()[1:] if found else []


def test_a_card_names_the_licences_of_weights_by_the_keys_of_rows(tmp_path) -> None:
    """Of the runs that made these rows; a run whose columns were all computed again is left out."""
    db = Database.open(tmp_path, create=True)
    for key, licence in (("1", "cc-by-nc-4.0"), ("2", "apache-2.0"), ("3", "mit")):
        keys = {"tracks": key, "hands_2d": "h"}
        versions = {"licence_tracks": licence, "licence_hands_2d": "apache-2.0"}
        start_run(db, RUN_KEY, settings={}, resources={}, versions=versions, stage_keys=keys)
    recorded = recorded_licences(db)
    assert recorded["tracks"] == {"1": "cc-by-nc-4.0", "2": "apache-2.0", "3": "mit"}
    tally = CardTally()
    for number, key in enumerate(("1", "2", "2", "of 0.3", None)):
        row = make_row(number).to_pydict() | {"stage_key_tracks": [key]}
        fields = [*SCHEMA, pa.field("stage_key_tracks", pa.string())]
        names = [field.name for field in fields]
        arrays = [pa.array(row[field.name], field.type) for field in fields]
        list(tally.over([pa.RecordBatch.from_arrays(arrays, names=names)]))
    text = Card("parquet", "clips", "", {"licences": recorded}).text(tally)
    assert licences(text) == [
        "| stage `hands_2d` | apache-2.0 |  |",  # the batch has no keys of it
        "| stage `tracks` | apache-2.0 | 2 |",
        "| stage `tracks` | cc-by-nc-4.0 | 1 |",
        "| stage `tracks` | unknown | 1 |",
    ]
    assert "Weights under cc-by-nc-4.0 may not be used commercially" in text


def test_a_card_names_the_licence_that_a_column_names() -> None:
    """Of a stage whose run is not in this database, such as a table that was copied."""
    row = make_row(1)
    field = pa.field("embedding_x", pa.list_(pa.float32(), 2), metadata={"encoder": "x", "licence": "apache-2.0"})
    tally = CardTally()
    list(tally.over([row.append_column(field, pa.nulls(1, field.type))]))
    assert licences(Card("parquet", "clips", "", {}).text(tally)) == ["| column `embedding_x` | apache-2.0 |  |"]
    assert not licences(Card("parquet", "clips", "", {}).text(CardTally()))


def test_a_card_counts_the_lenses_that_distort(db: Database) -> None:
    tally = CardTally()
    list(tally.over([make_row(1), make_row(2, camera=FISHEYE), make_row(3, camera=FISHEYE)]))
    text = Card("parquet", "clips", "", {}).text(tally)
    assert "- Lens: fisheye 2, pinhole 1" in text
    assert "The lens of 2 rows distorts" in text


@pytest.mark.parametrize("form", sorted(WRITERS))
def test_every_export_has_a_card_that_the_hub_can_read(tmp_path: Path, db: Database, form: str) -> None:
    where = "licence = 'CC-BY-4.0' OR licence IS NULL"
    WRITERS[form](db, str(tmp_path / "out"), where=where)
    front, text = read_card(tmp_path / "out")
    assert front["license"] == "other"
    assert front["license_name"] == "CC-BY-4.0, unknown"
    assert front["task_categories"] == ["robotics"]
    assert front["size_categories"] == ["n<1K"]
    assert {"handloom", form} <= set(front["tags"])
    assert "| a\\|b | 2 | CC-BY-4.0 |" in text
    assert "| kitchen | 1 | unknown |" in text
    assert "The licence of 1 rows is unknown" in text
    assert "2 rows have no text" in text
    assert "| hand_coverage | 3 | 1 | 1 | 1 |" in text
    assert "World scale: none 3" in text
    assert f"| run key | `{RUN_KEY}` |" in text
    assert f"| table version | `{db.version}` |" in text
    assert where in text
    assert '"hands": "offline 1"' in text
    assert "secret" not in text  # nor any other folder of this machine
    assert db.uri not in text
    index = json.loads((tmp_path / "out/index.json").read_text())
    assert "README.md" in index["files"]
    assert index["source"]["where"] == where
    WRITERS[form](db, str(tmp_path / "out"), where="licence = 'CC-BY-4.0'", overwrite=True)
    front, text = read_card(tmp_path / "out")
    assert front["license"] == "cc-by-4.0"
    assert "license_name" not in front
    assert "unknown: nobody said" not in text


def test_licences_by_the_hubs_names() -> None:
    assert hub_licence(["CC-BY-NC 4.0"]) == "cc-by-nc-4.0"
    assert hub_licence(["CC0-1.0"]) == "cc0-1.0"
    assert hub_licence(["EPIC's own"]) == "other"
    assert hub_licence(["mit", "apache-2.0"]) == "other"
    assert hub_licence(["unknown"]) == hub_licence([]) == "unknown"


def test_strange_names_do_not_break_the_front_matter() -> None:
    tally = CardTally()
    tally.add({"dataset": 'a: "b"\n---\n#', "num_frames": 3, "fps": 15.0, "licence": 'x: "y"\n- z'})
    text = Card("f", 'Ti: "tle"', "files", {}, None).text(tally)
    front = yaml.safe_load(text.split("\n---\n")[0])
    assert front["license_name"] == 'x: "y"\n- z'
    assert front["pretty_name"] == 'Ti: "tle"'


def test_lerobot_names_what_does_not_fit_one_dataset(tmp_path: Path, db: Database) -> None:
    with pytest.raises(ConfigError, match=r"48x36 \(such as .*48x48 \(such as"):
        lerobot(db, str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()
    assert lerobot(db, str(tmp_path / "out"), size=(64, 32)).num_episodes == 4
    info = json.loads((tmp_path / "out/meta/info.json").read_text())
    assert info["features"]["observation.images.ego"]["shape"] == [32, 64, 3]
    with pytest.raises(ConfigError, match="passes none of the 4 clips"):
        lerobot(db, str(tmp_path / "b"), where="licence = 'none'")
