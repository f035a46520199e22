"""Episodes in the gallery: lists, numbers and images of one, downloads; and reports of trainings."""

from __future__ import annotations

import io
import json
from urllib.parse import quote

import lance
import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from support.gallery import CAMERAS, POSE, STEPS, client_of, episode_image, gallery_db, gallery_episode, unpacked

from handloom.schemas.hand_topology import KEYPOINT_NAMES
from handloom.schemas.tables.robot import TABLE, episode_arrays, episode_row
from handloom.store.episodes import read_episodes, write_episodes
from handloom.web.episodes.episodes import hands_of, places_of

DONE = ("yes", "no", "")
HTML = "<img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("episodes")


@pytest.fixture(scope="module")
def client(folder):
    db = gallery_db(folder / "db", [])
    rows = [
        gallery_episode(0, success=True),
        gallery_episode(1, success=False),
        gallery_episode(2, task=None),
        gallery_episode(3, pictures=False, task=HTML),
    ]
    rows += [
        gallery_episode(0, dataset="it's, a/b:c", robot_type=None, state=None),
        gallery_episode(0, dataset="home", robot_type="human_hand"),
    ]
    write_episodes(db, [episode_row(one) for one in rows])
    reports = folder / "runs"
    for name in ("a", "deep/b"):
        (reports / name).mkdir(parents=True)
        (reports / name / "report.html").write_text(f"<html><title>run {name} &amp; more</title><script>1</script>")
    (reports / "a" / "video").mkdir()
    (reports / "a" / "video" / "best.mp4").write_bytes(b"mp4")
    (reports / "a" / "weights.pt").write_bytes(b"secret")
    (reports / "alone.mp4").write_bytes(b"no report beside it")
    (folder / "outside.mp4").write_bytes(b"secret")
    (reports / "a" / "link.mp4").symlink_to(folder / "outside.mp4")
    with client_of(db, reports=[reports]) as found:
        found.db = db
        yield found


def get(client, address: str, episode_id: str = "arm:0", more: str = ""):
    return client.get(f"{address}?id={quote(episode_id, safe='')}{more}")


def test_lists_are_the_table_and_facets_ignore_their_own_choice(client):
    told = client.get("/api/episodes").json()
    assert (told["total"], told["version"]) == (6, client.db.table(TABLE).version)
    rows = read_episodes(client.db, ["episode_id", "task", "cameras"]).to_pylist()
    assert [{name: one[name] for name in rows[0]} for one in told["episodes"]] == rows
    assert {one["duration_s"] for one in told["episodes"]} == {STEPS / 20}
    some = client.get("/api/episodes?dataset=arm&task=lift&task=").json()
    assert [one["episode_id"] for one in some["episodes"]] == ["arm:0", "arm:2"]
    assert dict(map(tuple, some["facets"]["task"])) == {"lift": 1, "push": 1, None: 1, HTML: 1}
    assert dict(map(tuple, some["facets"]["dataset"])) == {"arm": 2, "home": 1, "it's, a/b:c": 1}
    assert dict(map(tuple, told["facets"]["success"])) == {"yes": 1, "no": 1, None: 4}
    done = [[one["episode_id"] for one in client.get(f"/api/episodes?success={w}").json()["episodes"]] for w in DONE]
    assert done[:2] == [["arm:0"], ["arm:1"]]
    assert len(done[2]) == 4
    people = client.get("/api/episodes?kind=people").json()["episodes"]
    assert [one["episode_id"] for one in people] == ["home:0"]
    unknown = client.get("/api/episodes?robot_type=").json()["episodes"]
    assert [(one["dataset"], one["kind"]) for one in unknown] == [("it's, a/b:c", "robots")]
    pages = [client.get(f"/api/episodes?offset={n}&limit=2").json()["episodes"] for n in (0, 2, 4, 6)]
    assert [one for page in pages for one in page] == told["episodes"]
    for wrong in ("offset=-1", "limit=0", "limit=1000", "v=x"):
        assert client.get(f"/api/episodes?{wrong}").status_code == 400
    assert client.get("/api/episodes?v=99").status_code == 404


def test_numbers_of_an_episode_are_those_of_the_table(client):
    told = get(client, "/api/episode").json()
    assert (told["task"], told["num_frames"], told["images"]) == ("lift", STEPS, [[64, 48], [64, 48]])
    assert told["places"] == [{"name": "end effector", "index": [0, 1, 2], "gripper": 7, "unit": None}]
    assert (told["before"], told["after"], told["clips"]) == (None, "arm:1", [None, None])
    assert [get(client, "/api/episode", f"arm:{n}").json()["success"] for n in range(3)] == [True, False, None]
    expected = episode_arrays(read_episodes(client.db, ["frame_s", "state", "action"], "episode_id = 'arm:0'"))
    found = unpacked(get(client, "/api/episode_arrays").content)
    assert list(found) == ["frame_s", "state", "action"]
    for name, values in found.items():
        np.testing.assert_array_equal(values, expected[name])
    assert np.isnan(found["state"][3, 2])
    names: dict = {}
    exec(get(client, "/api/episode", "it's, a/b:c:0").json()["python"], names)
    assert (names["episode"]["dataset"], names["episode"]["state"]) == ("it's, a/b:c", None)
    assert list(unpacked(get(client, "/api/episode_arrays", "it's, a/b:c:0").content)) == ["frame_s", "action"]
    for address in ("/api/episode", "/api/episode_arrays", "/media/episode_thumb", "/download/episode"):
        answer = get(client, address, "arm:77")
        assert answer.status_code == 404
        assert "arm:77" in answer.json()["error"]["problem"]


def test_images_are_those_of_their_camera_and_step(client):
    for camera, name in enumerate(CAMERAS):
        brought = {}
        for first in range(0, STEPS, 32):
            brought |= unpacked(
                get(client, "/media/episode_frames", more=f"&camera={name}&from={first}&num=32").content
            )
        assert {int(n): data.tobytes() for n, data in brought.items()} == {
            t: episode_image(t, 3 * camera) for t in range(STEPS) if camera or t != 5
        }
    assert get(client, "/media/episode_frame", more=f"&camera={CAMERAS[1]}&n=9").content == episode_image(9, 3)
    for more in (f"&camera={CAMERAS[0]}&n=5", f"&camera={CAMERAS[0]}&n={STEPS}", "&camera=front&n=0", "&n=0"):
        assert get(client, "/media/episode_frame", more=more).status_code == 404
    with Image.open(io.BytesIO(get(client, "/media/episode_thumb", more="&h=24").content)) as thumb:
        assert thumb.size == (32, 24)
    assert get(client, "/media/episode_thumb", "arm:3").status_code == 404
    assert get(client, "/api/episode", "arm:3").json()["images"] is None


def test_images_larger_than_what_is_kept_are_served_all_the_same(client, monkeypatch):
    monkeypatch.setattr("handloom.web.episodes.episodes.IMAGES_BYTES", 10)
    with client_of(client.db) as small:
        for episode_id in ("arm:0", "arm:1", "arm:0"):
            assert get(small, "/media/episode_frame", episode_id, f"&camera={CAMERAS[1]}&n=9").content == episode_image(
                9, 3
            )


def test_the_download_is_the_row(client):
    answer = get(client, "/download/episode", "arm:1")
    row = pq.read_table(io.BytesIO(answer.content))
    assert row.equals(read_episodes(client.db, where="episode_id = 'arm:1'"))
    assert 'filename="arm_1.parquet"' in answer.headers["content-disposition"]


def test_a_version_stays_what_it_was(tmp_path):
    """Rows that were removed are gone, from older versions too, and others keep their images."""
    db = gallery_db(tmp_path / "db", [])
    write_episodes(db, [episode_row(gallery_episode(n)) for n in range(3)])
    with client_of(db) as client:
        first = client.get("/api/episodes").json()
        lance.dataset(str(tmp_path / "db" / f"{TABLE}.lance")).delete("episode_id = 'arm:1'")
        newest = client.get("/api/episodes").json()
        assert [one["episode_id"] for one in newest["episodes"]] == ["arm:0", "arm:2"]
        assert get(client, "/api/episode", "arm:2").json()["task"] == "lift"
        assert get(client, "/api/episode", "arm:1").status_code == 404
        old = f"&v={first['version']}"
        assert get(client, "/api/episode", "arm:1", old).status_code == 404
        assert client.get(f"/api/episodes?{old}").json()["total"] == 2
        third = f"&n=7&camera={CAMERAS[1]}{old}"
        assert get(client, "/media/episode_frame", "arm:2", third).content == episode_image(7, 3)
        assert get(client, "/api/episode", "arm:2", old).json()["before"] == "arm:0"


def test_without_episodes(tmp_path):
    with client_of(gallery_db(tmp_path / "db", [])) as client:
        told = client.get("/api/episodes").json()
        assert (told["total"], told["episodes"], told["version"]) == (0, [], None)
        assert get(client, "/api/episode").status_code == 404
        assert client.get("/api/reports").json() == {"folders": [], "reports": []}
        assert client.get("/reports/0/report.html").status_code == 404


def test_reports_are_shown_and_nothing_else_of_their_folders(client):
    told = client.get("/api/reports").json()["reports"]
    assert {(one["title"], one["path"]) for one in told} == {
        (f"run {name} & more", f"{name}/report.html") for name in ("a", "deep/b")
    }
    for one in told:
        page = client.get(one["url"])
        policy = page.headers["content-security-policy"]
        assert page.text.startswith("<html><title>run")
        assert "default-src 'none'" in policy
        assert "sandbox" in policy
        assert "script" not in policy
    assert client.get("/reports/0/a/video/best.mp4").content == b"mp4"
    refused = ("a/weights.pt", "alone.mp4", "a/link.mp4", "a", "", "../outside.mp4", "a/%2e%2e/%2e%2e/outside.mp4")
    for path in (*refused, "%2fetc/passwd", "a/nothing.mp4"):
        assert client.get(f"/reports/0/{path}").status_code == 404, path
    assert client.get("/reports/1/a/report.html").status_code == 404


def test_a_training_is_shown_while_it_trains_and_after(tmp_path):
    """Loss of every variant, its settings and checkpoint; of a long history few points, and nothing outside."""
    lines = [{"kind": "step", "step": n, "loss": None if n == 7 else 1 / n, "at_s": n / 10} for n in range(1, 1001)]
    lines.insert(500, {"kind": "held_out", "step": 500, "numbers": {"loss": 0.25}, "at_s": 50})
    job = {"recipe": "arm4r", "lr": 0.001, "model": {"layers": 2}, "init": "", "variants": ["own", "../../secret", "x"]}
    out = tmp_path / "runs" / "one"
    (out / "own").mkdir(parents=True)
    (tmp_path / "secret").mkdir()
    for path in (out / "own", tmp_path / "secret"):
        (path / "history.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"kind": "st')
    (out / "job.json").write_text(json.dumps(job))
    with client_of(gallery_db(tmp_path / "db", []), reports=[tmp_path / "runs"]) as client:
        (listed,) = client.get("/api/reports").json()["reports"]
        assert (listed["title"], listed["place"], listed["url"]) == ("arm4r", "one", None)
        told = client.get("/api/report?place=one").json()
        assert (told["ended"], told["settings"]) == (False, {"lr": 0.001, "model.layers": 2})
        (own,) = told["variants"]
        assert (own["name"], own["steps"], own["from_step"], own["at_s"], own["end"]) == ("own", 1000, 1, 100, None)
        training, held_out = (curve["points"] for curve in own["curves"])
        assert held_out == [[500, 0.25]]
        assert len(training) == 240
        assert training[0] == [3.0, pytest.approx(np.mean([1, 1 / 2, 1 / 3, 1 / 4, 1 / 5]))]
        facts = job | {"variants": {"own": {"held_out": {"loss": 0.2}, "checkpoint": "/c/step-1000"}}}
        (out / "report.json").write_text(json.dumps(facts))
        (out / "report.html").write_text("<title>arm4r, control</title>")
        told = client.get("/api/report?place=one").json()
        assert (told["ended"], told["variants"][0]["end"]["checkpoint"]) == (True, "/c/step-1000")
        assert told["variants"][0]["curves"] == own["curves"]
        (out / "job.json").write_text('{"recipe": "ar')  # as while it is written
        assert [one["curves"] for one in client.get("/api/report?place=one").json()["variants"]] == [[]]
        for asked in ("place=..", "place=one/own", "place=/etc", "place=one&number=1", "place=none"):
            assert client.get(f"/api/report?{asked}").status_code == 404, asked


def test_a_training_that_is_broken_or_linked_from_elsewhere_takes_no_other_away(tmp_path):
    runs, outside = tmp_path / "runs", tmp_path / "outside"
    for folder in (runs / "good" / "a", outside / "a"):
        folder.mkdir(parents=True)
        (folder / "history.jsonl").write_text('{"kind": "step", "step": 1, "loss": 2.0}\n')
        (folder.parent / "job.json").write_text('{"recipe": "r", "variants": ["a"], "key": "secret"}')
    (outside / "report.html").write_text("<title>secret</title>")
    jobs = (
        '{"variants": 5}',
        '{"variants": ["a\\u0000", "\\ud800"]}',
        json.dumps({"variants": ["a" * 5000]}),
        "[" * 10**5,
    )
    for number, job in enumerate(jobs):
        (runs / f"job{number}").mkdir()
        (runs / f"job{number}" / "job.json").write_text(job)
    lines = ("[1]", '{"step": 1}', '{"kind": "step"}', '{"kind": "step", "step": 1, "loss": "x"}', "[" * 10**5)
    lines += (f'{{"kind": "step", "step": {10**400}, "loss": 1}}', '{"kind": "held_out", "step": 1, "numbers": [1]}')
    for number, line in enumerate(lines):
        (runs / f"line{number}" / "a").mkdir(parents=True)
        (runs / f"line{number}" / "a" / "history.jsonl").write_text(f"{line}\n")
        (runs / f"line{number}" / "job.json").write_text('{"variants": ["a"], "settings": [1]}')
    for name, target in {"gone": tmp_path / "gone", "linked": outside}.items():
        (runs / name).mkdir()
        (runs / name / "report.html").symlink_to(target / "report.html")
    (runs / "linked" / "job.json").symlink_to(outside / "job.json")
    (runs / "linked" / "a").symlink_to(outside / "a")
    with client_of(gallery_db(tmp_path / "db", []), reports=[runs]) as client:
        listed = {one["place"]: one for one in client.get("/api/reports").json()["reports"]}
        assert listed.keys() == {"good", *(f"line{number}" for number in range(len(lines)))}
        for place in listed:
            told = client.get(f"/api/report?place={place}").json()
            assert [one["name"] for one in told["variants"]] == ["a"], place
            assert bool(told["variants"][0]["curves"]) == (place == "good"), place
        for place in ("linked", "gone", "job0", "%00", "x" * 3000):
            answer = client.get(f"/api/report?place={place}")
            assert answer.status_code == (200 if place == "job0" else 404), place
            assert "secret" not in answer.text
        assert client.get(f"/reports/0/{'x' * 3000}.mp4").status_code == 404
        assert client.get("/reports/0/linked/report.html").status_code == 404


def test_places_by_the_names_of_numbers():
    things = [f"observation.environment_state.{thing}.{axis}" for thing in ("cup", "goal") for axis in "xyz"]
    found = places_of([*(f"observation.state.{name}" for name in POSE), *things], ["m"] * 14)
    assert [(one["name"], one["index"], one["gripper"], one["unit"]) for one in found] == [
        ("end effector", [0, 1, 2], 7, "m"), ("cup", [8, 9, 10], None, "m"), ("goal", [11, 12, 13], None, "m"),
    ]  # fmt: skip
    assert places_of(["shoulder.pos", "elbow.pos"], None) == []
    assert places_of(None, None) == []


def test_keypoints_of_whole_hands_are_hands_and_no_places():
    names = [f"{hand}.{point}.{axis}" for hand in ("left", "right") for point in KEYPOINT_NAMES for axis in "xyz"]
    whole = ["cup.x", "cup.y", "cup.z", *(f"observation.state.{name}" for name in names)]
    assert hands_of(whole, ["m"] * len(whole)) == [
        {"index": list(range(3 + 63 * hand, 66 + 63 * hand)), "unit": "m"} for hand in (0, 1)
    ]
    assert [place["name"] for place in places_of(whole, None)] == ["cup"]
    assert hands_of(names[:-1], None) == [{"index": list(range(63)), "unit": None}, None]
    assert len(places_of(names[:-1], None)) == 20
    assert hands_of(None, None) == [None, None]


def test_a_table_of_before_has_no_success(tmp_path):
    """It is unknown, until the next ingest adds the column."""
    db = gallery_db(tmp_path / "db", [])
    write_episodes(db, [episode_row(gallery_episode(0, pictures=False))])
    db.table(TABLE).drop_columns(["success"])
    with client_of(db) as client:
        assert client.get("/api/episodes").json()["facets"]["success"] == [[None, 1]]
        assert get(client, "/api/episode").json()["success"] is None
        assert client.get("/api/episodes?success=yes").json()["total"] == 0
        write_episodes(db, [episode_row(gallery_episode(1, pictures=False, success=True))])
        assert dict(map(tuple, client.get("/api/episodes").json()["facets"]["success"])) == {"yes": 1, None: 1}
