"""Video ids: unique, safe, and never the place of a file."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handloom.errors import ConfigError
from handloom.ingest.ids import MAX_VIDEO_ID, check_dataset, unique_video_ids, video_id_of

names = st.text(st.sampled_from("ab.~%_ :'é日\t-"), min_size=1, max_size=8).filter(lambda n: n not in (".", ".."))
paths = st.lists(names, min_size=1, max_size=3).map("/".join)


@given(st.sets(paths, max_size=12))
def test_two_paths_never_share_an_id(found):
    ids = unique_video_ids(sorted(found))
    assert ids.keys() == found
    assert len(set(ids.values())) == len(found)
    assert not any(re.search(r"[\s:/\\'\"]", video_id) for video_id in ids.values())


@given(st.sets(paths, max_size=8), st.randoms())
def test_ids_do_not_depend_on_the_order_of_the_listing(found, random):
    shuffled = sorted(found)
    random.shuffle(shuffled)
    assert unique_video_ids(shuffled) == unique_video_ids(sorted(found))


def test_extensions_stay_where_only_they_differ():
    ids = unique_video_ids(["a.mp4", "a.mkv", "b.mp4", "d/a.mp4", "a.mp4.mp4"])
    assert ids == {
        "a.mp4": "a.mp4",
        "a.mkv": "a.mkv",
        "b.mp4": "b",
        "d/a.mp4": "d~a",
        "a.mp4.mp4": "a.mp4.mp4",  # its stem is the name that a.mp4 had to take
    }


def test_long_paths_stay_short_and_apart():
    left, right = video_id_of("x/" + "a" * 900), video_id_of("y/" + "a" * 900)
    assert len(left) == len(right) == MAX_VIDEO_ID
    assert left != right


@pytest.mark.parametrize("name", ["", "a:b", "a/b", "-a", "x" * 65])
def test_a_dataset_name_that_would_break_ids_is_refused(name):
    with pytest.raises(ConfigError, match="dataset name"):
        check_dataset(name)
