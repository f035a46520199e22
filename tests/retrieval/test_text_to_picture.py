"""Text beside the vectors of a declared network: text to picture by SigLIP, on a tiny random network."""

import lance
import numpy as np
import pyarrow as pa
import pytest
from support.rows import RUN_KEY, make_clip, make_row
from support.stage_keys import with_own_column

from handloom.api import Database
from handloom.store.runs.runs import start_run
from handloom.store.search.index import ensure_text_indexes

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from support.tiny_texts import save_tokenizer  # noqa: E402
from support.tiny_towers import save_tower  # noqa: E402

from handloom.models.embeddings.learned.plan import plan_tower  # noqa: E402
from handloom.models.embeddings.learned.tower import Tower  # noqa: E402
from handloom.models.language.plan import plan_texts  # noqa: E402
from handloom.models.language.tower import TextTower  # noqa: E402
from handloom.schemas.towers import TextTowerSettings  # noqa: E402
from handloom.stages.learned.towers import TowerStageSettings  # noqa: E402

NUM = 6


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A database whose `embedding_pictures` holds vectors of a SigLIP's images, here random ones; and the network."""
    folder = tmp_path_factory.mktemp("siglip")
    save_tower(folder, "siglip")
    save_tokenizer(folder)
    plan = plan_texts(TextTowerSettings(model=str(folder)))
    db = Database.open(tmp_path_factory.mktemp("db"), create=True)
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(NUM, plan.dim)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    table = pa.Table.from_batches([make_row(n) for n in range(NUM)])
    column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), plan.dim)
    told = {"encoder": "pictures", "version": plan.files.weights()}
    table = with_own_column(table, "pictures", "embedding_pictures", column, **told)
    other = with_own_column(table, "others", "embedding_others", column, encoder="others", version="old")
    lance.write_dataset(other, db.location.table_uri("clips"))
    ensure_text_indexes(db)
    stage = {"class_": "handloom.stages.learned:Tower", "settings": {"model": str(folder)}}
    start_run(db, RUN_KEY, settings={"stages": {"pictures": stage, "others": stage}}, resources={}, versions={})
    return db, vectors, TextTower(plan), str(folder)


def test_a_text_finds_pictures(made):
    db, vectors, network, _ = made
    hits = db.search(text="open the door", by="pictures", k=NUM)
    scores = vectors.astype(float) @ network.encode(["open the door"])[0]
    assert [hit.clip_id for hit in hits] == [make_clip(int(n)).clip_id for n in np.argsort(-scores)]
    for hit in hits:
        assert hit.parts["pictures"].score == pytest.approx(scores[int(hit.start_s)], abs=1e-5)
    assert "words" in hits.unused


def test_what_no_text_can_be_compared_with_is_named(made):
    db = made[0]
    hits = db.search(text="open the door", by=["pictures", "others", "motion"], k=2)
    assert "compares no texts" in hits.unused["motion"]
    assert "old" in hits.unused["others"]
    assert set(hits[0].parts) == {"pictures"}


def test_an_image_is_compared_by_the_network_that_made_the_column(made):
    db, vectors, _, folder = made
    image = np.random.default_rng(3).integers(0, 255, (40, 60, 3), dtype=np.uint8)
    hits = db.search(image=image, by="pictures", k=NUM)
    config = TowerStageSettings(model=folder)
    own = Tower(plan_tower(config)).embed([image[None]])[0]
    for hit in hits:
        assert hit.score == pytest.approx(float(vectors[int(hit.start_s)] @ own), abs=1e-5)
    both = db.search(image=image, by=["pictures", "others"], k=1)
    assert "made by weights old" in both.unused["others"]
