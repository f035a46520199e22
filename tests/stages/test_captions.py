"""Captions: by a model behind an endpoint that misbehaves, and by rules."""

from __future__ import annotations

import base64
import json
import re
import threading

import numpy as np
import pytest
from support.fake_endpoint import Reply, fake_endpoint, said
from support.rows import make_clip

from handloom.errors import ClipError, ConfigError
from handloom.models.vision_language.prompts import check_schema
from handloom.schemas.settings import Settings
from handloom.stages.learned.rule_captions import parts_of, read_out
from handloom.stages.own import compute_own
from handloom.stages.registry import stage_graph
from handloom.stages.stage import ClipInput
from handloom.video.stored_frames import decode_jpeg

CLASS = "handloom.stages.learned:Caption"
SEGMENTS = [
    {"start_s": 0.2, "end_s": 0.8, "hand": "right", "phase": "grasping", "master": "object_1", "slave": "hand_right"},
    {"start_s": 0.8, "end_s": 2.1, "hand": "right", "phase": "manipulation", "master": "scene", "slave": "object_1"}
    | {"text": "lift object 1"},
]
FAST = {"timeout_s": 0.5, "clip_timeout_s": 3.0, "intent": "none"}
OWN = {"prompt": "own", "prompt_text": "?", "answer_schema": {"type": "string"}}
FRAMES = np.random.default_rng(0).integers(0, 256, (3, 32, 48, 3), np.uint8)


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "*")


def graph_of(settings: dict, name="caption", cls=CLASS):
    return stage_graph(Settings(stages={name: {"class": cls, "settings": settings}}))


def declared(settings: dict, name="caption", cls=CLASS):
    return graph_of(settings, name, cls)[name]


def loaded(base_url: str, **more):
    own = declared({"model": "some-vlm", "base_url": base_url, **FAST, **more})
    own.stage.load()
    return own


def given(number=0, **row) -> ClipInput:
    clip = make_clip(number)
    return ClipInput(clip, row, FRAMES, np.arange(3), np.array([0.0, 0.5, 1.0]))


def cells(found) -> dict:
    assert isinstance(found, dict), found
    return {name: cell[0].as_py() for name, cell in found.items()}


def outcome(base_url: str, clips=1, **more):
    """What the stage gives for some clips, and what it has counted."""
    own = loaded(base_url, **more)
    found = compute_own(own, [given(number) for number in range(clips)])
    return found, dict(own.stage.counted)


def test_a_caption_comes_with_its_frames_prompt_and_tokens(monkeypatch):
    monkeypatch.setenv("MY_KEY", "secret-1")
    with fake_endpoint(lambda number, body: said("A hand opens a jar. ")) as server:
        (found,), counted = outcome(server.base_url, key_variable="MY_KEY", request={"seed": 1})
    assert cells(found) == {"caption": "A hand opens a jar.", "caption_json": None}
    assert counted == {"requests": 1, "prompt_tokens": 100, "completion_tokens": 7}
    ((headers, body),) = server.requests
    assert (headers["Authorization"], body["path"]) == ("Bearer secret-1", "/v1/chat/completions")
    assert (body["model"], body["seed"], body["temperature"]) == ("some-vlm", 1, 0.0)
    text, *images = body["messages"][0]["content"]
    assert text["text"] == "Please describe the motion of the first-person individual in the egocentric video"
    assert len(images) == 3
    first = decode_jpeg(base64.b64decode(images[0]["image_url"]["url"].removeprefix("data:image/jpeg;base64,")))
    assert first.shape == FRAMES[0].shape


def test_segments_are_told_with_numbers_and_asked_for_again_where_the_answer_is_another():
    part = {"phase": "grasping", "master": "cup", "slave": "hand"}
    right = [part | {"number": 1, "text": "a"}, part | {"number": 2, "text": "b"}]
    answers = ["no JSON", {"segments": right[:1]}, {"segments": right}]

    def answer(number, body):
        return said(answers[number] if number == 0 else "```json\n" + json.dumps(answers[number]) + "\n```")

    with fake_endpoint(answer) as server:
        own = loaded(server.base_url, prompt="vlmimic/segments")
        (found,) = compute_own(own, [given(segments=SEGMENTS)])
        (none,) = compute_own(own, [given(segments=[])])
    assert own.clip_fields == ()
    assert own.reads_stages == ("probe", "segments", "frames")
    assert cells(found)["caption"] == "a; b"
    assert json.loads(cells(found)["caption_json"]) == {"segments": right}
    assert cells(none)["caption"] is None
    assert own.stage.counted["requests"] == len(server.requests) == 3
    first, _, last = (body for _, body in server.requests)
    assert (
        "1. 0.20 s to 0.80 s, right hand\n2. 0.80 s to 2.10 s, right hand" in first["messages"][0]["content"][0]["text"]
    )
    assert first["response_format"]["json_schema"]["schema"]["required"] == ["segments"]
    assert [one["role"] for one in last["messages"]] == ["user", "assistant", "user", "assistant", "user"]
    assert "expected each of 1 to 2 once" in last["messages"][-1]["content"]


@pytest.mark.parametrize(
    ("reply", "more", "reason", "problem", "num_requests"),
    [
        (Reply(b"{}", 500, {"Retry-After": "0"}), {}, "endpoint_failed", r"failed \(500\)", 2),
        (Reply(b"", 0), {}, "endpoint_failed", "cannot be reached: RemoteDisconnected", 2),
        (Reply(b'{"choices": [', 200), {}, "endpoint_failed", "no chat completion", 2),
        (Reply(b'{"choices": [', 200, cut=True), {}, "endpoint_failed", "IncompleteRead", 2),
        (Reply(b"slow down", 429, {"Retry-After": "60"}), {}, "endpoint_busy", "slow down", 1),
        (Reply(b"no such image", 400), {}, "endpoint_refused", r"\(400\): no such image", 1),
        (Reply(b"", 307, {"Location": "http://127.0.0.1:1/"}), {}, "endpoint_refused", r"\(307\)", 1),
        (said("x" * (2 << 20)), {}, "answer_invalid", "longer than 1 MiB", 2),
        (said(""), {}, "answer_invalid", "2 answers .* empty", 2),
        (said(None), {}, "answer_invalid", "holds no text", 2),
        (said("half", finish_reason="length"), {}, "answer_invalid", "cut at max_tokens = 512", 2),
        (said('{"task": "pour"}'), {"prompt": "vlmimic/task"}, "answer_invalid", "'objects' is a required", 2),
        (said('{"task": NaN}'), {"prompt": "vlmimic/task"}, "answer_invalid", "NaN is no number", 2),
        (said('{"task": 1e999}'), {"prompt": "vlmimic/task"}, "answer_invalid", "1e999 is no number", 2),
        (said('"\\ud800"'), OWN, "answer_invalid", "surrogates", 2),
        (said("half: \ud800"), {}, "answer_invalid", "half of a character", 2),
    ],
)  # fmt: skip
def test_a_fault_of_the_endpoint_costs_one_clip_and_few_requests(reply, more, reason, problem, num_requests):
    with fake_endpoint(lambda number, body: reply) as server:
        (error,), counted = outcome(server.base_url, tries=2, max_requests_clip=2, **more)
    assert isinstance(error, ClipError)
    assert error.reason == reason
    assert counted["requests"] == len(server.requests) == num_requests
    assert re.search(problem, error.problem), error.problem


def test_a_server_that_comes_back_costs_no_clip():
    replies = [Reply(b"", 503), Reply(b"", 429, {"Retry-After": "0"}), said("fine")]
    with fake_endpoint(lambda number, body: replies[number]) as server:
        (found,), counted = outcome(server.base_url)
    assert cells(found)["caption"] == "fine"
    assert (counted["requests"], counted["failed_requests"]) == (3, 2)


def test_a_server_that_hangs_or_is_not_there_costs_the_time_of_the_settings():
    never = threading.Event()
    with fake_endpoint(lambda number, body: Reply(wait=never)) as server:
        (error,), _ = outcome(server.base_url, timeout_s=0.2, max_requests_clip=2)
        never.set()
    assert error.reason == "endpoint_timeout"
    assert "timeout_s = 0.2" in error.problem
    (error,), counted = outcome(server.base_url, max_requests_clip=2)  # it is gone now
    assert error.reason == "endpoint_failed"
    assert "ConnectionRefusedError" in error.problem
    assert counted["requests"] == 2


def test_after_a_wrong_key_nothing_more_is_sent_and_no_error_shows_it(monkeypatch):
    monkeypatch.setenv("MY_KEY", "secret-1")
    with fake_endpoint(lambda number, body: Reply(b"wrong key secret-1", 401)) as server:
        errors, _ = outcome(server.base_url, clips=1, key_variable="MY_KEY")
        own = loaded(server.base_url, key_variable="MY_KEY")
        errors += [error for number in range(3) for error in compute_own(own, [given(number)])]
    assert {error.reason for error in errors} == {"endpoint_refused"}
    assert "wrong key (key)" in errors[0].problem
    assert len(server.requests) == 2
    assert "secret-1" not in str(errors)


def test_a_run_sends_no_more_requests_than_it_may_and_a_batch_asks_at_once():
    together = threading.Barrier(3)

    def answer(number, body):
        together.wait(100)
        return said(f"{number}")

    with fake_endpoint(answer) as server:
        found, counted = outcome(server.base_url, clips=5, max_requests=3, timeout_s=150.0)
    errors = [one for one in found if isinstance(one, ClipError)]
    assert [error.reason for error in errors] == ["request_limit"] * 2
    assert sorted(cells(one)["caption"] for one in found if not isinstance(one, ClipError)) == ["0", "1", "2"]
    assert counted["requests"] == len(server.requests) == 3


def test_what_is_in_the_key_and_what_is_not(monkeypatch):
    def key_of(**more) -> str:
        graph = graph_of({"model": "some-vlm", "base_url": "http://one/v1", "intent": "none", **more})
        return graph.keys({"own:caption": graph["caption"].identity_text()})["caption"]

    key = key_of()
    same = {"base_url": "http://two/v1", "key_variable": "K", "max_requests": 5, "timeout_s": 1.0}
    assert key_of(**same) == key
    for other in ({"model": "other"}, {"prompt": "vlmimic/task"}, {"frames": 4}, {"temperature": 0.5}):
        assert key_of(**other) != key
    metadata = declared({"model": "some-vlm", "base_url": "http://one/v1"}).fields[0].metadata
    assert (metadata[b"model"], metadata[b"prompt"]) == (b"some-vlm", b"robomirror/egocentric")


def test_a_schema_may_refer_to_itself_as_a_tree_does():
    node = {"type": "object", "properties": {"of": {"$ref": "#/$defs/node"}, "all": {"$ref": "#"}}}
    check_schema("answer_schema", {"$ref": "#/$defs/node", "$defs": {"node": node}})
    check_schema("answer_schema", {"$id": "http://a/b", "anyOf": [{"$ref": "#it"}], "$defs": {"it": {"$anchor": "it"}}})


LOOP = {"$ref": "#/$defs/a"}


@pytest.mark.parametrize(
    ("more", "problem"),
    [
        ({"base_url": "localhost:8000"}, "expected such as https://host/v1"),
        ({"base_url": "http://me:secret@host/v1"}, "holds more than an address"),
        ({"prompt": "robomirror"}, "prompt is 'robomirror', expected one of robomirror/egocentric"),
        ({"prompt_text": "What?", "prompt": "vlmimic/task"}, "an id of its own"),
        ({"answer_schema": {"type": "string"}}, "without prompt_text"),
        ({"prompt": "a", "prompt_text": "?", "answer_schema": {"type": "text"}}, "is no JSON schema"),
        ({"prompt": "a", "prompt_text": "?", "answer_schema": {"$ref": "http://x/"}}, "refers to 'http://x/'"),
        (
            {"prompt": "a", "prompt_text": "?", "answer_schema": {"$ref": "#/$defs/x"}},
            "refers to '#/.defs/x', which is",
        ),
        (
            {"prompt": "a", "prompt_text": "?", "answer_schema": {"items": LOOP, "$defs": {"a": LOOP}}},
            "leads to itself",
        ),
        ({"base_url": "http://a..b/v1"}, "expected such as"),
        ({"base_url": "http://host/\u20ac"}, "expected such as"),
        ({"intent": "model"}, "an endpoint gives no hidden states"),
        ({"max_requests": 0}, "max_requests"),
    ],
)
def test_wrong_settings_say_so_before_a_run(more, problem):
    with pytest.raises(ConfigError, match=problem):
        declared({"model": "some-vlm", "base_url": "http://host/v1"} | more)


def test_a_key_that_is_not_set_ends_the_run_at_its_beginning(monkeypatch):
    monkeypatch.delenv("MY_KEY", raising=False)
    with pytest.raises(ConfigError, match="the environment variable MY_KEY is not set"):
        loaded("http://host/v1", key_variable="MY_KEY")


def test_without_a_model_segments_and_words_are_read_out_and_images_are_the_intent():
    own = declared({"prefix": "rule_"}, "rules", "handloom.stages.learned:RuleCaption")
    own.stage.load()
    clips = [given(narration="take the cup.", segments=SEGMENTS), given(narration=None, segments=None)]
    found, nothing = (cells(one) for one in compute_own(own, clips))
    assert found["rule_caption"] == (
        "take the cup. 0.20 s to 0.80 s, right hand: reach for object 1. 0.80 s to 2.10 s, right hand: lift object 1."
    )
    told = json.loads(found["rule_caption_json"])
    assert (told["task"], told["objects"]) == ("take the cup", ["object_1"])
    assert [one["phase"] for one in told["segments"]] == ["grasping", "manipulation"]
    intent = np.array(found["rule_intent"])
    assert intent.shape == (3, 1280)
    assert np.linalg.norm(intent, axis=1) == pytest.approx(1, abs=2e-3)
    assert found["rule_intent_s"] == [0.0, 0.5, 1.0]
    assert found["rule_intent_source"] == "image embedding (efficientnet-lite0)"
    assert (nothing["rule_caption"], nothing["rule_caption_json"]) == (None, None)
    assert read_out({"verb": "open", "noun": "jar"})[0] == "open jar."


def test_parts_of_a_frame_tell_where_things_are():
    clip = given(narration=None, segments=None)
    found = {}
    sources = []
    for grid, of in (((1, 1), "image"), ((2, 3), "features"), ((2, 3), "image")):
        settings = {"prefix": "rule_", "grid": grid, "grid_of": of}
        own = declared(settings, "rules", "handloom.stages.learned:RuleCaption")
        own.stage.load()
        (row,) = (cells(one) for one in compute_own(own, [clip]))
        found[of if grid == (2, 3) else grid] = np.array(row["rule_intent"], np.float32)
        sources.append(row["rule_intent_source"].removeprefix("image embedding (efficientnet-lite0)"))
    assert sources == ["", ", whole and 2 x 3 parts of its features", ", whole and 2 x 3 parts"]
    found[2, 3] = found.pop("image")
    np.testing.assert_array_equal(found["features"][:, :1280], found[2, 3][:, :1280])
    assert found["features"].shape == found[2, 3].shape
    assert np.linalg.norm(found["features"], axis=1) == pytest.approx(1, abs=2e-3)
    assert found[2, 3].shape == (3, 7 * 1280)
    assert np.linalg.norm(found[2, 3], axis=1) == pytest.approx(1, abs=2e-3)
    np.testing.assert_allclose(found[2, 3][:, :1280] * 7**0.5, found[1, 1], atol=2e-3)
    frames = np.arange(2 * 7 * 10 * 3, dtype=np.uint8).reshape(2, 7, 10, 3)
    pieces = parts_of(frames, 2, 3)
    rows = [np.concatenate(pieces[3 * n : 3 * n + 3], axis=2) for n in range(2)]
    np.testing.assert_array_equal(np.concatenate(rows, axis=1), frames)
    assert parts_of(frames, 0, 0) == []
