"""Images as queries, and AR-VRM's sum by name: equal to a plain loop over the same vectors."""

import cv2
import lance
import numpy as np
import pyarrow as pa
import pytest
from support.movements import movement, moving_row
from support.rows import make_clip, random_unit
from support.stage_keys import with_own_column

from handloom.api import Database
from handloom.errors import ConfigError
from handloom.models.embeddings.lite0.weights import FILE
from handloom.models.embeddings.look import LookEncoder
from handloom.store.clip_features import TABLE
from handloom.store.search.index import ensure_text_indexes
from handloom.video.stored_frames import decode_jpeg

NUM, TEXT_DIM = 5, 8


def scene(seed):
    rng = np.random.default_rng(seed)
    image = np.full((72, 96, 3), rng.integers(0, 255, 3), np.uint8)
    for _ in range(5):
        x, y = rng.integers(0, 90, 2)
        cv2.circle(image, (int(x), int(y)), int(rng.integers(5, 25)), rng.integers(0, 255, 3).tolist(), -1)
    return image


def jpegs(number, num):
    """Frames of one scene that grows darker."""
    shades = np.linspace(1, 0.7, num)
    return [cv2.imencode(".jpg", (scene(number) * shade).astype(np.uint8))[1].tobytes() for shade in shades]


@pytest.fixture(scope="module")
def db(tmp_path_factory) -> Database:
    db = Database.open(tmp_path_factory.mktemp("looks"), create=True)
    encoder, rows, looks = LookEncoder(), [], []
    for number in range(NUM):
        points, frame_s = movement(number, 2.0)
        frames = jpegs(number, len(frame_s)) if number != 4 else None
        rows.append(moving_row(make_clip(number, narration=f"clip {number}"), points, frame_s, frame_jpeg=frames))
        shown = None if frames is None else np.stack([decode_jpeg(one) for one in frames[::10]])
        looks.append(None if shown is None else encoder.encode_clip(shown).tolist())
    table = pa.Table.from_batches(rows)
    table = table.drop_columns([n for n in ("embedding_text", "embedding_look") if n in table.schema.names])
    rng = np.random.default_rng(0)
    texts = [random_unit(rng, TEXT_DIM).tolist() if number != 2 else None for number in range(NUM)]
    table = with_own_column(table, "text", "embedding_text", pa.array(texts, pa.list_(pa.float32(), TEXT_DIM)))
    column = pa.array(looks, pa.list_(pa.float32(), encoder.dim))
    table = with_own_column(table, "look", "embedding_look", column, version=FILE.digest)
    lance.write_dataset(table, db.location.table_uri("clips"))
    ensure_text_indexes(db)
    return db


def ids(*numbers):
    return [make_clip(n).clip_id for n in numbers]


def test_an_image_finds_its_scene(db, tmp_path):
    path = tmp_path / "scene.png"
    cv2.imwrite(str(path), scene(3)[:, 8:, :])
    hits = db.search(image=path, k=2)
    assert (hits[0].clip_id, list(hits[0].parts)) == (ids(3)[0], ["look"])
    array = db.search(image=cv2.cvtColor(scene(3)[:, 8:, :], cv2.COLOR_BGR2RGB), k=2)
    assert list(array) == list(hits)
    both = db.search(image=path, clip=ids(0)[0], k=3)
    assert set(both[0].parts) == {"image.look", "clip.motion"}
    piece = db.search(clip=ids(3)[0], from_s=3.0, to_s=3.9, by="look", k=NUM)
    assert ids(4)[0] not in {hit.clip_id for hit in piece}
    ranged = db.search(clip=ids(4)[0], from_s=4.0, to_s=4.9, by=["look", "motion"], k=NUM)
    assert "stores no frames" in ranged.unused["look"]


def test_what_is_no_image_is_refused(db, tmp_path):
    bad, cut = tmp_path / "words.txt", tmp_path / "cut.png"
    bad.write_text("no image")
    cut.write_bytes(cv2.imencode(".png", scene(0))[1].tobytes()[:50])
    for given, words in (
        (bad, "is no image"),
        (cut, "is no image"),
        (tmp_path / "absent.png", "cannot be read"),
        (tmp_path, "cannot be read"),
        (np.zeros((4, 4), np.uint8), "an image of uint8"),
    ):
        with pytest.raises(ConfigError, match=words):
            db.search(image=given)
        with pytest.raises(ConfigError, match=words):
            db.search(image=given, text="clip")
    with pytest.raises(ConfigError, match="cannot be computed for single images"):
        db.search(image=scene(0), by="motion")


def test_arvrms_sum_is_that_of_a_plain_loop_and_its_vectors_are_kept(db, monkeypatch):
    found = db.search(clip=ids(1)[0], by="arvrm", k=NUM)
    assert (found.scoring, found.exact, len(found)) == ("arvrm", True, NUM - 1)
    encoder = LookEncoder()

    def vectors(number):
        text = db.row(ids(number)[0], ["embedding_text"]).column(0)[0].as_py()
        frames = db.row(ids(number)[0], ["frame_jpeg"]).column(0)[0].as_py()
        if frames is None:
            return text, [None] * 10
        spread = [frames[round(i * (len(frames) - 1) / 9)] for i in range(10)]
        return text, [encoder.encode(decode_jpeg(data)[None])[0] for data in spread]

    def cosine(a, b):
        if a is None or b is None:
            return 0.0
        a, b = np.asarray(a, np.float16).astype(float), np.asarray(b, np.float16).astype(float)
        return float(a @ b / np.sqrt(a @ a) / np.sqrt(b @ b))

    own_text, own_seen = vectors(1)
    for hit in found:
        text, seen = vectors(next(n for n in range(NUM) if ids(n)[0] == hit.clip_id))
        expected = cosine(own_text, text) + sum(cosine(a, b) for a, b in zip(own_seen, seen, strict=True))
        assert hit.score == pytest.approx(expected, abs=1e-5)
    assert [hit.score for hit in found] == sorted((hit.score for hit in found), reverse=True)
    assert db.count(TABLE) == NUM
    monkeypatch.setattr(LookEncoder, "encode", None)  # a second search encodes nothing
    assert list(db.search(clip=ids(1)[0], by="arvrm", k=NUM)) == list(found)
    assert len(db.search(clip=ids(1)[0], by="arvrm", k=NUM, where="narration = 'clip 2'")) == 1
