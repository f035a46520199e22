"""Retrieval of human clips: similarity, order of the results, and vectors that are stored once."""

from __future__ import annotations

import subprocess
import sys
import threading

import numpy as np
import pytest
import torch

from handloom.api import Database
from handloom.errors import ShapeError
from handloom.store import clip_features
from handloom.store.clip_features import ClipFeatures, read_features, write_features
from handloom.store.search.arvrm import retrieve, similarity
from handloom.train.arvrm.data.retrieval import FeatureMaker, RetrievalInput, all_features
from handloom.train.parts.encoders import SmallImageEncoder, SmallTextEncoder

STEPS = 4


def _empty(path) -> Database:
    return Database.open(path / "db", create=True)


def features(num: int, seed: int, prefix: str = "c") -> ClipFeatures:
    rng = np.random.default_rng(seed)
    text, seen = rng.normal(size=(num, 6)), rng.normal(size=(num, STEPS, 5))
    return ClipFeatures(tuple(f"{prefix}{i:03}" for i in range(num)), text.astype("f2"), seen.astype("f2"))


def cosine(a, b) -> float:
    a, b = a.astype(float), b.astype(float)
    if not (np.isfinite(a).all() and np.isfinite(b).all()) or not a.any() or not b.any():
        return 0.0
    return a @ b / np.sqrt(a @ a) / np.sqrt(b @ b)


def papers(robot: ClipFeatures, human: ClipFeatures, r: int, h: int) -> float:
    """cos(z_l, z_l) + sum over t of cos(z_ot, z_ot), number by number."""
    return cosine(robot.text[r], human.text[h]) + sum(cosine(robot.seen[r, t], human.seen[h, t]) for t in range(STEPS))


@pytest.fixture
def both() -> tuple[ClipFeatures, ClipFeatures]:
    robot, human = features(3, 0, "r"), features(40, 1)
    human.text[3] = robot.text[1] = np.nan
    human.seen[5, 1:3] = np.nan
    human.seen[6] = np.nan
    human.text[6] = 0
    human.text[7, 2] = np.inf  # more than a float16 can hold
    return robot, human


def test_similarity_is_the_papers_sum_and_missing_terms_are_zero(both):
    robot, human = both
    expected = [[papers(robot, human, r, h) for h in range(40)] for r in range(3)]
    np.testing.assert_allclose(similarity(robot, human), expected, atol=1e-5)
    assert (similarity(robot, human)[:, 6] == 0).all()
    nearer = ClipFeatures(human.ids, human.text, human.seen * np.float16(3))  # the length of a vector says nothing
    np.testing.assert_allclose(similarity(robot, nearer), expected, atol=2e-3)


@pytest.mark.parametrize("numbers_at_once", [1, 100, 1 << 20])
def test_the_best_of_all_whatever_the_blocks(both, numbers_at_once):
    robot, human = both
    found = retrieve(robot, human, 7, numbers_at_once)
    for r, episode in enumerate(robot.ids):
        values = {human.ids[h]: papers(robot, human, r, h) for h in range(40)}
        assert [clip for clip, _ in found[episode]] == sorted(values, key=lambda clip: -values[clip])[:7]
        assert [value for _, value in found[episode]] == pytest.approx([values[c] for c, _ in found[episode]], abs=1e-5)
    assert [len(near) for near in retrieve(robot, human, 100).values()] == [40] * 3


@pytest.mark.parametrize("numbers_at_once", [1, 1 << 20])
def test_of_equals_the_smaller_id_comes_first(numbers_at_once):
    one = features(1, 3)
    ids = ("b", "a", "d", "c")
    same = ClipFeatures(ids, np.repeat(one.text, 4, 0), np.repeat(one.seen, 4, 0))
    assert [clip for clip, _ in retrieve(one, same, 3, numbers_at_once)[one.ids[0]]] == ["a", "b", "c"]


def test_a_clip_that_differs_more_ranks_lower():
    """The more noise a clip's vectors have, the lower it ranks."""
    robot, rng = features(1, 5), np.random.default_rng(0)
    amounts = np.linspace(0, 3, 8)[:, None, None]
    seen = robot.seen + amounts * rng.normal(size=robot.seen.shape)
    human = ClipFeatures(tuple("hgfedcba"), np.repeat(robot.text, 8, 0), seen.astype("f2"))
    assert [clip for clip, _ in retrieve(robot, human, 8)[robot.ids[0]]] == list("hgfedcba")


def test_what_is_stored_is_what_is_read(tmp_path):
    db, given = _empty(tmp_path), features(5, 2)
    given.text[1], given.seen[2], given.seen[3, 1] = np.nan, np.nan, np.nan
    rows = {id_: "k" for id_ in given.ids}
    write_features(db, "clips", rows, "enc", given)
    found = read_features(db, "clips", {id_: rows[id_] for id_ in reversed(given.ids)}, "enc", STEPS, (6, 5))
    assert found.ids == given.ids[::-1]
    np.testing.assert_array_equal(found.text[::-1], given.text)
    np.testing.assert_array_equal(found.seen[::-1], given.seen)
    for others in (
        read_features(db, "clips", rows, "other encoder", STEPS, (6, 5)),
        read_features(db, "robot_episodes", rows, "enc", STEPS, (6, 5)),
        read_features(db, "clips", dict.fromkeys(rows, "extracted anew"), "enc", STEPS, (6, 5)),
        read_features(db, "clips", rows, "enc", STEPS + 1, (6, 5)),
    ):
        assert others.ids == ()
        assert others.text.shape == (0, 6)
    blind = ClipFeatures(("c000",), given.text[:1], np.zeros((1, STEPS, 0), np.float16))
    write_features(db, "clips", rows, "blind", blind)
    assert read_features(db, "clips", rows, "blind", STEPS, (6, 0)).seen.shape == (1, STEPS, 0)
    with pytest.raises(ShapeError):
        ClipFeatures(("a",), given.text, given.seen)


def test_stored_vectors_stay_and_writers_do_not_disturb_each_other(tmp_path):
    db, given = _empty(tmp_path), features(12, 4)
    rows = {id_: "k" for id_ in given.ids}
    parts = [slice(0, 6), slice(3, 9), slice(6, 12), slice(0, 12)]
    given_to = [ClipFeatures(given.ids[p], given.text[p], given.seen[p]) for p in parts]
    threads = [threading.Thread(target=write_features, args=(db, "clips", rows, "enc", part)) for part in given_to]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = read_features(db, "clips", rows, "enc", STEPS, (6, 5))
    assert found.ids == given.ids
    np.testing.assert_array_equal(found.seen, given.seen)
    num_rows = db.count(clip_features.TABLE)
    write_features(db, "clips", rows, "enc", ClipFeatures(given.ids, given.text * 2, given.seen * 2))
    assert db.count(clip_features.TABLE) == num_rows
    np.testing.assert_array_equal(read_features(db, "clips", rows, "enc", STEPS, (6, 5)).text, given.text)


def maker(seed: int = 0, size: int = 32) -> FeatureMaker:
    torch.manual_seed(seed)
    return FeatureMaker(SmallTextEncoder(8), SmallImageEncoder(16, size))


def shown(id_: str, text: str | None = "pour", num: int = STEPS) -> RetrievalInput:
    rng = np.random.default_rng(list(id_.encode()))
    valid = np.ones(num, bool)
    return RetrievalInput(id_, text, rng.integers(0, 255, (num, 32, 32, 3), dtype=np.uint8), valid)


def test_the_key_depends_on_every_weight_and_size_and_not_on_the_process():
    key = maker().key
    assert maker().key == key
    assert maker(1).key != key
    assert maker(0, 48).key != key
    torch.manual_seed(0)
    words, eyes = SmallTextEncoder(8), SmallImageEncoder(16, 32)
    assert FeatureMaker(words, None).key not in (key, FeatureMaker(SmallTextEncoder(8), None).key)
    with torch.no_grad():
        eyes.layers[0].weight[0, 0, 0, 0] += 1e-3
    assert FeatureMaker(words, eyes).key != key
    code = (
        "import torch; from handloom.train.arvrm.data.retrieval import *;"
        "from handloom.train.parts.encoders import *;"
        "torch.manual_seed(0); print(FeatureMaker(SmallTextEncoder(8), SmallImageEncoder(16, 32)).key)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == key


def test_vectors_of_a_clip_are_its_texts_and_each_images_first_token():
    made, half = maker(), shown("b")
    half.images_valid[1:] = False
    blind = RetrievalInput("c", "", None, None)
    found = made.features([shown("a"), half, blind, shown("d", None)], STEPS)
    torch.manual_seed(0)
    words, eyes = SmallTextEncoder(8).eval(), SmallImageEncoder(16, 32).eval()
    with torch.no_grad():
        np.testing.assert_allclose(found.text[0], words.encode(["pour"])[0], atol=1e-3)
        np.testing.assert_allclose(found.seen[0], eyes(torch.from_numpy(shown("a").images))[:, 0], atol=5e-3)
    assert np.isnan(found.seen[1, 1:]).all()
    assert np.isfinite(found.seen[1, 0]).all()
    assert np.isnan(found.text[2:]).all()
    assert np.isnan(found.seen[2]).all()


def test_features_are_computed_once_and_again_for_a_row_that_was_extracted_again(tmp_path):
    db, made, asked = _empty(tmp_path), maker(), []

    def show(ids):
        asked.append(sorted(ids))
        return (shown(id_) for id_ in ids)

    rows = {f"c{i}": "k" for i in range(70)}  # more than are committed at once
    first = all_features(db, "clips", rows, show, made, STEPS)
    assert first.ids == tuple(sorted(rows))
    second = all_features(db, "clips", dict(reversed(rows.items())), show, made, STEPS)
    assert len(asked) == 1
    np.testing.assert_array_equal(second.seen, first.seen)
    all_features(db, "clips", rows | {"c7": "extracted anew", "new": "k"}, show, made, STEPS)
    assert asked[1:] == [["c7", "new"]]
    all_features(db, "clips", rows, show, maker(1), STEPS)  # other weights
    assert len(asked[2]) == 70
