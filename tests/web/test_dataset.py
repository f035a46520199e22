"""The dataset page and judging, through the server: what is counted, ranked, projected, written and refused."""

import io
import json
from datetime import timedelta

import numpy as np
import pyarrow.parquet as pq
import pytest
from starlette.testclient import TestClient
from support.rows import RUN_KEY, make_clip, make_row

from handloom.api import Database
from handloom.pipelines.judgements import read_csv
from handloom.schemas.tables.arrow import clips_schema
from handloom.schemas.tables.reject import Reject
from handloom.store.clips.clip_list import add_clips, pending_clips
from handloom.store.clips.commit import Committer
from handloom.store.fragments import write_fragment
from handloom.store.runs.lease import leased
from handloom.store.runs.runs import RunProgress, end_run, list_runs
from handloom.web.app import make_app
from handloom.web.dataset import principal_plane, within
from handloom.web.gallery import Gallery

NUM, LOST = 12, 2
IDS = [make_clip(n).clip_id for n in range(NUM + LOST)]
WORDS = {"narration": "<b>take</b> a cup", "verb": "take"}


def make_clips():
    return [make_clip(n, **(WORDS if n % 2 else {})) for n in range(NUM + LOST)]


@pytest.fixture
def db(tmp_path):
    """12 rows, 2 rejects; `blur` is the clip's number, unknown of clip 5."""
    db = Database.open(tmp_path / "db", create=True)
    add_clips(db, make_clips())
    schema = clips_schema(4)
    rows = [make_row(clip, quality={"blur": None if n == 5 else float(n)}) for n, clip in enumerate(make_clips()[:NUM])]
    committer = Committer(db, RUN_KEY, schema)
    lost = [Reject(id_, "decode", "damaged", "41 of 96 <frames>") for id_ in IDS[NUM:]]
    committer.commit([write_fragment(db.uri, rows, schema)], lost)
    return db


@pytest.fixture
def ask(db):
    with TestClient(make_app(Gallery(db, judging=True)), base_url="http://127.0.0.1") as client:
        yield client


def test_everything_is_counted(ask):
    told = ask.get("/api/dataset").json()
    assert {name: told["counts"][name] for name in ("clip_list", "clips", "rejects", "pending")} == {
        "clip_list": NUM + LOST,
        "clips": NUM,
        "rejects": LOST,
        "pending": 0,
    }
    assert told["coverage"]["narration"] == told["coverage"]["verb"] == 0.5
    assert told["coverage"]["blur"] == pytest.approx(11 / 12)
    assert dict(map(tuple, told["facets"]["verb"])) == {"take": 6, None: 6}
    blur = next(one for one in told["distributions"] if one["name"] == "blur")
    assert (sum(blur["all"]), blur["unknown"]) == (11, 1)
    (reject,) = told["rejects"]
    assert (reject["count"], reject["stage"], reject["reason"]) == (LOST, "decode", "damaged")
    assert not told["running"]


def test_versions_are_those_that_can_be_opened(db):
    """Without those that have no row, and without those that were cleaned up."""

    gallery = Gallery(db, look_every_s=0)

    def told():
        with TestClient(make_app(gallery), base_url="http://127.0.0.1") as client:
            return {one["version"]: one["rows"] for one in client.get("/api/versions").json()["versions"]}

    def there():
        numbers = [one["version"] for one in db.table("clips").versions()]
        return {number: rows for number in numbers if (rows := db.table("clips", number).count_rows())}

    db.table("clips").delete(f"clip_id = '{IDS[0]}'")
    assert len(there()) == 2
    assert told() == there()
    assert list(told()) == sorted(told(), reverse=True)
    db.table("clips").cleanup_old_versions(timedelta(0))
    assert told() == {db.table("clips").version: NUM - 1} == there()


def test_a_run_that_works_is_shown_while_it_works(ask, db):
    with leased(db, RUN_KEY, settings={}, resources={}, versions={}) as lease:
        lease.tell(RunProgress(NUM, rows=3, frames=90, clips_per_s=0.5, stages={"tracks": (1, 4.0)}))
        lease.check()
        told = ask.get("/api/dataset").json()
        assert told["running"]
        (run,) = told["runs"]
        assert (run["run_id"], run["state"], run["running"]) == (list_runs(db)[-1].run_id, "running", True)
        assert (run["progress"]["rows"], run["progress"]["at_work"]) == (3, "tracks (4 s)")
        assert 0 <= run["silent_s"] < 30
        dead = json.loads(lease.run.holder) | {"process_start": 1}
        db.table("runs").update({"holder": f"'{json.dumps(dead)}'"})
        told = ask.get("/api/dataset").json()
        assert (told["runs"][0]["state"], told["running"]) == ("gone", False)
        assert told["runs"][0]["progress"]["total"] == NUM
        end_run(db, lease.run, "done", num_clips=0, num_rejects=0, num_frames=0, stage_s={})
    (run,) = ask.get("/api/dataset").json()["runs"]
    assert (run["state"], run["progress"], run["silent_s"]) == ("done", None, None)


def test_when_a_clip_was_made_is_told_where_one_run_can_have_made_it(db):
    told = []
    for num_clips in (NUM, 0, NUM):
        with leased(db, RUN_KEY, settings={}, resources={}, versions={}) as lease:
            end_run(db, lease.run, "done", num_clips=num_clips, num_rejects=0, num_frames=0, stage_s={})
        with TestClient(make_app(Gallery(db)), base_url="http://127.0.0.1") as client:
            told.append(client.get("/api/clip", params={"id": IDS[0]}).json()["run"])
    assert all((run["run_key"], run["settings"]) == (RUN_KEY, {}) for run in told)
    assert [run["at"] for run in told] == [list_runs(db)[0].started_at.isoformat()] * 2 + [None]


def test_outliers_are_the_known_values_in_order(ask):
    low, high = (ask.get("/api/outliers", params={"q": "blur", "order": o, "limit": 3}).json() for o in ("low", "high"))
    assert [hit["value"] for hit in low["hits"]] == [0, 1, 2]
    assert [hit["value"] for hit in high["hits"]] == [11, 10, 9]
    assert [hit["clip_id"] for hit in high["hits"]] == IDS[11:8:-1]
    assert low["known"] == 11
    assert [(hit["place"], hit["equal"]) for hit in (high["hits"][0], low["hits"][0])] == [(1, 0), (0, 0)]
    assert len(ask.get("/api/outliers", params={"q": "blur", "limit": 200}).json()["hits"]) == 11
    assert ask.get("/api/outliers", params={"q": "hand_bone_cv"}).json()["hits"] == []


def test_the_map_holds_each_clip_once_and_marks_judged_ones(ask, db):
    ask.post("/api/judge", json={"clip_id": IDS[3], "verdict": "bad"})
    told = ask.get("/api/map").json()
    assert (told["by"], sorted(told["ids"]), told["without"]) == ("motion", sorted(IDS[:NUM]), 0)
    assert len(told["xy"]) == NUM
    assert [told["ids"][n] for n, flag in enumerate(told["flags"]) if flag == "bad"] == [IDS[3]]
    words = told["codes"]["verb"]["values"]
    found = zip(told["ids"], told["codes"]["verb"]["of"], strict=True)
    expected = {id_: "take" if n % 2 else None for n, id_ in enumerate(IDS[:NUM])}
    assert {id_: words[code] if code >= 0 else None for id_, code in found} == expected
    assert set(told["codes"]) >= {"dataset", "hand", "scale"}
    few = ask.get("/api/map", params={"by": "appearance", "n": 5}).json()
    assert len(few["ids"]) == 5
    assert few["total"] == NUM
    assert ask.get("/api/map", params={"by": "appearance", "n": 5}).json()["ids"] == few["ids"]


def test_the_plane_is_that_of_the_largest_variance():
    rng = np.random.default_rng(3)
    flat = rng.normal(size=(40, 2)) * (5, 2)
    axes = np.linalg.qr(rng.normal(size=(30, 30)))[0][:2]
    xy, explained = principal_plane(flat @ axes + rng.normal(size=30))
    assert explained == pytest.approx(1)
    assert np.abs(xy).max() == pytest.approx(1)
    far = lambda points: np.linalg.norm(points[:, None] - points[None], axis=-1)
    np.testing.assert_allclose(far(xy) / far(xy).max(), far(flat) / far(flat).max(), atol=1e-9)  # a rotation
    again, _ = principal_plane((flat @ axes)[::-1] - 7)
    np.testing.assert_allclose(again[::-1], xy, atol=1e-9)
    for few in (np.empty((0, 4)), np.ones((2, 4)), np.ones((9, 4)), np.ones((9, 1))):
        assert principal_plane(few)[1] is None
    assert principal_plane(np.arange(5.0)[:, None])[0].shape == (5, 2)


def test_a_judgement_is_written_found_and_taken_back(ask, db):
    note = "<script>" + "ä" * 9_990
    body = {"clip_id": IDS[0], "verdict": "bad", "reason": "blurred", "note": note, "who": "ana", "version": db.version}
    kept = ask.post("/api/judge", json=body).json()["judgement"]
    assert {name: kept[name] for name in ("verdict", "reason", "note", "who")} == {
        name: body[name] for name in ("verdict", "reason", "note", "who")
    }
    assert kept["clips_version"] == db.version
    find = lambda **asked: [hit["clip_id"] for hit in ask.get("/api/search", params=asked).json()["hits"]]
    assert find(flag="bad") == find(where="judged('bad', 'blurred')") == IDS[:1]
    assert ask.get("/api/clip", params={"id": IDS[0]}).json()["judgement"]["note"] == note
    mine = {"clip_id": IDS[0], "verdict": "bad"}
    for seen in (None, "2026-01-01T00:00:00+00:00"):  # a page that does not show this judgement puts none in its place
        answer = ask.post("/api/judge", json=mine | {"before": seen})
        assert (answer.status_code, answer.json()["error"]["problem"][-9:]) == (409, "meanwhile")
    assert ask.post("/api/judge", json=mine | {"before": kept["at"]}).json()["judgement"]["note"] == note
    assert ask.post("/api/judge", json={"clip_ids": IDS[1:4], "verdict": "good"}).json() == {"num": 3}
    assert find(where="judged('good')") == IDS[1:4]
    told = ask.get("/api/judgements", params={"limit": 2}).json()
    assert (told["total"], told["counts"], len(told["judgements"])) == (4, {"good": 3, "bad": 1}, 2)
    assert ask.post("/api/judge", json={"clip_id": IDS[0]}).status_code == 400  # takes nothing back
    assert ask.post("/api/judge", json={"clip_id": IDS[0], "verdict": None}).json() == {"judgement": None}
    assert find(where="judged('bad')") == [] == db.judged("bad")


def test_all_judgements_are_one_file_that_can_be_read_back(ask, db, tmp_path, monkeypatch):
    ask.post("/api/judge", json={"clip_ids": IDS[:3], "verdict": "bad", "reason": 'a "hand", missing', "note": "1, 2"})
    given = db.judgements()
    table = ask.get("/download/judgements?format=parquet")
    assert pq.read_table(io.BytesIO(table.content)).equals(given)
    told = ask.get("/download/judgements")
    assert 'filename="judgements.csv"' in told.headers["content-disposition"]
    path = tmp_path / "judgements.csv"
    path.write_bytes(told.content)
    db.table("judgements").delete("true")
    assert not db.judged("bad")
    assert read_csv(db, path) == (3, 0, 0)
    assert db.judgements().to_pylist() == given.to_pylist()
    assert ask.get("/download/judgements?format=xls").status_code == 400
    monkeypatch.setattr("handloom.web.judging.MOST_BYTES", 10)
    refused = ask.get("/download/judgements")
    assert (refused.status_code, "--csv" in refused.json()["error"]["hint"]) == (413, True)


def test_a_line_on_the_map_is_a_filter(ask):
    told = ask.get("/api/map").json()
    left = sorted(id_ for id_, (x, _) in zip(told["ids"], told["xy"], strict=True) if x < 0)
    found = ask.get("/api/search", params={"lasso": "motion:-2,-2;0,-2;0,2;-2,2", "where": "true"}).json()
    assert 0 < len(left) < NUM
    assert sorted(hit["clip_id"] for hit in found["hits"]) == left
    assert ask.get("/api/search", params={"lasso": "motion:8,8;9,8;9,9"}).json()["total"] == 0
    for wrong in ("motion:0,0;1,1", "motion:a", "0,0;1,0;1,1", "nothing:0,0;1,0;1,1", "motion:" + "0,0;" * 2000):
        assert ask.get("/api/search", params={"lasso": wrong}).status_code == 400, wrong[:40]


def test_points_within_a_line():
    """A star whose middle its line goes around twice: even-odd, as the page decides."""
    turns = np.arange(5) * 4 * np.pi / 5
    star = np.column_stack([np.cos(turns), np.sin(turns)])
    points = np.array([[0.0, 0], [0.9, 0], [0.7, 0.6], [2, 0], [-2, 0], [0, 0.31], [0, 2]])
    assert within(points, star).tolist() == [False, True, False, False, False, False, False]
    rng = np.random.default_rng(1)
    cloud = rng.uniform(-1, 1, (500, 2))
    assert (
        within(cloud, np.array([[-0.5, -0.5], [0.5, -0.5], [0.5, 0.5], [-0.5, 0.5]])) == (abs(cloud) < 0.5).all(1)
    ).all()


def test_a_verdict_alone_keeps_the_texts(ask, db):
    """Many clips are judged at once, and one by a key: nobody's note is lost by that."""
    ask.post("/api/judge", json={"clip_id": IDS[0], "verdict": "bad", "reason": "blurred", "note": "from 3 s on"})
    texts = lambda: [(row["reason"], row["note"]) for row in db.judgements(f"clip_id = '{IDS[0]}'").to_pylist()]
    ask.post("/api/judge", json={"clip_ids": IDS[:2], "verdict": "bad"})
    assert texts() == [("blurred", "from 3 s on")]
    ask.post("/api/judge", json={"clip_ids": IDS[:2], "verdict": "good"})
    assert texts() == [(None, "from 3 s on")]
    ask.post("/api/judge", json={"clip_id": IDS[0], "verdict": "good", "reason": "", "note": ""})
    assert texts() == [(None, None)]


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ({"clip_id": IDS[0], "verdict": "fine"}, 400, "expected good or bad"),
        ({"clip_id": "nobody", "verdict": "good"}, 404, "there is no clip"),
        ({"clip_id": IDS[NUM], "verdict": "good"}, 404, "was rejected at decode"),
        ({"clip_id": 7, "verdict": "good"}, 400, "clip_id is int"),
        ({"clip_ids": [], "verdict": "good"}, 400, "no list of ids"),
        ({"clip_ids": IDS[:1] * 3000, "verdict": "good"}, 400, "at most 2,000"),
        ({"clip_id": IDS[0], "verdict": "bad", "note": "x" * 10_001}, 400, "at most 10,000"),
        ([1], 400, "another kind: list"),
    ],
)
def test_what_cannot_be_judged_is_refused(ask, db, body, status, said):
    answer = ask.post("/api/judge", json=body)
    assert (answer.status_code, said in answer.text) == (status, True), answer.text
    assert db.table("judgements") is None


def test_without_judge_nothing_is_written(db):
    with TestClient(make_app(Gallery(db)), base_url="http://127.0.0.1") as client:
        for path, body in (("judge", {"clip_id": IDS[0], "verdict": "good"}), ("requeue", {"ids": IDS[NUM:]})):
            answer = client.post(f"/api/{path}", json=body)
            assert (answer.status_code, "--judge" in answer.json()["error"]["hint"]) == (403, True)
    assert db.table("judgements") is None
    assert db.rejects().num_rows == LOST


def test_rejects_are_listed_and_put_back_for_the_next_run(ask, db):
    asked = {"part": "clips", "stage": "decode", "reason": "damaged"}
    told = ask.get("/api/rejects", params=asked | {"limit": 1, "offset": 1}).json()
    assert (told["total"], [one["clip_id"] for one in told["rejects"]]) == (LOST, IDS[NUM + 1 :])
    assert told["rejects"][0]["detail"] == "41 of 96 <frames>"
    with leased(db, RUN_KEY, settings={}, resources={}, versions={}) as lease:
        busy = ask.post("/api/requeue", json={"ids": IDS[NUM:]})
        end_run(db, lease.run, "done", num_clips=0, num_rejects=0, num_frames=0, stage_s={})
    assert (busy.status_code, "cannot be put back" in busy.text) == (503, True)
    assert ask.post("/api/requeue", json={"ids": [IDS[0], IDS[NUM]]}).json() == {"clips": 1, "stages": 0}
    assert [clip.clip_id for clip in pending_clips(db)] == [IDS[NUM]]
    assert db.count("clips") == NUM
    assert ask.post("/api/requeue", json={"ids": IDS[:1]}).status_code == 404
    assert ask.get("/api/dataset").json()["counts"]["pending"] == 1


def test_an_empty_database_has_a_page(tmp_path):
    db = Database.open(tmp_path / "db", create=True)
    with TestClient(make_app(Gallery(db)), base_url="http://127.0.0.1") as client:
        assert client.get("/api/dataset").json()["counts"]["clip_list"] == 0
        assert client.get("/api/map").json()["ids"] == []
        assert client.get("/api/outliers", params={"q": "blur"}).json()["hits"] == []
        assert client.get("/api/judgements").json()["total"] == 0
        for path in ("outliers?q=blur&order=up", "outliers?limit=0", "map?n=1", "map?n=999999", "rejects?part=x"):
            assert client.get(f"/api/{path}").status_code == 400, path
