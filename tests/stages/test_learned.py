"""`class = "handloom.stages.learned:Tower"`: published networks as stages, on tiny random ones."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from support.extraction import rows_of

from handloom.errors import ClipError, ConfigError
from handloom.schemas.settings import Settings, StageConfig
from handloom.schemas.tables.row import row_arrays
from handloom.schemas.version_policy import licences_in
from handloom.stages.extract import Extractor
from handloom.stages.own import clip_input, compute_own
from handloom.stages.registry import own_stages, stage_graph
from handloom.stages.stage import ClipInput
from handloom.stages.versions import model_versions

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from support.tiny_texts import save_tokenizer  # noqa: E402
from support.tiny_towers import save_tower  # noqa: E402

from handloom.stages.learned.texts import text_encoder  # noqa: E402

CLASS = "handloom.stages.learned:Tower"
FAST = {"video": {"sample_hz": 5}, "tracks": {"grid": 4, "extra": 0}}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """{kind: folder} of an image and a video network."""
    root = tmp_path_factory.mktemp("towers")
    for kind in ("siglip", "vjepa2"):
        (root / kind).mkdir()
        save_tower(root / kind, kind)
    return {kind: root / kind for kind in ("siglip", "vjepa2")}


def declared(folder, **more) -> dict:
    return {"class": CLASS, "settings": {"model": str(folder), **more}}


def settings_of(folders, **more) -> Settings:
    stages = {"siglip2": declared(folders["siglip"], **more), "vjepa": declared(folders["vjepa2"], source="video")}
    return Settings(**FAST, stages=stages)


def test_rows_have_an_embedding_of_each_and_a_later_run_adds_the_same_bytes(clips, folders):
    """As a new row, and as new columns of a row that was made without them: no video is decoded for stored frames."""
    settings = settings_of(folders)
    (row,) = rows_of(clips[:1], settings)
    for name, dim in (("siglip2", 16), ("vjepa", 24)):
        vector = row_arrays(row)[f"embedding_{name}"]
        assert (vector.shape, vector.dtype) == ((dim,), np.float32)
        assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-6)
    metadata = row.schema.field("embedding_siglip2").metadata
    assert metadata[b"version"].startswith(b"files ")
    del metadata[b"version"], metadata[b"handloom_reads"]
    told = {b"encoder": b"siglip2", b"model": b"siglip", b"dim": b"16", b"licence": b"apache-2.0"}
    assert metadata == told | {b"handloom_stage": b"siglip2"}
    licences = licences_in(model_versions(settings))
    assert licences == dict.fromkeys(["hands_2d", "text", "look", "siglip2", "vjepa"], "apache-2.0")
    (plain,) = rows_of(clips[:1], Settings(**FAST))
    extractor = Extractor(settings, "key", keys=stage_graph(settings).keys(model_versions(settings)))
    old = {**row_arrays(plain), "stage_state_probe": None}  # as of a version without states
    plan = extractor.plan(old, ["siglip2"])
    assert (plan.compute, plan.reads_frames) == (("siglip2",), False)
    update = extractor.update(clips[0], old, plan, None)
    assert update.cells["embedding_siglip2"] == row.column("embedding_siglip2")
    assert update.cells["stage_key_siglip2"] == row.column("stage_key_siglip2")


def test_clips_together_give_the_same_bytes_and_a_bad_one_costs_itself(clips, folders):
    declared_stages = own_stages(Settings(stages={"siglip2": declared(folders["siglip"])}))
    stage = next(one for one in declared_stages if one.name == "siglip2")
    stage.stage.load()
    rng = np.random.default_rng(0)
    inputs = [ClipInput(clip, {}, rng.integers(0, 256, (n, 48, 80, 3), np.uint8)) for clip, n in zip(clips, (8, 3))]  # noqa: B905
    together = [found["embedding_siglip2"] for found in compute_own(stage, inputs)]
    alone = [compute_own(stage, [one])[0]["embedding_siglip2"] for one in inputs]
    assert together == alone
    with torch.no_grad():
        next(stage.stage._network._network.parameters()).fill_(float("nan"))
    (error,) = compute_own(stage, inputs[:1])
    assert isinstance(error, ClipError)
    assert (error.stage, error.reason) == ("siglip2", "model_failed")
    stage.stage.close()


def test_the_key_follows_the_weights_and_not_the_licence(folders, tmp_path):
    def key_of(folder, **more) -> str:
        settings = Settings(stages={"siglip2": declared(folder, **more)})
        return stage_graph(settings).keys(model_versions(settings))["siglip2"]

    key = key_of(folders["siglip"])
    assert key_of(folders["siglip"], licence="my-own") == key
    assert key_of(folders["siglip"], frames=4) != key
    copy = tmp_path / "copy"
    shutil.copytree(folders["siglip"], copy)
    same = stage_graph(Settings(stages={"siglip2": declared(copy)}))["siglip2"]
    before = stage_graph(Settings(stages={"siglip2": declared(folders["siglip"])}))["siglip2"]
    assert json.loads(same.identity_text()) == json.loads(before.identity_text())
    content = json.loads((copy / "preprocessor_config.json").read_text())
    (copy / "preprocessor_config.json").write_text(json.dumps(content | {"resample": 2}))
    other = stage_graph(Settings(stages={"siglip2": declared(copy)}))["siglip2"]
    assert json.loads(other.identity_text())["weights"] != json.loads(before.identity_text())["weights"]


def test_what_the_settings_lack_or_name_wrongly_says_so(folders, tmp_path):
    for settings, problem in {
        "": r"the setting stages\.siglip2\.settings\.model has no value",
        "absent": "there is no model at",
        "empty": r"stages\.siglip2\.settings\.model: .* has no config\.json and no weights",
    }.items():
        (tmp_path / "empty").mkdir(exist_ok=True)
        given = {"settings": {"model": str(tmp_path / settings)}} if settings else {}
        with pytest.raises(ConfigError, match=problem):
            stage_graph(Settings(stages={"siglip2": {"class": CLASS, **given}}))
    if not torch.cuda.is_available():
        with pytest.raises(ConfigError, match=r"siglip2\.settings\.device = 'cuda', but torch sees no"):
            Extractor(
                Settings(stages={"siglip2": declared(folders["siglip"], device="cuda")}), "key", stages=["siglip2"]
            )


TEXTS = "handloom.stages.learned:TextTower"


@pytest.fixture(scope="module")
def with_texts(folders):
    """The folder of the image network, with a tokenizer for its texts' side."""
    save_tokenizer(folders["siglip"])
    return folders["siglip"]


def test_a_clips_words_are_a_column_of_a_declared_network(clips, with_texts):
    settings = Settings(**FAST, stages={"words": {"class": TEXTS, "settings": {"model": str(with_texts)}}})
    said = [replace(clips[0], narration="open the door"), replace(clips[0], narration=None, verb=None, noun=None)]
    (stage,) = (one for one in own_stages(settings) if one.name == "words")
    assert (stage.columns, stage.clip_fields) == (("embedding_words",), ("narration", "verb", "noun"))
    stage.stage.load()
    inputs = [clip_input(clip, stage, {name: getattr(clip, name) for name in stage.clip_fields}, None) for clip in said]
    found = compute_own(stage, inputs)
    assert found[1]["embedding_words"].null_count == 1
    vector = found[0]["embedding_words"][0].values.to_numpy()
    network = text_encoder(settings.stages["words"], stage_graph(settings).own_fields("words")[0])
    np.testing.assert_array_equal(vector, network.encode(["open the door"])[0])
    stage.stage.close()


def test_the_texts_side_of_an_image_network_goes_with_the_column_of_the_same_weights(folders, with_texts, tmp_path):
    settings = Settings(stages={"siglip2": declared(with_texts), "vjepa": declared(folders["vjepa2"], source="video")})
    (field,) = stage_graph(settings).own_fields("siglip2")
    assert text_encoder(settings.stages["siglip2"], field).encode(["open"]).shape == (1, 16)
    (video,) = stage_graph(settings).own_fields("vjepa")
    with pytest.raises(ConfigError, match=r"stages\.vjepa\.settings\.model: .* sees images alone"):
        text_encoder(settings.stages["vjepa"], video)
    other = tmp_path / "other"
    other.mkdir()
    save_tower(other, "siglip", seed=1)
    save_tokenizer(other)
    changed = Settings(stages={"siglip2": declared(other)})
    with pytest.raises(ConfigError, match=r"embedding_siglip2 was made with files .*, here is files "):
        text_encoder(changed.stages["siglip2"], field)
    with pytest.raises(ConfigError, match=r"\[stages\.siglip2\]: .* has no network for texts"):
        text_encoder(StageConfig(class_="my_lab.stages:Gripper"), field)
