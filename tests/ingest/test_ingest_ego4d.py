"""Ego4D: narrations, actions and whole videos, in files of the documented schema."""

import json
from pathlib import Path

import pytest

from handloom.errors import ConfigError
from handloom.ingest.human.ego4d import Choice, ingest_ego4d
from handloom.ingest.human.ego4d_narrations import NarrationWindow

A, B = "0a8f6747-7f79-4176-85ca-f5ec01a15435", "b7c1fd5a-2bc2-4ab6-9e6f-8f0c5b2f1d3e"


def video(uid=A, duration_s=60.0, **more):
    """One entry of ego4d.json, with the keys of the documented schema that are read."""
    return {
        "video_uid": uid,
        "duration_sec": duration_s,
        "scenarios": ["Cooking"],
        "video_metadata": {
            "fps": 30.0,
            "num_frames": 1800,
            "video_codec": "vp9",
            "mp4_duration_sec": duration_s,
            "video_start_sec": 0.0,
            "video_duration_sec": duration_s,
            "audio_start_sec": None,
        },
        "split_em": "train",
        "split_av": None,
        "split_fho": "train",
        "s3_path": f"s3://ego4d-consortium-sharing/public/v1/full_scale/{uid}.mp4",
        "origin_video_id": "x",
        "video_source": "uniandes",
        "device": "GoPro Hero 7",
        "fb_participant_id": 12,
        "is_stereo": False,
        "has_redacted_regions": False,
        "redacted_intervals": [],
        "gaps": None,
    } | more


def said(time_s, text):
    return {"timestamp_sec": time_s, "timestamp_frame": 0, "narration_text": text, "annotation_uid": "u"}


def passes(first=(), second=()):
    both = {"narration_pass_1": first, "narration_pass_2": second}
    return {name: {"narrations": list(n), "summaries": []} for name, n in both.items()} | {"status": "complete"}


def action(start_s, end_s, **more):
    return {
        "uid": "a",
        "start_sec": start_s,
        "end_sec": end_s,
        "is_valid_action": True,
        "is_partial": False,
        "is_rejected": False,
        "is_invalid_annotation": False,
        "narration_text": "#C C puts the cup down",
        "structured_verb": "put_(place,_leave,_drop)",
        "freeform_verb": None,
        "frames": [
            {
                "frame_type": "pnr_frame",
                "boxes": [
                    {"object_type": "left_hand", "structured_noun": None},
                    {"object_type": "object_of_change", "structured_noun": "cup_(mug,_tumbler)"},
                ],
            }
        ],
    } | more


class Download:
    """A folder with the files of an Ego4D download."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def write(self, name, content):
        (self.root / name).write_text(json.dumps(content))
        return str(self.root / name)

    def ingest(self, videos, narrations=None, actions=None, **options):
        if narrations is not None:
            content = {"version": "v2", "videos": narrations}
            options["narrations"] = self.write("narration.json", content)
        if actions is not None:
            listed = [{"video_uid": uid, "annotated_intervals": intervals} for uid, intervals in actions.items()]
            options["fho"] = self.write("fho_main.json", {"version": "v2", "videos": listed})
        result = ingest_ego4d(self.write("ego4d.json", {"videos": videos}), str(self.root), **options)
        skipped = sum(n for name, n in result.counts.items() if name.startswith("skipped_"))
        counts = result.counts
        assert counts["entries"] == counts["clips"] + counts["merged"] + counts["bad"] + skipped
        assert len({clip.clip_id for clip in result.clips}) == len(result.clips) == counts["clips"]
        return result


@pytest.fixture
def download(tmp_path) -> Download:
    return Download(tmp_path)


def ranges(result):
    return [(clip.start_s, clip.end_s) for clip in result.clips]


def test_a_narration_is_a_window_around_its_point(download):
    result = download.ingest([video()], {A: passes([said(10.0, "#C C takes a cup")])})
    (clip,) = result.clips
    assert clip.clip_id == f"ego4d:{A}:9000-12000"
    assert (clip.narration, clip.verb, clip.noun) == ("C takes a cup", None, None)
    assert (clip.participant, clip.split, clip.view, clip.licence) == ("12", "train", "ego", "LicenseRef-Ego4D")
    assert clip.video_uri == f"{download.root}/v2/full_scale/{A}.mp4"
    assert result.counts["videos_missing"] == 1


def test_windows_end_with_the_video(download):
    narrations = {A: passes([said(0.2, "#C C a"), said(59.5, "#C C b"), said(70.0, "#C C c")])}
    result = download.ingest([video()], narrations)
    assert ranges(result) == [(0.0, 2.2), (58.5, 60.0), (69.0, 72.0)]  # the last stays, to be rejected
    assert "at 70.0 s: 69.0 to 72.0 s is outside the video, 0.0 to 60.0 s" in result.problems[0]


def test_the_contextual_window_follows_the_density_of_narrations(download):
    narrations = {A: passes([said(t, f"#C C {t}") for t in (10.0, 14.9, 19.8)], [said(30.0, "#C C x")])}
    result = download.ingest([video()], narrations, window=NarrationWindow(mode="contextual"))
    assert ranges(result) == [(9.5, 10.5), (14.4, 15.4), (19.3, 20.3), (29.5, 30.5)]


def test_both_passes_are_read_and_repeats_left_out(download):
    first = [said(10.0, "#C C takes a cup"), said(20.0, "#C C washes it")]
    second = [said(10.6, "#C C Takes a cup"), said(15.0, "#C C takes a cup"), said(20.0, "#O man X talks")]
    result = download.ingest([video()], {A: passes(first, second)})
    assert result.counts["skipped_repeated"] == 1
    assert [clip.narration for clip in result.clips] == ["C takes a cup", "C takes a cup", "C washes it; man X talks"]
    assert download.ingest([video()], {A: passes(first, second)}, choice=Choice(repeats=True)).counts["clips"] == 4


def told(time_s, text, annotation="a", **more):
    """A narration of all_narrations_redacted.json."""
    return {"time": time_s, "text": text, "is_summary": False, "annotator": "1", "_annotation_uid": annotation} | more


def v2(*narrations, **more):
    """A video of all_narrations_redacted.json."""
    return {"status": "complete", "narrations": list(narrations), "summaries": [{"start_time": 0, "text": "x"}]} | more


@pytest.mark.parametrize(
    "content",
    [
        {
            A: v2(told(10, "#C C opens"), told(20, "#C C cuts"), told(10.4, "#C C opens", "b")),
            B: v2(told(9, "the whole", is_summary=True)),
        },
        [v2(told(10, "#C C opens"), told(20, "#C C cuts"), video_uid=A)],
        {A: [told(10, "#C C opens"), told(20, "#C C cuts")]},
        {A: {"a": [{"time": 10, "text": "#C C opens"}], "b": [{"time": 20, "text": "#C C cuts"}]}},
        {A: passes([said(10, "#C C opens")]) | v2(told(20, "#C C cuts"))},
        {A: v2(said(10, "#C C opens")), B: v2(told(20, "#C C cuts"))},
    ],
    ids=["redacted file", "videos as a list", "bare list", "by annotation", "both in one video", "both in one file"],
)
def test_narrations_are_read_in_all_known_layouts(download, content):
    result = download.ingest([video(), video(B)], content)
    assert [(c.start_s, c.narration) for c in result.clips] == [(9.0, "C opens"), (19.0, "C cuts")]
    assert (result.problems, result.num_left_out) == ([], 0)
    repeated = str(content).count("#C C opens") - 1
    assert (result.counts.get("skipped_repeated", 0), result.counts.get("skipped_summary", 0)) == (repeated, repeated)


def test_a_video_of_an_unknown_layout_is_counted_and_named(download):
    narrations = {
        A: v2(told(10, "#C C ok"), {"time": 3}, told(None, "x")),
        B: {"status": "complete", "captions": [1], "clips": 3},
        "C": passes() | {"narration_pass_1": {"texts": [1]}},
        "D": {"status": "redacted"},
        "E": v2(told(1, "#C C hidden"), status="redacted"),
        "F": {},
    }
    result = download.ingest([video(), *(video(uid) for uid in (B, "C", "D", "E", "F"))], narrations)
    assert [clip.narration for clip in result.clips] == ["C ok"]
    counts = {"bad": 4, "skipped_redacted": 1, "videos_redacted": 2, "videos_without_narration": 1, "entries": 6}
    assert {name: result.counts[name] for name in counts} == counts
    assert result.num_left_out == 4
    text = "\n".join(result.problems)
    assert f"{A}.narrations[1].text is missing" in text
    assert f"{B} is an object with status, captions, clips, expected narration_pass_1 and narration_pass_2 (nar" in text
    assert "C.narration_pass_1 is an object with texts, expected an object with narrations" in text


@pytest.mark.parametrize(
    ("narrations", "says"),
    [
        ({A: {"captions": [1], "status": "complete"}}, "bad 1; the first: .*captions"),
        ({B: v2(told(1, "#C C x"))}, "skipped_not_in_manifest 1; the first: .*is not in the manifest"),
        ({A: {"status": "redacted"}}, "it holds no entry"),
        ({A: v2(told("late", "x"))}, "bad 1"),
    ],
)
def test_a_narration_file_that_gives_nothing_is_an_error(download, narrations, says):
    with pytest.raises(ConfigError, match=rf"nothing of narration file .*narration.json can be used: {says}"):
        download.ingest([video()], narrations)


def test_unusable_entries_of_older_files_and_manifests_are_named(download):
    narrations = download.write("v1.json", {A: {"narrations": [told(3, "#C C x")]}, B: None, "version": None})
    manifest = download.write("ego4d.json", {"videos": [video(), video(), video(duration_s=3.0)]})
    result = ingest_ego4d(manifest, str(download.root), narrations=narrations)
    assert (len(result.clips), result.counts["bad"], result.counts["bad_videos"]) == (1, 1, 1)
    assert "videos[2] lists" in result.problems[0]
    assert f"v1.json: {B} is null" in result.problems[1]


def test_an_fho_file_of_another_layout_is_not_taken_for_an_empty_one(download):
    listed = [{"video_uid": A, "annotated_intervals": [{"actions": []}]}, {"clips": 1}]
    download.write("fho_main.json", {"videos": listed})
    manifest = download.write("ego4d.json", {"videos": [video()]})
    with pytest.raises(ConfigError, match=r"nothing of FHO file .*: bad 2; the first: .*an object with actions"):
        ingest_ego4d(manifest, str(download.root), fho=str(download.root / "fho_main.json"))


def test_a_wholly_redacted_manifest_gives_nothing(download):
    with pytest.raises(ConfigError, match="nothing of manifest"):
        download.ingest([video(redacted_intervals=[{"start_sec": 0, "end_sec": 90}])])


def test_other_people_and_unsure_narrations_can_be_left_out(download):
    narrations = {A: passes([said(10, "#O man X sits"), said(20, "#C C lifts #unsure"), said(30, "3C C typo")])}
    result = download.ingest([video()], narrations, choice=Choice(others=False, unsure=False))
    assert [clip.narration for clip in result.clips] == ["3C C typo"]
    assert (result.counts["skipped_other_person"], result.counts["skipped_unsure"]) == (1, 1)
    assert len(download.ingest([video()], narrations).clips) == 3


def test_redacted_intervals_are_skipped(download):
    redacted = video(redacted_intervals=[{"start_sec": 20.0, "end_sec": 30.0, "start_frame": 600, "end_frame": 900}])
    narrations = {A: passes([said(t, f"#C C {t}") for t in (17.9, 18.5, 25.0, 30.5, 31.0)])}
    result = download.ingest([redacted], narrations)
    assert ranges(result) == [(16.9, 19.9), (30.0, 33.0)]
    assert result.counts["skipped_redacted"] == 3
    assert ranges(download.ingest([redacted])) == [(0, 10), (10, 20), (30, 40), (40, 50), (50, 60)]


def test_actions_carry_verb_and_noun(download):
    intervals = [
        {
            "redacted": False,
            "narrated_actions": [
                action(5.0, 13.0),
                action(6.0, 14.0, structured_verb="[other]", freeform_verb="dab", frames=None),
                action(7.0, 15.0, is_rejected=True),
                action(8.0, 16.0, is_invalid_annotation=True),
                action(9.0, 17.0, is_valid_action=False),
                action(20.0, 18.0),
                action("x", 18.0),
                "y",
            ],
        },
        {"redacted": True, "narrated_actions": [action(40.0, 48.0)]},
        "z",
    ]
    result = download.ingest([video()], actions={A: intervals})
    assert [(c.start_s, c.verb, c.noun) for c in result.clips] == [
        (5.0, "put_(place,_leave,_drop)", "cup_(mug,_tumbler)"),
        (6.0, "dab", None),
        (20.0, "put_(place,_leave,_drop)", "cup_(mug,_tumbler)"),
    ]
    assert result.clips[0].narration == "C puts the cup down"
    counts = result.counts
    assert (counts["skipped_rejected"], counts["skipped_invalid"], counts["skipped_redacted"]) == (1, 2, 1)
    assert [p.split(": ", 1)[1] for p in result.problems if "kept" not in p] == [
        'videos[0].annotated_intervals[0].narrated_actions[6].start_sec is "x", expected a number of seconds, '
        "not negative, below 1e8",
        'videos[0].annotated_intervals[0].narrated_actions[7] is "y", expected an object with start_sec and end_sec',
        'videos[0].annotated_intervals[2] is "z", expected an object with narrated_actions',
    ]


def test_whole_videos_start_where_their_stream_does(download):
    late = video(duration_s=25.0)
    late["video_metadata"] |= {"video_start_sec": 0.5, "video_duration_sec": 20.0}
    assert ranges(download.ingest([late])) == [(0.5, 10.5), (10.5, 20.5)]
    assert ranges(download.ingest([late], clip_seconds=None)) == [(0.5, 20.5)]


@pytest.mark.parametrize("layout", ["v2/full_scale", "v2/video_540ss", "v1/full_scale", "full_scale", "."])
def test_videos_are_found_in_every_layout(download, layout):
    path = download.root / layout / f"{A}.mp4"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    result = download.ingest([video(), video(B)])
    uris = {clip.video_id: clip.video_uri for clip in result.clips}
    assert uris == {A: str(path), B: str(path.with_name(f"{B}.mp4"))}  # the missing one: where it would lie
    assert (result.counts["videos"], result.counts["videos_missing"]) == (2, 1)
    present = download.ingest([video(), video(B)], only_present=True)
    assert {clip.video_id for clip in present.clips} == {A}


def test_the_best_image_wins(download):
    for layout in ("v2/video_540ss", "v2/full_scale"):
        (download.root / layout).mkdir(parents=True)
        (download.root / layout / f"{A}.mp4").touch()
    assert download.ingest([video()]).clips[0].video_uri.endswith(f"v2/full_scale/{A}.mp4")


def test_bad_entries_are_named_and_the_others_kept(download):
    videos = [
        video(),
        video("../x"),
        video(B, duration_s="long"),
        "x",
        video("C", redacted_intervals=[{"start_sec": 1}]),
    ]
    narrations = {
        A: passes(
            [said(10, "#C C ok"), said(-1, "#C C x"), said(float("nan"), "y"), said(3, " "), {"timestamp_sec": 4}]
        ),
        B: passes([said(1, "#C C not in the manifest")]),
        "D": "redacted",
    }
    result = download.ingest(videos, narrations)
    assert [clip.narration for clip in result.clips] == ["C ok"]
    assert result.counts["bad_videos"] == 4
    assert result.counts["bad"] == 5
    assert result.counts["skipped_not_in_manifest"] == 1
    text = "\n".join(result.problems)
    assert 'ego4d.json: videos[1].video_uid is "../x"' in text
    assert 'videos[2].duration_sec is "long", expected a number of seconds' in text
    assert "videos[4].redacted_intervals[0].end_sec is missing" in text
    assert f"narration.json: {A}.narration_pass_1.narrations[1].timestamp_sec is -1" in text
    assert "narrations[4].narration_text is missing from an object with timestamp_sec, expected a text" in text
    assert 'narration.json: D is "redacted", expected an object' in text
    assert f"video {B} is not in the manifest; 1 entries left out" in text


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("{", "no valid JSON: .* at line 1, column 2"),
        ("[]", "the top level is an empty list, expected an object with videos"),
        ('{"clips": []}', "videos is missing from an object with clips, expected a list"),
        ('{"videos": {}}', "videos is an empty object, expected a list"),
        ('{"videos": []}', "holds no usable video among 0"),
        ('{"videos": [{"video_uid": "a"}]}', r"holds no usable video among 1; the first: .*duration_sec is missing"),
        (b"\xff\xfe{", "is no valid JSON|is not UTF-8"),
    ],
)
def test_a_manifest_of_another_shape_is_refused(tmp_path, content, says):
    path = tmp_path / "ego4d.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ConfigError, match=rf"(?s)manifest .*{says}"):
        ingest_ego4d(str(path), str(tmp_path))


@pytest.mark.parametrize("content", [[], {}, {"videos": []}, {"version": 1}])
def test_annotations_of_another_shape_are_refused(download, content):
    manifest = download.write("ego4d.json", {"videos": [video()]})
    other = download.write("other.json", content)
    with pytest.raises(ConfigError, match=r"narration file .*other.json"):
        ingest_ego4d(manifest, str(download.root), narrations=other)
    if content != {"videos": []}:
        with pytest.raises(ConfigError, match=r"FHO file .*other.json"):
            ingest_ego4d(manifest, str(download.root), fho=other)


@pytest.mark.parametrize("window", [{"mode": "x"}, {"before_s": -1}, {"before_s": 0, "after_s": 0}, {"alpha_s": 0}])
def test_an_impossible_window_is_refused(window):
    with pytest.raises(ConfigError, match="narration window"):
        NarrationWindow(**window)
