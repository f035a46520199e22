"""The real classes of transformers on tiny random networks, saved to folders as their authors save theirs."""

from __future__ import annotations

import json
import shutil
import sys

import numpy as np
import pytest

from handloom.errors import ConfigError
from handloom.schemas.towers import TowerSettings

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from support.tiny_towers import KINDS, SIDE, save_tower  # noqa: E402

from handloom.models.embeddings.learned.plan import plan_tower  # noqa: E402
from handloom.models.embeddings.learned.tower import Tower  # noqa: E402


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """{kind: (folder, the model that was saved in it)}, made when asked for."""
    made = {}

    def get(kind: str):
        if kind not in made:
            folder = tmp_path_factory.mktemp(kind)
            made[kind] = (folder, save_tower(folder, kind))
        return made[kind]

    return get


def frames(num: int, height: int = 48, width: int = 80, seed: int = 0):
    return np.random.default_rng(seed).integers(0, 256, (num, height, width, 3), dtype=np.uint8)


def settings(folder, **given):
    return TowerSettings(model=str(folder), **given)


def tower(folder, **given):
    return Tower(plan_tower(settings(folder, **given)))


@pytest.mark.parametrize("kind", KINDS)
def test_a_clips_embedding_has_unit_length_and_the_same_bytes_in_any_batch(folders, kind):
    plan = plan_tower(settings(folders(kind)[0]))
    network = Tower(plan)
    clips = [frames(3, seed=1), frames(20, seed=2), frames(9, 40, 40, seed=3)]
    found = network.embed(clips)
    assert (found.shape, found.dtype) == ((3, plan.dim), np.float32)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)
    for batch in ([2], [1, 0], [2, 1, 0]):
        np.testing.assert_array_equal(network.embed([clips[i] for i in batch]), found[batch])
    np.testing.assert_array_equal(tower(folders(kind)[0]).embed(clips[:1]), found[:1])  # loaded again
    assert found[0] @ found[1] < 0.9999  # and it depends on the frames
    assert network.embed([]).shape == (0, plan.dim)


PROCESSORS = {"siglip": "Siglip", "naflex": "Siglip2", "dinov2": "Bit", "videomae": "VideoMAE", "clip": "CLIP"}


def own_pixels(kind: str, folder, images):
    """What the model's own image processor gives, without torchvision."""
    processor = getattr(transformers, f"{PROCESSORS[kind]}ImageProcessorPil").from_pretrained(folder)
    return processor([list(images)] if kind == "videomae" else list(images), return_tensors="pt")


@pytest.mark.parametrize("kind", PROCESSORS)
def test_it_is_the_models_own_output_on_its_own_preprocessing(folders, kind):
    if not hasattr(transformers, "SiglipImageProcessorPil"):
        pytest.skip(f"transformers {transformers.__version__} has no image processors without torchvision")
    folder, model = folders(kind)
    num = plan_tower(settings(folder)).num_frames
    images = frames(num, 50, 71)
    inputs = own_pixels(kind, folder, images)
    with torch.no_grad():
        if kind == "videomae":
            vector = model.videomae(**inputs).last_hidden_state.mean(1)
        else:
            found = model(**inputs) if kind == "dinov2" else model.get_image_features(**inputs)
            vector = getattr(found, "pooler_output", found)
    vector = (vector / vector.norm(dim=-1, keepdim=True)).mean(0)
    np.testing.assert_allclose(tower(folder).embed([images])[0], (vector / vector.norm()).numpy(), atol=2e-5)


def test_a_classifiers_norm_after_the_mean_is_part_of_the_network(folders):
    folder, model = folders("videomae_classes")
    network = tower(folder)
    images = frames(4)
    pixels = torch.from_numpy(network.plan.preprocessing(images))[None]
    with torch.no_grad():
        vector = model.fc_norm(model.videomae(pixels).last_hidden_state.mean(1))[0]
    np.testing.assert_allclose(network.embed([images])[0], (vector / vector.norm()).numpy(), atol=2e-5)


def test_frames_are_spread_over_the_clip_and_repeat_in_a_short_one(folders):
    network = tower(folders("siglip")[0], frames=4)
    assert network.chosen(40).tolist() == [5, 15, 25, 35]
    assert network.chosen(2).tolist() == [0, 0, 1, 1]
    assert network.chosen(1).tolist() == [0, 0, 0, 0]
    assert tower(folders("vjepa2")[0]).plan.num_frames == 6  # the model's own
    assert tower(folders("siglip")[0]).plan.num_frames == 8


def test_the_whole_image_is_seen_where_the_model_would_cut_the_middle(folders):
    folder = folders("dinov2")[0]
    images = frames(8, 32, 96)
    changed = images.copy()
    changed[:, :, :20] = 0  # at the left side
    cut, whole = tower(folder), tower(folder, fit="whole")
    np.testing.assert_array_equal(cut.embed([images]), cut.embed([changed]))
    assert np.abs(whole.embed([images]) - whole.embed([changed])).max() > 1e-3
    assert cut.plan.preprocessing.short_side_px == 36
    assert whole.plan.preprocessing.size == (SIDE, SIDE)


@pytest.mark.parametrize("kind", ["siglip", "clip", "dinov2", "dinov3", "convnext", "vjepa2"])
def test_another_image_size_is_the_settings_choice(folders, kind):
    folder = folders(kind)[0]
    wider = tower(folder, image_size=64)
    assert wider.plan.preprocessing.size == (64, 64)
    assert np.isfinite(wider.embed([frames(6)])).all()
    with pytest.raises(ConfigError, match="image_size is 50, expected a multiple of"):
        plan_tower(settings(folder, image_size=50))


def test_settings_that_do_not_fit_the_model_are_refused(folders):
    with pytest.raises(ConfigError, match=r"frames is 6, but .* takes 4 frames"):
        plan_tower(settings(folders("videomae")[0], frames=6))
    with pytest.raises(ConfigError, match=r"image_size is 64, but .* takes images of 32"):
        plan_tower(settings(folders("videomae")[0], image_size=64))
    with pytest.raises(ConfigError, match="frames is 5, expected a multiple of 2"):
        plan_tower(settings(folders("vjepa2")[0], frames=5))
    with pytest.raises(ConfigError, match="image_size and fit do not apply to"):
        plan_tower(settings(folders("naflex")[0], fit="whole"))
    with pytest.raises(ConfigError, match="which has no revision 'v2'"):
        plan_tower(settings(folders("siglip")[0], revision="v2"))


def test_the_identity_is_the_weights_and_what_is_done_to_images(folders, tmp_path):
    """A copy elsewhere has the same identity, and what the network does not read does not count."""
    folder = folders("dinov2")[0]
    first = plan_tower(settings(folder)).identity()
    assert {"tower", "weights", "torch", "transformers", "pillow"} == first.keys()
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    (copy / "README.md").write_text("---\nlicense: mit\n---\n")
    (copy / "tokenizer.json").write_text("{}")
    assert plan_tower(settings(copy)).identity() == first
    content = json.loads((copy / "preprocessor_config.json").read_text())
    (copy / "preprocessor_config.json").write_text(json.dumps(content | {"resample": 2}))
    assert plan_tower(settings(copy)).identity() != first
    other = tmp_path / "other"
    other.mkdir()
    save_tower(other, "dinov2", seed=1)
    assert plan_tower(settings(other)).identity() != first


def test_a_hub_model_is_the_commit_in_the_cache_without_a_network(folders, tmp_path, monkeypatch):
    folder = folders("dinov3")[0]
    cache, commits = tmp_path / "hub", {"main": "1" * 40, "v2": "2" * 40}
    repository = cache / "models--somebody--tiny"
    (repository / "refs").mkdir(parents=True)
    for name, commit in commits.items():
        (repository / "refs" / name).write_text(commit)
        shutil.copytree(folder, repository / "snapshots" / commit)
    (repository / "snapshots" / ("2" * 40) / "README.md").write_text("---\nlicense: other\nlicense_name: my-own\n---\n")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    first = plan_tower(TowerSettings(model="somebody/tiny"))
    assert (first.files.weights(), first.licence) == (f"revision {'1' * 40}", "apache-2.0")
    other = plan_tower(TowerSettings(model="somebody/tiny", revision="v2"))
    assert (other.files.revision, other.licence) == ("2" * 40, "my-own")
    assert first.identity() == other.identity() == plan_tower(settings(folder)).identity()  # the same bytes
    np.testing.assert_array_equal(Tower(first).embed([frames(9)]), tower(folder).embed([frames(9)]))
    with pytest.raises(ConfigError, match=r"(?s)model: the model 'somebody/else' cannot be loaded.*hf download"):
        plan_tower(TowerSettings(model="somebody/else"))
    with pytest.raises(ConfigError, match="cannot be loaded"):
        plan_tower(TowerSettings(model="somebody/tiny", revision="v3"))


def test_a_model_that_cannot_be_used_says_so(folders, tmp_path):
    with pytest.raises(ConfigError, match="there is no model at"):
        plan_tower(settings(tmp_path / "absent"))
    with pytest.raises(ConfigError, match=r"has no config\.json and no weights"):
        plan_tower(settings(tmp_path))
    config = transformers.BertConfig(hidden_size=8, num_attention_heads=1, num_hidden_layers=1, intermediate_size=8)
    transformers.BertModel(config).save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match="is of the type bert, expected one of siglip, "):
        plan_tower(settings(tmp_path))
    from safetensors.torch import load_file, save_file

    copy = tmp_path / "copy"
    shutil.copytree(folders("dinov2")[0], copy)
    weights = load_file(copy / "model.safetensors")
    norm = next(name for name in weights if name.endswith("layernorm.weight"))
    save_file({k: v for k, v in weights.items() if k != norm}, copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ConfigError, match=r"lacks weights of Dinov2Model: layernorm\.weight \(1 in all\)"):
        tower(copy)
    save_file({**weights, norm: torch.zeros(3)}, copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ConfigError, match=r"cannot be loaded: size mismatch: layernorm\.weight"):
        tower(copy)
    (copy / "preprocessor_config.json").write_text("{")
    with pytest.raises(ConfigError, match=r"preprocessing of the model .* cannot be read"):
        plan_tower(settings(copy))


def test_without_transformers_it_says_what_to_install(folders, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ConfigError, match=r"(?s)here\.model = .* needs transformers, which is not .*\[models\]"):
        plan_tower(settings(folders("siglip")[0]), "here.")


def test_half_precision_gives_nearly_the_same(folders):
    folder = folders("siglip")[0]
    full, half = (tower(folder, dtype=dtype).embed([frames(9)])[0] for dtype in ("float32", "bfloat16"))
    assert half.dtype == np.float32
    assert full @ half > 0.99


def test_numbers_that_are_not_finite_are_nan_and_not_a_vector(folders):
    network = tower(folders("siglip")[0])
    with torch.no_grad():
        next(network._network.parameters()).fill_(float("inf"))
    assert np.isnan(network.embed([frames(9)])).all()


def test_a_device_that_is_not_there_is_an_error(folders):
    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    with pytest.raises(ConfigError, match="device = 'cuda', but torch sees no CUDA device"):
        tower(folders("siglip")[0], device="cuda")


@pytest.mark.needs_gpu
def test_cuda_agrees_with_the_cpu(folders):
    for kind in ("siglip", "vjepa2"):
        here, there = (tower(folders(kind)[0], device=device).embed([frames(9)]) for device in ("cpu", "cuda"))
        np.testing.assert_allclose(here, there, atol=1e-3)
