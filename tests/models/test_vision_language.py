"""Vision-language models of this machine, on a tiny random one: captions and the states behind them."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from support.extraction import rows_of

from handloom.errors import ClipError, ConfigError
from handloom.models.vision_language.local import LocalModel
from handloom.models.vision_language.plan import plan_local
from handloom.models.vision_language.questions import AnswerError, Question
from handloom.schemas.settings import Settings
from handloom.schemas.tables.row import row_arrays
from handloom.schemas.towers import CaptionSettings
from handloom.stages.extract import Extractor
from handloom.stages.own import compute_own
from handloom.stages.registry import own_licences, stage_graph
from handloom.stages.stage import ClipInput
from handloom.stages.versions import model_versions

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from support.tiny_vlm import WIDTH, save_vlm  # noqa: E402

CLASS = "handloom.stages.learned:Caption"
FAST = {"video": {"sample_hz": 5}, "tracks": {"grid": 4, "extra": 0}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("vlm")
    save_vlm(made)
    return made


def frames(seed: int, num: int = 3):
    return list(np.random.default_rng(seed).integers(0, 256, (num, 40, 60, 3), np.uint8))


def test_states_are_those_of_each_frames_tokens(folder):
    """A frame sees the question and the frames before it, not those after it."""
    model = LocalModel(plan_local(CaptionSettings(model=str(folder), max_tokens=8)))
    first, other = frames(0), frames(0)[:2] + frames(1)[2:]
    states = model.intent(Question("What?", first))
    assert (states.shape, states.dtype) == ((3, WIDTH), np.float32)
    again = model.intent(Question("What?", other))
    np.testing.assert_allclose(again[:2], states[:2], atol=1e-5)
    assert np.abs(again[2] - states[2]).max() > 1e-3
    assert np.abs(model.intent(Question("Who?", first)) - states).max() > 1e-4
    inputs = model._inputs(Question("a <|im_end|> b", first, [0.0, 0.5, 1.0]), [("bad", "it is empty")])
    text = model._tokenizer.decode(inputs["input_ids"][0])
    assert text.startswith("<|im_start|>user\na < |im_end|> b\n0.00 s:<|vision_start|><|image_pad|>")
    assert text.endswith(
        "<|vision_end|><|im_end|>\n<|im_start|>assistant\nbad<|im_end|>\n<|im_start|>user\nThis answer cannot be used: "
        "it is empty. Answer the question again.<|im_end|>\n<|im_start|>assistant\n"
    )


def test_an_answer_that_does_not_end_is_cut_and_none(folder):
    model = LocalModel(plan_local(CaptionSettings(model=str(folder), max_tokens=8)))
    assert model.reply(Question("What?", frames(0)), ())
    model._network.generation_config.forced_eos_token_id = None
    with pytest.raises(AnswerError, match="cut at max_tokens = 8"):
        model.reply(Question("What?", frames(0)), ())


def test_rules_of_writing_are_part_of_the_identity(folder, tmp_path):
    """`generation_config.json` beside the same weights can give other words."""
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    before, same = (plan_local(CaptionSettings(model=str(one))).identity() for one in (folder, copy))
    assert same == before
    rules = json.loads((copy / "generation_config.json").read_text())
    (copy / "generation_config.json").write_text(json.dumps(rules | {"repetition_penalty": 1.5}))
    other = plan_local(CaptionSettings(model=str(copy))).identity()
    assert {name for name in other if other[name] != before[name]} == {"generation"}


def test_the_earlier_kind_is_read_by_the_same_code(tmp_path):
    save_vlm(tmp_path, kind="qwen2_5_vl")
    model = LocalModel(plan_local(CaptionSettings(model=str(tmp_path), max_tokens=4)))
    assert model.intent(Question("What?", frames(0))).shape == (3, WIDTH)
    assert model.reply(Question("What?", frames(0)), ())


def test_rows_have_a_caption_and_a_later_run_adds_the_same_bytes(clips, folder):
    declared = {"class": CLASS, "settings": {"model": str(folder), "max_tokens": 8, "frames": 4}}
    settings = Settings(**FAST, stages={"caption": declared})
    (row,) = rows_of(clips[:1], settings)
    values = row_arrays(row)
    assert values["caption"]
    assert values["caption_json"] is None
    assert np.asarray(values["intent"]).shape == (4, WIDTH)
    assert row.schema.field("intent").type.value_type.value_type == "halffloat"
    assert len(values["intent_s"]) == 4
    assert values["intent_source"] == f"vlm:{folder.name}"
    assert own_licences(settings)["caption"] == "apache-2.0"
    (plain,) = rows_of(clips[:1], Settings(**FAST))
    extractor = Extractor(settings, "key", keys=stage_graph(settings).keys(model_versions(settings)))
    old = row_arrays(plain)
    plan = extractor.plan(old, ["caption"])
    assert (plan.compute, plan.reads_frames) == (("caption",), False)
    update = extractor.update(clips[0], old, plan, None)
    for name in ("caption", "intent", "intent_s", "stage_key_caption"):
        assert update.cells[name] == row.column(name)


def test_a_clip_costs_itself_and_not_its_neighbours(clips, folder):
    settings = {"model": str(folder), "max_tokens": 8, "prompt": "vlmimic/task", "tries": 2}
    own = stage_graph(Settings(stages={"caption": {"class": CLASS, "settings": settings}}))["caption"]
    own.stage.load()
    at, times = np.arange(3), np.array([0.0, 0.5, 1.0])
    inputs = [ClipInput(clip, {}, np.stack(frames(n)), at, times) for n, clip in enumerate(clips[:2])]
    for error in compute_own(own, inputs):  # a random network writes no JSON
        assert isinstance(error, ClipError)
        assert error.reason == "answer_invalid"
        assert "2 answers were not what was asked, the last: it is no JSON" in error.problem


def test_a_folder_that_is_no_such_model_says_what_it_lacks(folder, tmp_path):
    with pytest.raises(ConfigError, match="there is no model at"):
        plan_local(CaptionSettings(model=str(tmp_path / "absent")))
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({"model_type": "clip"}))
    with pytest.raises(ConfigError, match=r"type clip, expected one of qwen2_vl, .*\n.*give base_url"):
        plan_local(CaptionSettings(model=str(copy)), "stages.caption.settings.")
    (copy / "config.json").write_text(json.dumps(config))
    (copy / "tokenizer.json").unlink()
    with pytest.raises(ConfigError, match="has no tokenizer"):
        plan_local(CaptionSettings(model=str(copy)))
    (copy / "tokenizer.json").write_bytes((folder / "tokenizer.json").read_bytes())
    (copy / "preprocessor_config.json").unlink()
    with pytest.raises(ConfigError, match="cannot be loaded"):
        LocalModel(plan_local(CaptionSettings(model=str(copy))))
