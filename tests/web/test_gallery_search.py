"""Searches, filters, counts and orders of the gallery's server."""

from __future__ import annotations

import io
import threading
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import partial
from urllib.parse import quote

import anyio
import lance
import numpy as np
import pytest
from PIL import Image
from starlette.requests import Request
from support.gallery import add, client_of, gallery_clip, gallery_db, jpeg, judge
from support.old_tables import NUM_FRAMES, NUMBER_OF, A, B, old_table

from handloom.errors import ConfigError
from handloom.store.clips.removal import remove_clips
from handloom.store.search.index import build_indexes
from handloom.web import catalogue as catalogue_room
from handloom.web.answers import Stopped, TookTooLong, Waiting, blocking
from handloom.web.as_sql import sql_of
from handloom.web.catalogue import Catalogue, Filters, Known
from handloom.web.clips.media import Upload
from handloom.web.distributions import BINS, Distribution
from handloom.web.gallery import IDLE_S, Gallery

NUM = 23
CHOICES = {
    "dataset": ("test", "nowhere"),
    "verb": ("open", "cut", ""),
    "noun": ("drawer", ""),
    "participant": ("P1", "P2"),
    "hand": ("left", "right", "both", "none"),
    "scale": ("metric", "none", ""),
    "flag": ("good", "bad", "none"),
}
RANGES = {"blur": (3.0, 17.0), "brightness": (2 / 11, 9 / 11), "duration_s": (None, 0.5), "hand_coverage": (0.5, None)}
STATES = (("look", "missing"), ("look", "outdated"), ("frames", "current"), ("look", "rejected"))
VERDICTS = {
    gallery_clip(2).clip_id: "good",
    gallery_clip(3).clip_id: "bad",
    gallery_clip(5).clip_id: "bad",
    "x": "good",
}


@pytest.fixture(scope="module")
def db(tmp_path_factory):
    path = tmp_path_factory.mktemp("gallery")
    found = gallery_db(path, range(NUM))
    judge(path, VERDICTS)
    build_indexes(found)
    return found


@pytest.fixture(scope="module")
def client(db):
    with client_of(db) as found:
        yield found


def known() -> Known:
    return Known(VERDICTS, lambda: {"look": "k1", "frames": "f1"}, lambda stage: frozenset([gallery_clip(7).clip_id]))


def chance(seed: int) -> Filters:
    """Some filters."""
    rng = np.random.default_rng(seed)
    chosen = {
        name: tuple(v for v in values if rng.random() < 0.6) for name, values in CHOICES.items() if rng.random() < 0.3
    }
    ranges = {name: span for name, span in RANGES.items() if rng.random() < 0.2}
    stages = tuple(one for one in STATES if rng.random() < 0.1)
    return Filters(chosen, ranges, "start_s > 1 OR hand_left" if rng.random() < 0.3 else None, stages)


def test_filters_in_memory_and_as_sql_pass_the_same_clips(db):
    """Lists use one, searches that rank the other."""
    catalogue = Catalogue(db, db.table("clips"))
    sizes = set()
    for seed in range(60):
        filters = chance(seed)
        mask = catalogue.passing(catalogue.masks(filters, known()))
        found = {row["clip_id"] for row in catalogue.facts(np.flatnonzero(mask))}
        assert found == set(db.clips(["clip_id"], sql_of(catalogue, filters, known())).column("clip_id").to_pylist()), (
            filters
        )
        sizes.add(len(found))
    assert len(sizes) > 8


def test_counts_of_facets_are_what_choosing_them_finds(client):
    """Whatever else is chosen, and whatever is chosen of the facet itself."""
    for more in ("", "&hand=both&hand=left", "&verb=open&q.blur=2:20", "&where=start_s>2&flag=none", "&noun="):
        told = client.get(f"/api/search?facets=1{more}").json()
        for name, counts in told["facets"].items():
            rest = "".join(f"&{part}" for part in more.split("&")[1:] if not part.startswith(f"{name}="))
            for value, count in counts:
                found = client.get(f"/api/search?limit=1{rest}&{name}={value or ''}").json()
                assert found["total"] == count > 0, (more, name, value)
            assert counts == sorted(counts, key=lambda one: (-one[1], one[0] is None, (one[0] or "").casefold()))


@pytest.mark.parametrize(
    "query", ["", "text=drawer", "text=drawer&hand=both", f"clip={quote(gallery_clip(2).clip_id)}&by=motion"]
)
def test_how_many_clips_are_counted_is_told(client, query):
    """The sum of every facet that is not chosen itself."""
    told = client.get(f"/api/search?facets=1&limit=1&{query}").json()
    for name in ("dataset", "verb", "scale"):
        assert sum(count for _, count in told["facets"][name]) == told["num_counted"] >= told["total"], name
    assert "num_counted" not in client.get(f"/api/search?{query}").json()


def test_which_facets_tell_clips_apart_is_told(client, tmp_path):
    counts = client.get("/api/search?facets=1&limit=1").json()["facets"]
    told = client.get("/api/about").json()["facets"]
    assert set(told) == {name for name, values in counts.items() if len(values) > 1} == set(counts) - {"dataset"}
    for num in (0, 1):
        with client_of(gallery_db(tmp_path / str(num), range(num))) as few:
            assert few.get("/api/about").json()["facets"] == []


def test_words_alone_list_the_clips_that_hold_them(client):
    every = client.get("/api/search?text=cut&limit=200").json()
    some = client.get("/api/search?text=cut&limit=200&words=1&facets=1").json()
    holding = {hit["clip_id"] for hit in every["hits"] if "words" in hit["parts"]}
    assert {hit["clip_id"] for hit in some["hits"]} == holding
    assert 0 < some["total"] == len(holding) == some["num_counted"] <= every["total"]
    assert client.get("/api/search?words=1").json()["total"] == NUM  # of no text


def test_a_clip_without_an_embedding_is_no_fault_of_the_database(tmp_path):
    db = gallery_db(tmp_path / "db", range(2))
    lance.dataset(f"{db.uri}/clips.lance").update({"embedding_motion": "NULL"}, "start_s >= 0")
    with client_of(type(db).open(db.uri)) as client:
        told = client.get("/api/search", params={"clip": gallery_clip(0).clip_id, "by": "motion"})
    assert (told.status_code, "has no motion embedding" in told.text) == (400, True), told.text


def test_of_a_facet_with_very_many_values_the_most_frequent_are_told(client, monkeypatch):
    """Names of hundreds of things are all told; where some are left out, `/api/about` says how many are told."""
    all_values = client.get("/api/search?facets=1&limit=1").json()["facets"]["noun"]
    assert client.get("/api/about").json()["most_values"] > 300 > len(all_values) > 2
    monkeypatch.setattr(catalogue_room, "MOST_VALUES", 2)
    assert client.get("/api/search?facets=1&limit=1").json()["facets"]["noun"] == all_values[:2]


def test_histograms_count_every_clip_once(client):
    told = client.get("/api/search?facets=1&q.blur=5:&hand=left&hand=both").json()
    all_but_blur = client.get("/api/search?hand=left&hand=both").json()["total"]
    for name, one in told["histograms"].items():
        assert len(one["edges"]) == BINS + 1
        assert one["edges"] == sorted(one["edges"])
        of = all_but_blur if name == "blur" else told["total"]
        assert sum(one["counts"]) + one["unknown"] == of, name
        assert sum(one["all"]) <= NUM
        assert all(some <= every for some, every in zip(one["counts"], one["all"], strict=True))


def test_a_histogram_ends_at_values_that_clips_have():
    same = Distribution(np.ones(NUM)).histogram(np.arange(NUM))
    assert set(same["edges"]) == {1.0}
    assert sorted(same["counts"])[-2:] == [0, NUM]
    values = np.array([0.25] + [1.0] * (100 * NUM - 1))
    mostly = Distribution(values).histogram(np.arange(len(values)))
    assert (mostly["edges"][0], mostly["edges"][-1]) == (0.25, 1.0)
    assert (mostly["counts"][0], mostly["counts"][-1]) == (1, len(values) - 1)
    unknown = Distribution(np.full(NUM, np.nan))
    assert unknown.histogram(np.arange(NUM))["unknown"] == NUM
    assert unknown.standing(1.0) == {"place": None, "equal": None}


def ids_of(client, address: str, limit: int) -> list[str]:
    """All ids, page by page."""
    found: list[str] = []
    while True:
        told = client.get(f"{address}&offset={len(found)}&limit={limit}").json()
        found += [hit["clip_id"] for hit in told["hits"]]
        if not told["hits"]:
            assert len(found) == told["total"]
            return found


@pytest.mark.parametrize("query", ["sort=-blur", "sort=random:7", "clip=test%3Av0%3A0-1000&by=motion", "text=open"])
def test_pages_are_parts_of_one_list(client, query):
    whole = ids_of(client, f"/api/search?{query}", 200)
    assert len(set(whole)) == len(whole) > 10
    assert ids_of(client, f"/api/search?{query}", 4) == whole


def test_sorted_lists_rise_and_fall_and_unknown_is_last(client, db):
    blur = {row["clip_id"]: row["quality"]["blur"] for row in db.clips(["clip_id", "quality"]).to_pylist()}
    blur = {name: value for name, value in blur.items()}
    for sort, sign in (("blur", 1), ("-blur", -1)):
        hits = client.get(f"/api/search?sort={sort}&limit=200").json()["hits"]
        values = [blur[hit["clip_id"]] for hit in hits]
        assert [hit["sort_value"] for hit in hits] == values
        keys = [(value is None, sign * (value or 0.0)) for value in values]
        assert keys == sorted(keys)
    assert {hit["sort_value"] for hit in client.get("/api/search?sort=random:7").json()["hits"]} == {None}
    names = ids_of(client, "/api/search?sort=-clip_id", 200)
    assert names == sorted(names, reverse=True)


def test_a_search_is_that_of_the_database(client, db):
    clip_id = gallery_clip(0).clip_id
    hits = db.search(clip=clip_id, by="motion", k=200, where="hand_left", embodiment="all")
    told = client.get(f"/api/search?clip={clip_id}&by=motion&where=hand_left&limit=200").json()
    assert [hit["clip_id"] for hit in told["hits"]] == [hit.clip_id for hit in hits]
    assert [hit["score"] for hit in told["hits"]] == [hit.score for hit in hits]
    parts = [hit["parts"]["motion"] for hit in told["hits"]]
    assert parts[0]["rank"] == 1
    ranks = [part["rank"] for part in parts]
    assert [part["equal"] for part in parts] == [ranks.count(rank) for rank in ranks]
    assert (told["version"], told["scoring"], told["total"]) == (db.version, hits.scoring, len(hits))
    words = client.get("/api/search?text=onion&facets=1&verb=cut").json()
    assert {hit["noun"] for hit in words["hits"]} == {"onion"}
    assert words["hits"]
    by_verb = dict(words["facets"]["verb"])
    assert by_verb["cut"] == words["total"] < sum(by_verb.values())  # of what the words find, whatever is chosen
    assert sum(by_verb.values()) == client.get("/api/search?text=onion").json()["total"]
    best = client.get(f"/api/search?clip={clip_id}&by=motion&sort=blur").json()["hits"]
    assert [hit["score"] is not None for hit in best] == [True] * len(best)


def test_what_a_hit_says(client):
    by_id = {hit["clip_id"]: hit for hit in client.get("/api/search").json()["hits"]}
    one = by_id[gallery_clip(2).clip_id]
    told = (one["verb"], one["hand_left"], one["hand_right"], one["has_frames"], one["flag"], one["narration"])
    assert told == ("wipe", True, True, True, "good", "open drawer 2")
    assert by_id[gallery_clip(3).clip_id]["narration"] is None
    about = client.get("/api/about").json()
    assert (about["num_clips"], about["num_listed"], about["texts"], about["judging"]) == (NUM, NUM, True, False)
    assert about["embeddings"] == ["motion", "appearance"]


WRONG = (
    "where=blurr>1", "where=(", "where=1; DROP TABLE clips", f"where={'a' * 4001}", f"text={'a' * 2001}", "limit=0",
    "limit=1000", "offset=-1", "limit=many", "sort=beauty", "q.blur=1", "q.blur=a:b", "q.beauty=1:", "q.blur=nan:",
    "stage=look:good", "stage=nothing:current", "stage=look", "clip=test%3Av0%3A0-1000&by=beauty", "from_s=1&text=open",
    "v=-1", "v=x", "clip=test%3Av0%3A0-1000&from_s=9&to_s=1", "lasso=motion:nan,0;1,1;2,2",
    "lasso=motion:1e308,1e308;-1e308,1e308;0,-1e308",
)  # fmt: skip


@pytest.mark.parametrize("query", WRONG)
def test_what_cannot_be_used_is_said(client, query):
    answer = client.get(f"/api/search?{query}")
    error = answer.json()["error"]
    assert answer.status_code == 400
    assert error["problem"]
    assert "Traceback" not in answer.text


HUGE = (
    "array_length(array_repeat(1, 1000000000)) > 1", "length(repeat('x', 100000000)) > 1", "REPEAT('x', 9) = 'x'",
    "array_length(range(0, 100000000)) > 1", "replace(replace('aa', 'a', 'aaaa'), 'a', 'aaaa') = 'b'",
    """ "repeat"('x', 9) = 'x' """, "`repeat`('x', 9) = 'x'", "repeat/**/('x', 9) = 'x'", "repeat\n('x', 9) = 'x'",
    "/* /* */ ' */ repeat('x', 9)='' /* ' */", """E'\\'' = repeat('x', 9) OR '' = ''""",
    "lpad('x', 1000000000, 'y') = 'x'", "true -- ' \n OR repeat('x', 9) = ''",
)  # fmt: skip


@pytest.mark.parametrize("where", HUGE)
def test_no_filter_makes_large_values_of_small_ones(client, where):
    answer = client.get("/api/search", params={"where": where})
    assert (answer.status_code, "cannot be used here" in answer.text) == (400, True)


@pytest.mark.parametrize(
    "where",
    [
        "judged('good') OR NOT judged ('bad')",
        "narration LIKE '%repeat(%' OR verb IN ('cut', 'open') AND (start_s BETWEEN (0) AND (9))",
        "lower(verb) = 'cut' OR regexp_like(noun, '^dr') OR CAST(start_s AS BIGINT) = 0 OR isnan(end_s)",
        "stage_key('look') = 'k1' OR contains(verb, 'x''(') OR `quality`.`blur` > 1",
    ],
)
def test_what_filters_may_call(client, where):
    answer = client.get("/api/search", params={"where": where})
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize("query", ["clip=nobody", "query=gone", "v=999999", f"v={1 << 61}"])
def test_what_is_not_there_is_said(client, query):
    answer = client.get(f"/api/search?{query}")
    assert answer.status_code in (404, 503)
    assert answer.json()["error"]["hint"]


def test_answers_with_a_version_are_kept_and_others_asked_for_again(client, db):
    pinned = client.get(f"/api/search?v={db.version}")
    assert pinned.headers["cache-control"] == "private, max-age=600"
    newest = client.get("/media/thumb?id=test%3Av0%3A0-1000")
    assert newest.headers["cache-control"] == "no-cache"
    again = client.get("/media/thumb?id=test%3Av0%3A0-1000", headers={"If-None-Match": newest.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert client.get("/api/search?facets=1", headers={"Accept-Encoding": "gzip"}).headers["content-encoding"] == "gzip"


@pytest.mark.parametrize("num", [0, 1])
def test_a_database_of_few_clips(tmp_path, num):
    client = client_of(gallery_db(tmp_path / "db", range(num)))
    told = client.get("/api/search?facets=1&sort=-blur").json()
    assert (told["total"], len(told["hits"])) == (num, num)
    assert client.get("/api/search?text=open&q.blur=1:2&verb=cut").status_code == (200 if not num else 503)  # no index
    assert client.get("/api/about").json()["num_clips"] == num
    assert client.get("/api/clip?id=x").status_code == 404
    assert client.get("/api/search?clip=x&by=motion").status_code == (404 if num else 200)


def test_new_rows_are_seen_and_old_versions_stay_until_they_are_gone(tmp_path):
    path = tmp_path / "db"
    db = gallery_db(path, range(3))
    client, old = client_of(db), db.version
    assert client.get("/api/search").json()["total"] == 3
    add(path, range(3, 5), first=3)
    until = time.monotonic() + 60
    while client.get("/api/search").json()["total"] == 3:
        assert time.monotonic() < until
        time.sleep(0.02)
    assert client.get("/api/search").json()["version"] > old
    assert client.get(f"/api/search?v={old}").json()["total"] == 3
    table = lance.dataset(str(path / "clips.lance"))
    table.delete("true")  # all rows
    table.cleanup_old_versions(timedelta(0), delete_unverified=True)
    fresh = client_of(db)
    assert fresh.get(f"/api/search?v={old}").status_code == 404
    for address in ("/media/frames", "/api/clip", "/download/row"):  # of a version that was open
        answer = client.get(f"{address}?id=test%3Av0%3A1000-2000&v={old}")
        error = answer.json()["error"]
        assert answer.status_code == 404, address
        assert f"no version {old}" in error["problem"]
        assert error["hint"]
    assert fresh.get("/api/search?facets=1").json()["total"] == 0


ALL_OF_A_CLIP = (
    *("/api/clip", "/api/arrays", "/media/thumb", "/media/strip", "/media/frame", "/media/frames", "/media/video"),
    *("/download/row", "/download/overlay"),
)


def test_a_removed_clip_is_seen_in_no_version(tmp_path):
    """Neither from memory nor from files of older versions, which still hold it; other clips keep their own images."""
    path = tmp_path / "db"
    db = gallery_db(path, range(6))
    gone, other = gallery_clip(1).clip_id, gallery_clip(4).clip_id
    with client_of(db) as client:
        old = client.get("/api/about").json()["version"]

        def of(clip_id, address, pinned=True):
            return client.get(address, params={"id": clip_id, **({"v": old} if pinned else {})})

        for address in ("/media/frames", "/media/thumb", "/api/clip", "/download/row"):
            assert of(gone, address).status_code == 200
        frames = of(other, "/media/frames").content
        remove_clips(db, [gone])
        until = time.monotonic() + 60
        while client.get("/api/about").json()["num_clips"] == 6:
            assert time.monotonic() < until
            time.sleep(0.02)
        for address in ALL_OF_A_CLIP:
            for pinned in (True, False):
                assert of(gone, address, pinned).status_code == 404, (address, pinned)
        assert "removed" in of(gone, "/api/clip").json()["error"]["problem"]
        listed = client.get(f"/api/search?v={old}&facets=1&sort=-blur&stage=look:current&stage=frames:current").json()
        assert (listed["version"], gone in str(listed)) == (old, False)
        everyone = client.get(f"/api/search?v={old}&facets=1").json()
        assert (everyone["total"], sum(num for _, num in everyone["facets"]["dataset"])) == (5, 5)
        assert client.get(f"/api/search?v={old}&clip={quote(gone)}&by=motion").status_code == 404
        alike = client.get(f"/api/search?v={old}&clip={quote(other)}&by=motion")
        assert (alike.status_code, alike.json()["total"], gone in alike.text) == (200, 4, False)
        assert of(other, "/media/frames").content == frames, "rows move up in the list, not in the table"
        assert client.get(f"/api/map?v={old}&by=motion").json()["ids"].count(gone) == 0


def test_a_version_that_cannot_be_read_is_not_one_that_is_gone(tmp_path):
    """A store that does not answer: the database's fault, and all is served again once it is back."""
    db = gallery_db(tmp_path / "db", range(2))
    with client_of(db, look_every_s=60.0) as client:
        asked = f"/media/frames?id={quote(gallery_clip(1).clip_id)}"
        version = client.get("/api/about").json()["version"]
        for file in (tmp_path / "db" / "clips.lance").rglob("*.*"):
            if file.is_file():
                file.write_bytes(b"nothing")
        for v in (version, version - 1):
            answer = client.get(f"{asked}&v={v}")
            assert (answer.status_code, "removed" in answer.text) == (503, False), answer.text


def test_who_comes_after_a_pause_waits_until_removed_clips_are_known(tmp_path):
    """All who ask at once, not the first alone."""
    db = gallery_db(tmp_path / "db", range(3))
    gallery = Gallery(db, look_every_s=30.0)
    assert gallery.frames(gallery_clip(1).clip_id)
    remove_clips(db, [gallery_clip(1).clip_id])
    gallery._looked_at -= 2 * IDLE_S
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda _: gallery.catalogue().num_clips, range(8)))
    assert found == [2] * 8


def test_after_a_pause_the_first_request_sees_the_newest_version(tmp_path):
    """Not the files of the version before, which may be gone."""
    path = tmp_path / "db"
    gallery = Gallery(gallery_db(path, range(2)), look_every_s=30.0)
    assert gallery.catalogue().num_clips == 2
    add(path, range(2, 3))
    assert gallery.catalogue().num_clips == 2  # looked for a moment ago
    gallery._looked_at -= 2 * IDLE_S
    assert gallery.catalogue().num_clips == 3


def test_judgements_that_change_are_seen_by_searches_that_rank(tmp_path):
    path = tmp_path / "db"
    client = client_of(gallery_db(path, range(5)))
    address = "/api/search?clip=test%3Av0%3A0-1000&by=motion&where=judged('good')"
    for good in ([1, 2], [3]):
        judge(path, {gallery_clip(n).clip_id: "good" for n in good})
        found = {hit["clip_id"] for hit in client.get(address).json()["hits"]}
        assert found == {gallery_clip(n).clip_id for n in good}


@pytest.mark.parametrize("version", list(NUMBER_OF))
def test_databases_of_earlier_versions(tmp_path, version):
    """They lack columns."""
    client = client_of(old_table(version, tmp_path))
    told = client.get("/api/search?facets=1&sort=-blur&q.hand_coverage=0:").json()
    ids = {hit["clip_id"] for hit in told["hits"]}
    assert ids <= {A, B} == {hit["clip_id"] for hit in client.get("/api/search").json()["hits"]}
    for address in ("/api/about", *(f"{one}?id={A}" for one in ("/api/clip", "/api/arrays", "/media/strip"))):
        answer = client.get(address)
        assert answer.status_code == 200, answer.text
    assert client.get(f"/api/clip?id={A}").json()["num_frames"] == NUM_FRAMES


def test_what_takes_too_long_is_given_up():
    free = threading.Event()
    try:
        with pytest.raises(TookTooLong, match="given up"):
            anyio.run(partial(blocking, free.wait, limit_s=0.01))
    finally:
        free.set()


def upload(client, name: str, data: bytes, **more):
    return client.post("/api/upload", files={"file": (name, io.BytesIO(data))}, **more)


def test_uploads(client):
    told = upload(client, "../../x.jpg", jpeg((64, 48), 3)).json()
    assert (told["kind"], told["name"]) == ("image", "../../x.jpg")
    doing = client.get(f"/api/upload?query={told['query']}").json()
    assert doing == {"kind": "image", "name": "../../x.jpg", "doing": None}
    assert client.get("/api/upload?query=another").status_code == 404
    searched = client.get(f"/api/search?query={told['query']}")
    assert searched.status_code == 400  # the table has no embedding of images
    assert "look" in searched.json()["error"]["problem"]
    assert upload(client, "a.mp4", b"no video at all").json()["kind"] == "video"
    assert upload(client, "a.txt", b"words").status_code == 400
    assert upload(client, "", b"").status_code == 400
    assert client.post("/api/upload", files={"other": ("a.jpg", b"x")}).status_code == 400
    first = told["query"]
    for number in range(20):
        assert upload(client, f"{number}.jpg", jpeg((8, 8), number)).status_code == 200
    assert client.get(f"/api/search?query={first}").status_code == 404  # others came


def encoded(size: tuple[int, int], kind: str, num: int = 1) -> bytes:
    out, image = io.BytesIO(), Image.new("L", size)
    more = {"save_all": True, "append_images": [Image.new("L", size, 90)] * (num - 1)} if num > 1 else {}
    image.save(out, kind, **more)
    return out.getvalue()


def test_which_images_are_taken(client):
    """EPS runs a program, and others that Pillow knows are as little needed; photos of phones hold a second image."""
    for kind, num in (("PNG", 1), ("JPEG", 1), ("WEBP", 1), ("MPO", 2)):
        assert upload(client, "x", encoded((8, 8), kind, num)).json()["kind"] == "image", kind
    for kind, num in (("GIF", 1), ("EPS", 1), ("TIFF", 1), ("PNG", 2)):
        answer = upload(client, "x.jpg", encoded((8, 8), kind, num))
        assert (answer.status_code, "'x.jpg'" in answer.text) == (400, True), kind


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("width", [12_000, 20_000])
def test_images_that_would_fill_the_memory_are_refused(client, width):
    """A few bytes of a PNG may be gigabytes of pixels: its header tells."""
    small = encoded((8, 8), "PNG")
    kind, values = small[12:16], width.to_bytes(4, "big") * 2 + small[24:29]
    told = upload(client, "x.png", small[:16] + values + zlib.crc32(kind + values).to_bytes(4, "big") + small[33:])
    assert (told.status_code, "million pixels" in told.text) == (400, True)


def test_what_is_wrong_with_an_upload_is_said_by_its_name(tmp_path):
    """The server's own folder is nobody's concern."""
    kept = Upload(tmp_path / "key.mp4", "video", "mine.mp4", 0.0)
    with pytest.raises(ConfigError) as raised:
        gallery_db(tmp_path / "db", range(2)).search(video=str(kept.path), by="motion")
    assert kept.told(raised.value.problem).startswith("the video 'mine.mp4': ")
    assert str(tmp_path) not in kept.told(raised.value.problem)


def test_a_search_by_a_file_ends_when_nobody_waits_for_it():
    told = [{"type": "http.request", "body": b"", "more_body": False}, {"type": "http.disconnect"}]

    async def receive():
        return told.pop(0) if len(told) > 1 else told[0]

    waiting, lock, turns = Waiting(), threading.Lock(), []

    def reads_a_video():
        with waiting.turn(lock):
            while True:
                turns.append(1)
                waiting.check()
                time.sleep(0.01)

    with pytest.raises(Stopped):
        anyio.run(waiting.result, Request({"type": "http", "method": "GET"}, receive), reads_a_video, 60.0)
    assert turns
    assert not lock.locked()
    with lock, pytest.raises(Stopped), waiting.turn(lock):
        pytest.fail("the lock is held by another search")
