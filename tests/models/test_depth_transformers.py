"""The real classes of transformers on a tiny random Depth Anything, saved to a folder as its authors save theirs."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from handloom.errors import ConfigError
from handloom.models.depth.transformers_depth import TransformersDepth, model_identity
from handloom.schemas.clip import Clip
from handloom.schemas.settings import DepthConfig
from handloom.schemas.values import Camera, VideoInfo
from handloom.video.decode.frame_store import FrameStore

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

CLIP = Clip("test:v:0-1000", "test", "v", "v.mp4", 0.0, 1.0)
CAMERA = Camera(np.eye(3), "given")


def save_tiny(folder, kind: str = "metric") -> None:
    torch.manual_seed(0)
    backbone = transformers.Dinov2Config(
        hidden_size=16, num_hidden_layers=4, num_attention_heads=2, image_size=56, patch_size=14,
        out_features=["stage1", "stage2", "stage3", "stage4"], apply_layernorm=True, reshape_hidden_states=False,
    )  # fmt: skip
    config = transformers.DepthAnythingConfig(
        backbone_config=backbone, reassemble_hidden_size=16, neck_hidden_sizes=[8, 8, 8, 8], fusion_hidden_size=8,
        head_hidden_size=8, depth_estimation_type=kind, max_depth=20 if kind == "metric" else None,
    )  # fmt: skip
    model = transformers.DepthAnythingForDepthEstimation(config)
    for weights in model.head.parameters():
        torch.nn.init.normal_(weights, std=0.5)  # as it starts out, the head gives the same depth everywhere
    model.save_pretrained(folder)
    size = {"height": 56, "width": 56}
    transformers.DPTImageProcessor(size=size, keep_aspect_ratio=True, ensure_multiple_of=14).save_pretrained(folder)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    folder = tmp_path_factory.mktemp("metric")
    save_tiny(folder)
    return folder


def frames(num: int = 5) -> FrameStore:
    store = FrameStore(np.arange(num) / 15)
    store.append(np.random.default_rng(0).integers(0, 255, (num, 48, 80, 3)).astype(np.uint8))
    return store


def test_maps_are_metres_of_half_the_working_size_and_the_same_in_any_batch(tiny):
    model = TransformersDepth(DepthConfig(provider="transformers", model=str(tiny)))
    info = VideoInfo(160, 96, 15.0, "h264", "yuv420p", 0, 0.0, 1.0, 5)
    maps = model.maps(CLIP, info, frames(), CAMERA)
    assert maps.depth_m.shape == (5, 24, 40)
    assert (maps.scale, maps.source) == ("metric", f"transformers {tiny}")
    assert np.isfinite(maps.depth_m).all()
    assert maps.depth_m.min() > 0
    assert maps.depth_m.max() <= 20
    assert len(np.unique(maps.depth_m[0])) > 5
    one = model.maps(CLIP, info, frames(1), CAMERA)
    np.testing.assert_allclose(one.depth_m[0], maps.depth_m[0], rtol=2e-3)


def test_a_model_without_metres_is_refused(tmp_path):
    save_tiny(tmp_path, "relative")
    with pytest.raises(ConfigError, match=r"\(depth_anything\) gives relative depth, expected metres"):
        TransformersDepth(DepthConfig(provider="transformers", model=str(tmp_path)))


def test_a_model_that_is_not_there_says_so(tmp_path):
    with pytest.raises(ConfigError, match="cannot be loaded as a folder"):
        TransformersDepth(DepthConfig(provider="transformers", model=str(tmp_path)))


def test_the_identity_is_a_folders_digest_or_a_hub_models_revision(tiny, tmp_path, monkeypatch):
    """The hub's cache has a model under the commit of its main branch; the network is not used."""
    first = model_identity(DepthConfig(provider="transformers", model=str(tiny)))
    copy = tmp_path / "copy"
    shutil.copytree(tiny, copy)
    assert model_identity(DepthConfig(provider="transformers", model=str(copy))) == first
    (copy / "config.json").write_text((copy / "config.json").read_text() + " ")
    assert model_identity(DepthConfig(provider="transformers", model=str(copy))) != first
    cache, commit = tmp_path / "hub", "0123456789abcdef0123456789abcdef01234567"
    repository = cache / "models--somebody--tiny"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(commit)
    shutil.copytree(tiny, repository / "snapshots" / commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    config = DepthConfig(provider="transformers", model="somebody/tiny")
    assert model_identity(config) == f"revision {commit}"
    assert TransformersDepth(config)
    with pytest.raises(ConfigError, match="cannot be loaded as a Hugging Face id"):
        model_identity(DepthConfig(provider="transformers", model="somebody/else"))


def test_a_device_that_is_not_there_is_an_error(tiny):
    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    with pytest.raises(ConfigError, match=r"depth\.device = 'cuda', but torch sees no CUDA device"):
        TransformersDepth(DepthConfig(provider="transformers", model=str(tiny), device="cuda"))
