"""The real classes of transformers on tiny random models, saved to a folder as their authors save theirs."""

from __future__ import annotations

import argparse
import json
import string

import pytest

from handloom.errors import ConfigError

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from handloom.models.hub.encoders import load_image_encoder, load_text_encoder  # noqa: E402

VIT = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}
VIT |= {"image_size": 32, "patch_size": 16}


def save_kind(folder, kind: str):
    torch.manual_seed(0)
    if kind == "vit_mae":
        decoder = {"decoder_hidden_size": 16, "decoder_num_hidden_layers": 1, "decoder_num_attention_heads": 2}
        config = transformers.ViTMAEConfig(**VIT, **decoder, decoder_intermediate_size=16)
        model = transformers.ViTMAEForPreTraining(config)  # as facebook/vit-mae-base lies on the hub
    elif kind == "vit":
        model = transformers.ViTModel(transformers.ViTConfig(**VIT))
    else:
        text = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
        text |= {"vocab_size": 60, "max_position_embeddings": 16}
        text |= {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
        config = transformers.CLIPConfig(text_config=text, vision_config=VIT, projection_dim=24)
        model = transformers.CLIPModel(config)
        letters = [letter + end for letter in string.ascii_lowercase for end in ("", "</w>")]
        words = ["<|startoftext|>", "<|endoftext|>", *letters]
        (folder / "vocab.json").write_text(json.dumps({word: number for number, word in enumerate(words)}))
        (folder / "merges.txt").write_text("#version: 0.2\n")
        transformers.CLIPTokenizer(vocab=str(folder / "vocab.json"), merges=str(folder / "merges.txt")).save_pretrained(
            folder
        )
    with torch.no_grad():
        for weights in model.parameters():
            weights.add_(0.05 * torch.randn_like(weights))
    model.save_pretrained(folder)
    return model.eval()


def save_timm(path, width: int = 64, with_norm: bool = True, **more):
    """A state dict with the keys of CrossMAE's checkpoints."""
    generator = torch.Generator().manual_seed(0)
    shapes = {"cls_token": (1, 1, width), "pos_embed": (1, 5, width)}
    shapes |= {"patch_embed.proj.weight": (width, 3, 16, 16), "patch_embed.proj.bias": (width,)}
    for block in ("blocks.0.", "blocks.1."):
        for name, (out, into) in {
            "attn.qkv": (3 * width, width), "attn.proj": (width, width), "mlp.fc1": (96, width), "mlp.fc2": (width, 96),
        }.items():  # fmt: skip
            shapes |= {f"{block}{name}.weight": (out, into), f"{block}{name}.bias": (out,)}
        for name in ("norm1", "norm2"):
            shapes |= {f"{block}{name}.weight": (width,), f"{block}{name}.bias": (width,)}
    if with_norm:
        shapes |= {"norm.weight": (width,), "norm.bias": (width,)}
    shapes |= {"decoder_pos_embed": (1, 5, 8), "decoder_blocks.0.norm1.weight": (8,)}
    weights = {name: 0.1 * torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    torch.save({"model": weights, "args": argparse.Namespace(epochs=800), **more}, path)
    return weights


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """{kind: (folder, the model that was saved in it)}."""
    made = {}
    for kind in ("vit_mae", "vit", "clip"):
        folder = tmp_path_factory.mktemp(kind)
        made[kind] = (folder, save_kind(folder, kind))
    return made


def images(*size, seed=0):
    return torch.randint(0, 256, (*size, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("kind", ["vit_mae", "vit", "clip"])
def test_published_images_encoders_are_frozen_and_take_any_size(folders, kind):
    encoder = load_image_encoder(str(folders[kind][0])).train()
    assert (encoder.width, encoder.num_tokens, encoder.frozen) == (32, 5, True)
    assert not any(p.requires_grad for p in encoder.parameters())
    assert not any(module.training for module in encoder.modules())
    tokens = encoder(images(3, 40, 56))
    assert tokens.shape == (3, 5, 32)
    assert not tokens.requires_grad
    torch.testing.assert_close(encoder(images(3, 40, 56)[1:2]), tokens[1:2])
    wider = load_image_encoder(str(folders[kind][0]), image_size=48)
    assert wider(images(1, 40, 56)).shape == (1, wider.num_tokens, 32) == (1, 10, 32)


def test_mae_sees_every_patch_in_its_place(folders):
    """transformers shuffles and masks patches; a change of one patch must change that token most, without attention
    layers only that one."""
    folder = folders["vit_mae"][0]
    encoder = load_image_encoder(str(folder))
    layers = next(module for module in encoder.modules() if isinstance(module, torch.nn.ModuleList))
    del layers[:]
    before = images(1, 32, 32)
    after = before.clone()
    after[:, :16, 16:] = 255 - after[:, :16, 16:]
    changed = (encoder(after) - encoder(before)).abs().amax(-1)[0]
    assert (changed > 1e-4).tolist() == [False, False, True, False, False]


def test_clip_images_and_texts_are_the_models_own(folders):
    folder, model = folders["clip"]
    encoder = load_image_encoder(str(folder))
    image = images(2, 32, 32)
    pixels = (image.permute(0, 3, 1, 2) / 255 - encoder.mean) / encoder.std
    with torch.no_grad():
        expected = model.vision_model(pixel_values=pixels).pooler_output
    torch.testing.assert_close(encoder(image)[:, 0], expected)
    texts = load_text_encoder(str(folder))
    found = texts.encode(["cut bread", None, "", "cut bread", "go " * 40])
    assert found.shape == (5, texts.width) == (5, 24)
    assert found.dtype == torch.float32
    assert not found.requires_grad
    assert not found[1:3].any()
    torch.testing.assert_close(found[0], found[3])
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    with torch.no_grad():
        own = model.get_text_features(**tokenizer(["cut bread"], return_tensors="pt"))
    torch.testing.assert_close(found[:1], getattr(own, "pooler_output", own))
    assert abs(found[0].norm() - 1) > 1e-3  # not of unit norm


def test_own_colours_of_the_folder_are_used(folders, tmp_path):
    model = folders["vit"][1]
    model.save_pretrained(tmp_path)
    assert load_image_encoder(str(tmp_path)).mean.flatten().tolist() == [0.5, 0.5, 0.5]
    (tmp_path / "preprocessor_config.json").write_text('{"image_mean": [0.1, 0.2, 0.3], "image_std": [1, 1, 1]}')
    assert load_image_encoder(str(tmp_path)).mean.flatten().tolist() == pytest.approx([0.1, 0.2, 0.3])


def test_crossmae_weights_in_timms_layout(tmp_path):
    """The same numbers as torch's own encoder layers with the same weights under its own names."""
    weights = save_timm(tmp_path / "cross.pth")
    encoder = load_image_encoder(str(tmp_path / "cross.pth"))
    assert (encoder.width, encoder.num_tokens, encoder.image_size) == (64, 5, 32)
    image = images(2, 32, 32)
    pixels = (image.permute(0, 3, 1, 2) / 255 - encoder.mean) / encoder.std
    patches = pixels.unfold(2, 16, 16).unfold(3, 16, 16).permute(0, 2, 3, 1, 4, 5).flatten(3).flatten(1, 2)
    tokens = patches @ weights["patch_embed.proj.weight"].flatten(1).T + weights["patch_embed.proj.bias"]
    tokens = torch.cat([weights["cls_token"].expand(2, -1, -1), tokens], dim=1) + weights["pos_embed"]
    for block in ("blocks.0.", "blocks.1."):
        tokens = _theirs({n.removeprefix(block): v for n, v in weights.items() if n.startswith(block)})(tokens)
    expected = torch.nn.functional.layer_norm(tokens, (64,), weights["norm.weight"], weights["norm.bias"], 1e-6)
    torch.testing.assert_close(encoder(image), expected.detach(), rtol=1e-4, atol=1e-4)
    assert load_image_encoder(str(tmp_path / "cross.pth"), image_size=48)(image).shape == (2, 10, 64)


def _theirs(weights):
    table = {"attn.qkv.": "self_attn.in_proj_", "attn.proj.": "self_attn.out_proj.", "mlp.fc1.": "linear1."}
    table |= {"mlp.fc2.": "linear2.", "norm1.": "norm1.", "norm2.": "norm2."}
    options = {"activation": "gelu", "layer_norm_eps": 1e-6, "batch_first": True, "norm_first": True}
    layer = torch.nn.TransformerEncoderLayer(64, 1, 96, **options).eval()
    layer.load_state_dict({new + name.removeprefix(old): value for name, value in weights.items()
                           for old, new in table.items() if name.startswith(old)})  # fmt: skip
    return layer


def test_timm_weights_that_do_not_fit_are_refused(tmp_path):
    path = tmp_path / "vit.pth"
    weights = save_timm(path, with_norm=False)
    assert isinstance(load_image_encoder(str(path)).network.layernorm, torch.nn.Identity)
    torch.save({k: v for k, v in weights.items() if k != "cls_token"}, path)
    with pytest.raises(ConfigError, match="no plain ViT in timm's key layout: it lacks cls_token"):
        load_image_encoder(str(path))
    torch.save({k: v for k, v in weights.items() if k != "blocks.1.mlp.fc2.bias"}, path)
    with pytest.raises(ConfigError, match=r"vit\.pth lacks weights of ViTModel: .*1\..*bias \(1 in all\)"):
        load_image_encoder(str(path))
    torch.save(weights | {"blocks.1.norm1.bias": torch.zeros(3)}, path)
    with pytest.raises(ConfigError, match=r"vit\.pth cannot be loaded: .*mismatch"):
        load_image_encoder(str(path))
    (tmp_path / "bad.pth").write_bytes(b"no weights at all")
    with pytest.raises(ConfigError, match=r"bad\.pth cannot be read as weights"):
        load_image_encoder(str(tmp_path / "bad.pth"))


def test_a_model_that_is_not_available_says_how_to_get_it(folders, tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match="no model is named"):
        load_image_encoder(" ")
    with pytest.raises(ConfigError, match="there is no model at"):
        load_text_encoder(str(tmp_path / "absent"))
    with pytest.raises(ConfigError, match="image_size is 40, expected a multiple of 16"):
        load_image_encoder(str(folders["vit"][0]), image_size=40)
    with pytest.raises(ConfigError, match="of the type vit, expected one of clip"):
        load_text_encoder(str(folders["vit"][0]))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(
        ConfigError, match=r"(?s)cannot be loaded.*huggingface-cli download nobody/nothing.*kind = small"
    ):
        load_image_encoder("nobody/nothing")


def test_a_folder_that_lacks_weights_is_refused(tmp_path):
    """transformers would initialise them at random, and only log it."""
    from safetensors.torch import load_file, save_file

    save_kind(tmp_path, "vit")
    weights = load_file(tmp_path / "model.safetensors")
    weights.pop(next(name for name in weights if "layernorm.weight" in name))
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ConfigError, match=r"lacks weights of ViTModel: layernorm\.weight \(1 in all\)"):
        load_image_encoder(str(tmp_path))


@pytest.fixture
def bucket(monkeypatch):
    moto = pytest.importorskip("moto.server")
    boto3 = pytest.importorskip("boto3")
    import s3fs

    server = moto.ThreadedMotoServer(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    for name, value in {
        "AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing", "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    client = boto3.client("s3")
    client.create_bucket(Bucket="models")
    s3fs.S3FileSystem.clear_instance_cache()
    yield client
    s3fs.S3FileSystem.clear_instance_cache()
    server.stop()


def test_a_model_on_s3_is_loaded(folders, bucket, tmp_path):
    folder = folders["vit"][0]
    for file in folder.iterdir():
        bucket.upload_file(str(file), "models", f"tiny/{file.name}")
    cache = tmp_path / "cache"
    found = load_image_encoder("s3://models/tiny", cache=str(cache))
    torch.testing.assert_close(found(images(1, 32, 32)), load_image_encoder(str(folder))(images(1, 32, 32)))
    save_timm(tmp_path / "cross.pth")
    bucket.upload_file(str(tmp_path / "cross.pth"), "models", "cross.pth")
    assert load_image_encoder("s3://models/cross.pth", cache=str(cache)).width == 64
