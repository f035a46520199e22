"""Queries of several parts: what is combined, what each part says, and what could not be used."""

import json
from pathlib import Path

import cv2
import lance
import numpy as np
import pyarrow as pa
import pytest
from support.movements import movement, moving_row
from support.people import scene
from support.rows import make_clip, random_unit
from support.stage_keys import with_own_column

from handloom.api import Database
from handloom.draw.hits import FRAMES, write_hits
from handloom.errors import ConfigError, StoreError
from handloom.models.faces import FaceFinder
from handloom.pipelines.search import _shown
from handloom.retrieval.video import extract, some_frames
from handloom.schemas.settings import Settings
from handloom.store.search.index import ensure_text_indexes
from handloom.store.search.results import Part
from handloom.video.write import write_video

NUM, DIM = 24, 8
WORDS = ["open the drawer", "close the drawer", "wash the pan"]


def jpegs(number, num_frames):
    """Frames of one colour a clip."""
    colour = np.random.default_rng(number).integers(0, 255, 3)
    data = cv2.imencode(".jpg", np.full((48, 64, 3), colour, np.uint8))[1].tobytes()
    return [data] * num_frames


def clip_of(number):
    narration = WORDS[number % 3] if number < 18 else None
    return make_clip(number, narration=narration, end_s=float(number % 10) + 4)


@pytest.fixture(scope="module")
def db(tmp_path_factory) -> Database:
    """Clips 0 to 19 show a hand on 20 paths; 20 to 23 show none. `own` is an embedding of all but two."""
    db = Database.open(tmp_path_factory.mktemp("db"), create=True)
    rows = []
    for number in range(NUM):
        points, frame_s = movement(number, 4.0)
        points = points if number < 20 else np.full_like(points, np.nan)
        rows.append(moving_row(clip_of(number), points, frame_s, frame_jpeg=jpegs(number, len(frame_s))))
    rng = np.random.default_rng(0)
    vectors = [random_unit(rng, DIM).tolist() if number not in (3, 4) else None for number in range(NUM)]
    table = with_own_column(
        pa.Table.from_batches(rows), "own", "embedding_own", pa.array(vectors, pa.list_(pa.float32(), DIM))
    )
    lance.write_dataset(table, db.location.table_uri("clips"), max_rows_per_file=7)
    ensure_text_indexes(db)
    return db


def ids(*numbers):
    return [clip_of(n).clip_id for n in numbers]


def test_one_part_is_the_search_of_before(db):
    hits = db.search(clip=ids(0)[0], by="own", k=5)
    assert (hits.scoring, hits.num_with, hits.num_without, hits.unused) == ("cosine", NUM - 2, 2, {})
    assert [hit.parts for hit in hits] == [{"own": Part(hit.score, rank)} for rank, hit in enumerate(hits, 1)]
    words = db.search(text="drawer", k=NUM)
    assert {hit.clip_id for hit in words} == set(ids(*(n for n in range(18) if n % 3 < 2)))
    exact = db.search(text="drawer", k=NUM, meaning=False)
    assert (exact.scoring, exact.unused) == ("bm25", {})
    assert list(exact) == list(words)
    assert list(words.unused) == ["meaning"]


def test_parts_are_fused_by_ranks_and_say_why(db):
    query = {"clip": ids(0)[0], "by": {"motion": 1.0, "own": 0.5}}
    hits = db.search(text="open the drawer", k=NUM, meaning=False, **query)
    assert hits.scoring == "rrf"
    alone = {
        "motion": db.search(clip=ids(0)[0], by="motion", k=NUM),
        "own": db.search(clip=ids(0)[0], by="own", k=NUM),
        "words": [h for h in db.search(text="open the drawer", k=NUM, meaning=False) if h.clip_id != ids(0)[0]],
    }
    expected = {}
    for name, weight in (("motion", 1.0), ("own", 0.5), ("words", 1.0)):
        scores = [hit.score for hit in alone[name]]
        for hit in alone[name]:
            rank = 1 + sum(score > hit.score for score in scores)
            expected[hit.clip_id] = expected.get(hit.clip_id, 0) + weight / (60 + rank)
    assert [h.clip_id for h in hits] == sorted(expected, key=lambda c: (-round(expected[c], 9), c))
    assert ids(0)[0] not in {hit.clip_id for hit in hits}
    best = hits[0]
    assert best.parts["motion"].score == next(h.score for h in alone["motion"] if h.clip_id == best.clip_id)
    assert "own" not in next(hit for hit in hits if hit.clip_id == ids(3)[0]).parts
    narrowed = db.search(text="open the drawer", where="video_id = 'v1'", k=3, **query)
    assert {hit.video_id for hit in narrowed} == {"v1"}


def test_weighted_scores_are_sums_of_cosines(db):
    hits = db.search(clip=ids(1)[0], by=["motion", "own=0.25"], weights=True, k=NUM)
    assert hits.scoring == "weights"
    assert hits.exact
    for hit in hits:
        parts = {name: part.score for name, part in hit.parts.items()}
        assert hit.score == pytest.approx(parts.get("motion", 0) + 0.25 * parts.get("own", 0), abs=2e-6)


def test_a_part_is_whole_only_if_all_its_clips_are_listed(db, monkeypatch):
    """The query's clip does not pass the filter, and one more clip passes than each part lists."""
    query = {"clip": ids(1)[0], "by": ["motion", "own"], "where": f"clip_id <> '{ids(1)[0]}'", "weights": True}
    expected = db.search(k=NUM, **query)
    num_own = sum("own" in hit.parts for hit in expected)
    monkeypatch.setattr("handloom.retrieval.search.DEPTH", num_own - 1)
    assert list(db.search(k=num_own - 1, **query)) == list(expected[: num_own - 1])


def test_a_version_that_lacks_a_clip_or_an_index_is_named(tmp_path):
    db = Database.open(tmp_path, create=True)
    points, frame_s = movement(0, 4.0)
    for number in range(2):
        row = moving_row(clip_of(number), points, frame_s)
        mode = "append" if number else "create"
        lance.write_dataset(pa.Table.from_batches([row]), db.location.table_uri("clips"), mode=mode)
    ensure_text_indexes(db)
    with pytest.raises(StoreError, match=f"has no row in version 1 of clips\nhint: version {db.version} has one"):
        db.search(clip=ids(1)[0], version=1)
    with pytest.raises(StoreError, match=r"version 1 of .* has no text index\nhint: search a later one"):
        db.search(text="open", meaning=False, version=1)
    with pytest.raises(StoreError, match=r"there is no clip"):
        db.search(clip=ids(2)[0], version=1)


def test_a_piece_of_a_clip_finds_its_movement_and_its_times(db):
    """Clip 21 becomes a copy of a piece: the search names the clip and when; a clip is not its own result."""
    clip = clip_of(5)
    points, frame_s = movement(5, 4.0)
    inside = (frame_s >= 1) & (frame_s <= 3)
    hits = db.search(trajectory=(points[inside], frame_s[inside]), k=3)
    assert (hits[0].clip_id, hits.scoring) == (clip.clip_id, "moment")
    assert hits[0].match_start_s == pytest.approx(clip.start_s + 1, abs=0.11)
    assert hits[0].match_end_s == pytest.approx(clip.start_s + 3, abs=0.11)
    assert hits[0].score > 0.9 > hits[1].score
    assert hits[0].parts == {"moment": Part(hits[0].score, 1)}
    mirrored = points[inside][:, ::-1] * [-1, 1, 1]
    assert db.search(trajectory=(mirrored, frame_s[inside]), k=1)[0].score < 0.8
    found = db.search(trajectory=(mirrored, frame_s[inside]), mirror=True, k=1)[0]
    assert (found.clip_id, found.score) == (clip.clip_id, pytest.approx(hits[0].score, abs=1e-3))
    like = db.search(clip=clip.clip_id, from_s=clip.start_s + 1, to_s=clip.start_s + 3, k=NUM)
    assert clip.clip_id not in {hit.clip_id for hit in like}
    assert len(like) == 19
    assert all(h.start_s - 1e-6 <= h.match_start_s < h.match_end_s <= h.start_s + 4 + 1e-6 for h in like)
    windows = db.windows(past=5, fields=["hand_keypoints_cam_m"], clips=hits, version=hits.version)
    spans = {h.clip_id: (h.match_start_s, h.match_end_s) for h in hits}
    assert set(windows.clip_ids) <= set(spans)
    for window in windows:
        low, high = spans[window["clip_id"]]
        assert low - 1e-3 <= window["frame_s"][0] <= window["frame_s"][-1] <= high + 1e-3


def test_candidates_of_a_large_table_are_chosen_by_motion(db, monkeypatch):
    from handloom.retrieval.movement import moments

    points, frame_s = movement(7, 4.0)
    monkeypatch.setattr(moments, "MOST", dict.fromkeys(moments.MOST, 5))
    hits = db.search(trajectory=(points, frame_s), k=NUM)
    assert (len(hits), hits.exact, hits[0].clip_id) == (5, False, ids(7)[0])


def test_trajectory_files(db, tmp_path):
    points, frame_s = movement(9, 4.0)
    np.savez(tmp_path / "both.npz", keypoints=points, frame_s=frame_s)
    np.savez(tmp_path / "one.npz", keypoints=points[:, 1], frame_s=frame_s, hand="right")
    np.save(tmp_path / "bare.npy", points[:, 1].astype(np.float32))
    for name, more in (("both.npz", {}), ("one.npz", {}), ("bare.npy", {"hz": 15.0})):
        hits = db.search(trajectory=tmp_path / name, k=1, **more)
        assert hits[0].clip_id == ids(9)[0], name
    (tmp_path / "text.npy").write_text("no array")
    np.savez(tmp_path / "lacking.npz", keypoints=points)
    np.save(tmp_path / "objects.npy", np.array([{}], object), allow_pickle=True)
    np.savez(tmp_path / "hand.npz", keypoints=points, frame_s=frame_s, hand=np.array({}, object))
    np.save(tmp_path / "number.npy", np.float32(1))
    head = b"{'descr': '<f8', 'fortran_order': False, 'shape': (99999999999, 21, 3)}"
    (tmp_path / "huge.npy").write_bytes(b"\x93NUMPY\x01\x00" + bytes([118, 0]) + head.ljust(117) + b"\n")
    (tmp_path / "open.npy").write_bytes(b"\x93NUMPY\x01\x00" + bytes([118, 0]) + b"{'descr': (".ljust(117) + b"\n")
    whole = {"keypoints": points, "frame_s": frame_s}
    bad = {
        "shape": {"keypoints": points[..., :2]},
        "do not increase": {"frame_s": frame_s[::-1]},
        "times of .* do not": {"frame_s": np.arange(len(frame_s), dtype=np.uint64)[::-1]},
        "times of": {"frame_s": frame_s[:-1]},
        "no frame with all 21": {"keypoints": points * np.nan},
        "hands of 90": {"keypoints": points * 1000},
        "behind the camera": {"keypoints": points - [0, 0, 2]},
        "hand 'both'": {"keypoints": points[:, 1], "hand": "both"},
        "expected numbers": {"frame_s": np.array(["a"] * len(frame_s))},
    }
    for words, change in bad.items():
        np.savez(tmp_path / "bad.npz", **(whole | change))
        with pytest.raises(ConfigError, match=words):
            db.search(trajectory=tmp_path / "bad.npz")
    for name in ("number.npy", "huge.npy", "open.npy", "hand.npz"):
        with pytest.raises(ConfigError, match="shape" if name == "number.npy" else "cannot be read"):
            db.search(trajectory=tmp_path / name, hz=None if name == "hand.npz" else 10.0)
    with pytest.raises(ConfigError, match="has times, and hz is given"):
        db.search(trajectory=tmp_path / "both.npz", hz=5.0)
    with pytest.raises(ConfigError, match="holds no arrays"):
        db.search(trajectory=([[1], [1, 2]], [0, 1]))
    for name, words in (
        ("text.npy", "cannot be read"),
        ("objects.npy", "cannot be read"),
        ("absent.npz", "cannot be read"),
        ("lacking.npz", "has no frame_s"),
        ("bare.npy", "without times"),
    ):
        with pytest.raises(ConfigError, match=words):
            db.search(trajectory=tmp_path / name)
    with pytest.raises(ConfigError, match="a pair"):
        db.search(trajectory=points)
    with pytest.raises(ConfigError, match=r"lasts 80\.0 s, a movement"):
        db.search(trajectory=(points, 20 * frame_s))


def test_what_could_not_be_used_is_named(db):
    hits = db.search(clip=ids(21)[0], text="drawer", k=3)
    assert len(hits) == 3
    assert list(hits.unused) == ["motion", "meaning"]
    assert "has no motion embedding" in hits.unused["motion"]
    nothing = db.search(clip=ids(1)[0], text="zebra", k=3, meaning=False)
    assert nothing.unused == {"words": "no clip that is searched has a word of the text"}
    ranged = db.search(clip=ids(1)[0], from_s=1, to_s=3, by=["motion", "own"], k=3)
    assert list(ranged.unused) == ["own"]
    assert "compares no texts" in db.search(text="drawer", by="motion", meaning=False, k=1).unused["motion"]
    moved = db.search(trajectory=movement(1, 2.0), by=["motion", "own"], k=3)
    assert moved.unused == {"own": "trajectory cannot be compared by own"}
    assert ranged[0].match_start_s is not None
    with pytest.raises(StoreError, match="has no motion embedding"):
        db.search(clip=ids(21)[0])


def test_bad_input_is_refused_with_what_to_do(db, tmp_path):
    one = ids(1)[0]
    text, cut = tmp_path / "words.txt", tmp_path / "cut.jpg"
    text.write_text("no image")
    cut.write_bytes(jpegs(0, 1)[0][:40])
    for query, words in (
        ({}, "at least one of text, clip, video"),
        ({"text": "  "}, "is empty"),
        ({"clip": one, "by": "griper"}, "no embedding 'griper'"),
        ({"clip": one, "by": ["own", "own=2"]}, "names 'own' twice"),
        ({"clip": one, "by": "own=0"}, "above 0"),
        ({"clip": one, "by": "own=much"}, "no number"),
        ({"vector": np.ones(DIM + 1), "by": "own"}, "have .9. numbers, embedding_own has 8"),
        ({"vector": np.ones(DIM), "by": ["own", "motion"]}, "of one embedding"),
        ({"vector": np.ones(DIM), "vectors": [np.ones(DIM)], "by": "own"}, "vector and vectors"),
        ({"clip": one, "from_s": 3, "to_s": 1}, "start comes before"),
        ({"clip": one, "from_s": 20, "to_s": 22}, r"not inside clip .*, which is 1 to 5 s"),
        ({"clip": one, "from_s": 20}, "range 20 to end s is not inside"),
        ({"clip": one, "from_s": 1, "to_s": 1.05}, "holds 1 frame of"),
        ({"clip": ids(21)[0], "from_s": 1, "to_s": 3}, "no hand is seen in .* .1 to 3 s"),
        ({"text": "open", "from_s": 1, "to_s": 2}, "one clip or one video"),
        ({"clip": one, "start_s": 1.0}, "start_s"),
        ({"text": "open", "mirror": True}, "mirror compares motion"),
        ({"video": str(tmp_path / "absent.mp4")}, "hint: check the path"),
        ({"video": str(tmp_path)}, "hint: name one whole video file"),
        ({"image": text}, "is no image|no embedding_look"),
        ({"clip": one, "by": "arvrm", "text": None}, "embedding_text"),
        ({"clip": one, "by": ["arvrm", "own"]}, "alone"),
        ({"clip": one, "k": 0}, "k is 0"),
        ({"clip": one, "k": 1.5}, "k is 1.5"),
        ({"text": "!? \U0001f525"}, "has no word"),
        ({"text": "push \udcff"}, "no UTF-8 text"),
        ({"text": b"push"}, "which is no text"),
        ({"clip": one, "meaning": False}, "is about a text"),
        ({"clip": one, "hz": 10.0}, "hz is the rate of a trajectory"),
        ({"text": "open", "exclude": one}, f"exclude='{one}': expected a list"),
        ({"text": "open", "columns": "verb"}, "columns='verb': expected a list"),
        ({"vector": "abc", "by": "own"}, "holds no numbers"),
        ({"vectors": [None], "by": "own"}, "have .1. numbers"),
    ):
        with pytest.raises(ConfigError, match=words):
            db.search(**query)


def test_on_the_command_line(db, cli, tmp_path):
    sheet = tmp_path / "found.png"
    call = ("search", "--db", db.uri, "--clip", ids(5)[0], "--from-s", 6, "--to-s", 8, "-k", 3)
    code, out, err = cli(*call, "--text", "open", "--exact", "--sheet", sheet)
    assert (code, len(out.splitlines())) == (0, 3)
    assert "  at " in out
    assert "moment 0." in out
    assert f"wrote {sheet}" in err
    image = cv2.imread(str(sheet))
    assert image.shape[0] > 4 * 150
    assert image.std() > 10
    code, out, _ = cli(*call, "--json")
    found = json.loads(out)
    assert (code, found["scoring"], found["unused"]) == (0, "moment", {})
    assert set(found["hits"][0]["parts"]["moment"]) == {"score", "rank"}
    code, _, err = cli("search", "--db", db.uri, "--text", "open", "--sheet", tmp_path / "found.jpg")
    assert (code, "no .png file" in err) == (2, True)


def test_the_sheet_begins_with_what_was_asked(db, clips, tmp_path):
    """A text, an image and a part of a video in words and pictures; strips end at the sheet's margin."""
    image = np.full((60, 80, 3), (200, 30, 30), np.uint8)
    cv2.imwrite(str(tmp_path / "red.png"), image[..., ::-1])
    video = clips[0].video_uri
    asked = _shown(db, {"text": "open it", "video": video, "start_s": 0.3, "image": tmp_path / "red.png"})
    assert [part.words for part in asked] == ['"open it"', f"{Path(video).name}, from 0.30 s", "red.png"]
    times = [float(label.removesuffix(" s")) for label, _ in asked[1].images]
    assert len(times) == FRAMES
    assert min(times) >= 0.3
    assert np.ptp(np.diff(times)) < 0.15
    assert np.array_equal(asked[2].images[0][1], image)
    hits = db.search(text="open", k=2, meaning=False)
    for name, query in (("without", []), ("with", asked)):
        write_hits(db, hits, tmp_path / f"{name}.png", query=query)
    without, drawn = (cv2.imread(str(tmp_path / f"{name}.png")) for name in ("without", "with"))
    head = drawn[: len(drawn) - len(without)]
    assert np.array_equal(drawn[len(head) :], without)
    assert (np.abs(head.astype(int) - (30, 30, 200)).max(axis=2) < 5).sum() > 100 * 130, "the image is in it"
    assert (head[:, -9:-5].max(axis=2) > 60).sum() > 100, "frames of the video reach the margin"


def test_faces_of_the_asked_video_are_blurred_where_those_of_rows_are(db, tmp_path, monkeypatch):
    path = tmp_path / "person.mp4"
    write_video(path, [scene(300 + number) for number in range(8)], np.arange(8) / 10)
    plain = some_frames(db, str(path), num=4)
    monkeypatch.setattr("handloom.retrieval.video.settings_of", lambda _: Settings(frames={"blur_faces": True}))
    hidden = some_frames(db, str(path), num=4)
    assert [time_s for time_s, _ in hidden] == [time_s for time_s, _ in plain]
    find = FaceFinder()
    assert all(len(find(image)) == 1 for _, image in plain)
    assert not any(len(find(image)) for _, image in hidden)


def test_faces_of_the_asked_picture_are_blurred_where_those_of_rows_are(db, tmp_path, monkeypatch):
    path = tmp_path / "person.png"
    cv2.imwrite(str(path), cv2.cvtColor(scene(300), cv2.COLOR_RGB2BGR))
    (plain,) = _shown(db, {"image": path})
    monkeypatch.setattr("handloom.retrieval.pictures.settings_of", lambda _: Settings(frames={"blur_faces": True}))
    find, counts = FaceFinder(), []
    for given in (path, scene(300)):
        (hidden,) = _shown(db, {"image": given})
        counts.append([len(find(image)) for _, image in (*plain.images, *hidden.images)])
    assert counts == [[1, 0], [1, 0]]


def test_a_video_is_extracted_once_as_long_as_it_is_the_same(db, tmp_path):
    path, images = tmp_path / "asked.mp4", [scene(300 + number) for number in range(4)]

    def vector():
        return extract(db, str(path), by=("appearance",))["embedding_appearance"]

    write_video(path, images, np.arange(4) / 10)
    told = []

    def stop(stage, num_frames):
        told.append(stage)
        if len(told) == 3:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        extract(db, str(path), by=("appearance",), on_stage=stop)
    assert len(told) == 3
    first = vector()
    assert vector() is first
    write_video(path, [255 - image for image in images], np.arange(4) / 10)
    other = vector()
    assert np.abs(other - first).max() > 0.01
    path.unlink()
    with pytest.raises(ConfigError, match="there is no file"):
        vector()


def test_a_video_that_is_longer_than_it_may_be_is_not_extracted(db, tmp_path):
    path = tmp_path / "long.mp4"
    write_video(path, [scene(300)] * 60, np.arange(60) / 15)
    assert extract(db, str(path), 0.0, 0.3, by=("appearance",), longest_s=1.0)["embedding_appearance"] is not None
    with pytest.raises(ConfigError, match=r"at most 1 s are") as raised:
        extract(db, str(path), by=("appearance",), longest_s=1.0)
    assert str(path) in raised.value.problem
