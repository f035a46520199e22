"""One clip of the gallery: what is told, arrays, images, its video and downloads."""

from __future__ import annotations

import io
import os
from urllib.parse import quote

import lance
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from support.gallery import NUM_FRAMES, TILE, TILES, client_of, gallery_clip, gallery_db, gallery_row, jpeg, unpacked
from support.stage_keys import with_own_column

from handloom.schemas.tables.row import row_arrays
from handloom.schemas.tables.segments import SEGMENT
from handloom.video.fetch.version import with_versions
from handloom.video.write import write_video
from handloom.web.clips.arrays import arrays_of, speeds_of

ODD_IDS = (
    "d:a/b/../../etc/passwd:0-1000", "d:100%2F#?&=+ é日本:0-1000", "d:'; DROP TABLE clips; --:0-1",
    'd:"<img src=x>":0-1', "../../../../etc/passwd", "file:///etc/passwd", "s3://bucket/x.mp4",
)  # fmt: skip
HTML = "<script>alert(1)</script><img src=x onerror=alert(2)>"
VIDEOS = ("whole", "changed", "gone", "link", "blurred", "words", "passwd", "ftp", "http", "pipe", "device")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("gallery")


@pytest.fixture(scope="module")
def client(folder):
    """Clips with odd ids; then one clip for each of `VIDEOS`, whose videos are what their names say."""
    clips = [gallery_clip(number, clip_id=one, narration=HTML) for number, one in enumerate(ODD_IDS)]
    images = [np.full((36, 64, 3), 40 * number, np.uint8) for number in range(5)]
    for name in VIDEOS:
        write_video(folder / f"{name}.mp4", images, np.arange(5) / 15)
    (folder / "words.txt").write_text("private words")
    uris = {name: str(folder / f"{name}.mp4") for name in VIDEOS}
    uris |= {"words": str(folder / "words.txt"), "passwd": "file:///etc/passwd", "ftp": "ftp://127.0.0.1/a.mp4"}
    uris["http"] = "http://127.0.0.1:9/a.mp4"
    clips += [gallery_clip(number, clip_id=name, video_uri=uris[name]) for number, name in enumerate(VIDEOS)]
    clips = with_versions(clips)
    rows = [gallery_row(clip, number) for number, clip in enumerate(clips)]
    at = rows[0].schema.get_field_index("faces_blurred")
    blurred = pa.array([[0] * NUM_FRAMES], pa.list_(pa.int32()))
    rows = [
        row.set_column(at, row.schema.field(at), blurred) if clip.clip_id == "blurred" else row
        for clip, row in zip(clips, rows, strict=True)
    ]
    db = gallery_db(folder / "db", [])
    lance.write_dataset(pa.Table.from_batches(rows), str(folder / "db" / "clips.lance"))
    (folder / "gone.mp4").unlink()
    write_video(folder / "changed.mp4", images[::-1], np.arange(5) / 15)
    (folder / "link.mp4").unlink()
    os.symlink("/etc/passwd", folder / "link.mp4")
    for name in ("pipe", "device"):
        (folder / f"{name}.mp4").unlink()
    os.mkfifo(folder / "pipe.mp4")  # whoever opens it waits
    os.symlink("/dev/zero", folder / "device.mp4")
    with client_of(db) as found:
        found.db = db
        yield found


def get(client, address: str, clip_id: str, more: str = "", **how):
    return client.get(f"{address}?id={quote(clip_id, safe='')}{more}", **how)


@pytest.mark.parametrize("clip_id", ODD_IDS)
def test_every_id_leads_to_its_own_clip(client, clip_id):
    told = get(client, "/api/clip", clip_id).json()
    assert (told["clip_id"], told["facts"]["clip_id"], told["facts"]["narration"]) == (clip_id, clip_id, HTML)
    assert told["frame_s"] == pytest.approx(client.db.row(clip_id).column("frame_s")[0].as_py())
    assert f"db.row({clip_id!r}, version={told['version']})" in told["python"]
    number = ODD_IDS.index(clip_id)
    frames = unpacked(get(client, "/media/frames", clip_id).content)
    assert [frames[str(t)].tobytes() for t in range(NUM_FRAMES)] == [
        jpeg((32, 18), number + t) for t in range(NUM_FRAMES)
    ]
    assert get(client, "/media/frame", clip_id, "&n=1").content == jpeg((32, 18), number + 1)


def test_arrays_are_those_of_the_row(client):
    """Bit for bit, and NaN where they have it; half floats as floats."""
    clip_id = ODD_IDS[0]
    row = row_arrays(client.db.row(clip_id))
    told = get(client, "/api/clip", clip_id).json()
    found = unpacked(get(client, "/api/arrays", clip_id).content)
    assert list(found) == told["arrays"]
    assert {"hand_keypoints_px", "track_points_px", "frame_s", "hand_speed_m_s"} <= set(found)
    for name, array in found.items():
        expected = arrays_of(row)[name]()
        assert array.shape == expected.shape
        np.testing.assert_array_equal(array, expected.astype(array.dtype), name)
    some = unpacked(get(client, "/api/arrays", clip_id, "&names=frame_s,hand_visible").content)
    assert list(some) == ["frame_s", "hand_visible"]
    assert get(client, "/api/arrays", clip_id, "&names=frame_s,beauty").status_code == 400


def test_speeds_follow_from_the_way_of_the_palms():
    """A palm that goes 0.1 m along x in 0.5 s, in front of a camera whose own world is not in metres."""
    points = np.zeros((3, 2, 21, 3))
    points[:, 0, :, 0] = np.array([0.0, 0.1, 0.3])[:, None]
    points[:, 1] = np.nan
    row = {"hand_keypoints_cam_m": points, "frame_s": np.array([0.0, 0.5, 1.0]), "hand_keypoints_world_m": points * 9}
    speeds = speeds_of({**row, "world_scale": "arbitrary"})
    np.testing.assert_allclose(speeds[:, 0], [np.nan, 0.2, 0.4], rtol=1e-6)
    assert np.isnan(speeds[:, 1]).all()
    np.testing.assert_allclose(speeds_of({**row, "world_scale": "metric"})[1:, 0], [1.8, 3.6], rtol=1e-6)
    assert speeds_of({"hand_keypoints_cam_m": None, "frame_s": []}) is None


def test_numbers_and_their_places_among_all_clips(client):
    told = get(client, "/api/clip", ODD_IDS[0]).json()
    numbers = {one["name"]: one for one in told["quality"]}
    ids = client.db.clips(["clip_id", "quality"]).to_pylist()
    values = [row["quality"]["brightness"] for row in ids if row["quality"]["brightness"] is not None]
    mine = next(row for row in ids if row["clip_id"] == ODD_IDS[0])["quality"]["brightness"]
    others = len(values) - 1
    assert numbers["brightness"]["place"] == pytest.approx(sum(v < mine for v in values) / others)
    assert numbers["brightness"]["equal"] == pytest.approx((values.count(mine) - 1) / others)
    unknown = numbers["hand_jitter_mm"]
    assert (unknown["value"], unknown["place"], unknown["equal"]) == (None, None, None)
    assert numbers["hand_jitter_mm"]["unit"] == "mm"
    assert told["size"] == [32, 18]
    assert {one["name"]: one["key"] for one in told["stages"]} == {"look": "k1", "frames": "f1"}


def test_thumbnails_are_the_middle_tile_of_the_strip(client):
    strip = get(client, "/media/strip", ODD_IDS[1])
    assert int(strip.headers["x-frames"]) == TILES
    image = np.asarray(Image.open(io.BytesIO(get(client, "/media/thumb", ODD_IDS[1], "&h=18").content)))
    assert image.shape == (18, TILE[0] * 18 // TILE[1], 3)
    np.testing.assert_allclose(image.mean((0, 1)), (40 * (TILES // 2), 30, 120), atol=4)
    assert get(client, "/media/frame", ODD_IDS[1], f"&n={NUM_FRAMES}").status_code == 404
    assert get(client, "/media/thumb", ODD_IDS[1], "&h=100000").status_code == 400


def test_a_video_is_served_in_ranges(client, folder):
    data = (folder / "whole.mp4").read_bytes()
    told = get(client, "/api/clip", "whole").json()["video"]
    assert told["playable"]
    assert client.get(told["url"]).content == data
    head = client.head(told["url"])
    assert (int(head.headers["content-length"]), head.headers["accept-ranges"], head.content) == (
        len(data),
        "bytes",
        b"",
    )
    for asked, part in (("bytes=10-19", data[10:20]), ("bytes=100-", data[100:]), ("bytes=-7", data[-7:])):
        answer = client.get(told["url"], headers={"Range": asked})
        assert (answer.status_code, answer.content) == (206, part)
    for asked, status in ((f"bytes={len(data)}-", 416), ("bytes=9-5", 400), ("lines=1-2", 400)):
        refused = client.get(told["url"], headers={"Range": asked})
        assert (refused.status_code, refused.headers["content-range"]) == (status, f"bytes */{len(data)}")
        assert asked in refused.json()["error"]["problem"]


@pytest.mark.parametrize("name", [name for name in VIDEOS if name != "whole"])
def test_no_other_file_is_served(client, name):
    """One that was replaced, linked elsewhere, is no video, is reached another way, or would show faces."""
    answer = get(client, "/media/video", name)
    assert answer.status_code == 404
    assert answer.json()["error"]["problem"]
    assert "root:" not in answer.text


def test_a_video_that_is_gone_is_told_and_frames_are_there(client):
    told = get(client, "/api/clip", "gone").json()
    assert (told["video"]["playable"], told["frames"]) == (False, True)
    assert "gone" in told["video"]["why"]
    assert "faces" in get(client, "/api/clip", "blurred").json()["video"]["why"]
    assert get(client, "/media/frames", "gone").status_code == 200


def test_downloads(client):
    answer = get(client, "/download/row", ODD_IDS[3])
    table = pq.read_table(io.BytesIO(answer.content))
    assert table.column("clip_id").to_pylist() == [ODD_IDS[3]]
    assert 'filename="d__' in answer.headers["content-disposition"]
    film = get(client, "/download/overlay", "gone")  # over the stored frames
    assert (film.status_code, film.headers["content-type"], film.content[4:8]) == (200, "video/mp4", b"ftyp")
    assert get(client, "/download/overlay", "nobody").status_code == 404
    assert client.get("/download/overlay?id=gone&v=999999").status_code == 404, "of the version that is looked at"
    assert get(client, "/download/row", "nobody").status_code == 404


def test_a_row_without_a_box_of_the_held_thing_is_read_by_pyarrow(tmp_path):
    found = [{"hand": "left", "object_box_m": [0.1] * 6}, {"hand": "right", "object_box_m": None}]
    row = pa.Table.from_batches([gallery_row(gallery_clip(0), 0)])
    row = with_own_column(row, "segments", "segments", pa.array([found], pa.list_(SEGMENT)))
    db = gallery_db(tmp_path / "db", [])
    lance.write_dataset(row, str(tmp_path / "db" / "clips.lance"))
    with client_of(db) as client:
        table = pq.read_table(io.BytesIO(get(client, "/download/row", gallery_clip(0).clip_id).content))
    read = [one["object_box_m"] for one in table.column("segments")[0].as_py()]
    assert (read[0], read[1]) == (pytest.approx([0.1] * 6), None)


@pytest.mark.parametrize("address", ["/api/clip", "/api/arrays", "/media/thumb", "/media/frames", "/media/video"])
def test_unknown_and_missing_ids_are_said(client, address):
    for clip_id in ("nobody", "../../etc/passwd", "/etc/passwd", "x" * 4000):
        answer = get(client, address, clip_id)
        assert (answer.status_code, set(answer.json()["error"])) == (404, {"problem", "hint"})
    assert client.get(address).status_code == 400
    assert get(client, address, "x" * 5000).status_code == 400
