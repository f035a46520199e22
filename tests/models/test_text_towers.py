"""Learned encoders of texts: the real classes of transformers on tiny random networks."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from handloom.errors import ConfigError
from handloom.schemas.towers import TextTowerSettings

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from support.tiny_texts import save_letters, save_sentences, save_tokenizer  # noqa: E402
from support.tiny_towers import save_tower  # noqa: E402

from handloom.models.language.plan import plan_texts  # noqa: E402
from handloom.models.language.tower import TextTower  # noqa: E402

KINDS = {"siglip": 16, "naflex": 16, "clip": 12, "sentences": 16}
TEXTS = ["open the door", "Close the drawer", "cut", "push the box push the box push the box"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """{kind: (folder, the model that was saved in it)}, made when asked for."""
    made = {}

    def get(kind: str):
        if kind not in made:
            folder = tmp_path_factory.mktemp(kind)
            model = save_sentences(folder) if kind == "sentences" else save_tower(folder, kind)
            save_letters(folder) if kind == "naflex" else save_tokenizer(folder)
            made[kind] = (folder, model)
        return made[kind]

    return get


def tower(folder, **given) -> TextTower:
    return TextTower(plan_texts(TextTowerSettings(model=str(folder), **given)))


@pytest.mark.parametrize("kind", KINDS)
def test_texts_have_unit_length_and_the_same_bytes_in_any_batch(folders, kind):
    network = tower(folders(kind)[0])
    found = network.encode(TEXTS)
    assert (found.shape, found.dtype) == ((len(TEXTS), KINDS[kind]), np.float32)
    assert network.dim == KINDS[kind]
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)
    np.testing.assert_array_equal(network.encode(TEXTS[::-1])[::-1], found)
    np.testing.assert_array_equal(tower(folders(kind)[0]).encode(TEXTS[:1]), found[:1])  # loaded again
    assert found[0] @ found[1] < 0.9999
    assert network.encode([]).shape == (0, KINDS[kind])
    with pytest.raises(ConfigError, match="an empty text has no embedding"):
        network.encode([" "])


@pytest.mark.parametrize("kind", ["siglip", "clip"])
def test_it_is_the_models_own_vector_of_a_text(folders, kind):
    folder, model = folders(kind)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    length = model.config.text_config.max_position_embeddings
    fills = {"padding": "max_length", "max_length": length} if kind == "siglip" else {}
    given = tokenizer(["open the door"], return_tensors="pt", **fills)
    if kind == "siglip":
        del given["attention_mask"]
    given.pop("token_type_ids", None)
    with torch.no_grad():
        own = model.get_text_features(**given)
    own = getattr(own, "pooler_output", own)[0]
    np.testing.assert_allclose(tower(folder).encode(["open the door"])[0], (own / own.norm()).numpy(), atol=1e-6)


def test_siglip_sees_small_letters(folders):
    network = tower(folders("siglip")[0])
    np.testing.assert_array_equal(network.encode(["OPEN the Door"]), network.encode(["open the door"]))


def test_a_sentence_encoder_pools_as_its_files_say(folders, tmp_path):
    folder, model = folders("sentences")
    given = transformers.AutoTokenizer.from_pretrained(folder)(["push the box"], return_tensors="pt")
    with torch.no_grad():
        tokens = model(given["input_ids"], given["attention_mask"]).last_hidden_state[0]
    found = tower(folder).encode(["push the box"])[0]
    np.testing.assert_allclose(found, (tokens.mean(0) / tokens.mean(0).norm()).numpy(), atol=1e-6)
    save_sentences(tmp_path, "cls_token")
    np.testing.assert_allclose(
        tower(tmp_path).encode(["push the box"])[0], (tokens[0] / tokens[0].norm()).numpy(), atol=1e-6
    )
    shutil.rmtree(tmp_path / "1_Pooling")
    np.testing.assert_array_equal(tower(tmp_path).encode(["push the box"])[0], found)  # the mean
    save_sentences(tmp_path, "max_tokens")
    with pytest.raises(ConfigError, match=r"pools its tokens by pooling_mode_max_tokens"):
        tower(tmp_path)


def test_long_texts_are_cut_where_the_authors_say_and_a_prefix_is_put_before(folders):
    folder = folders("sentences")[0]
    network = tower(folder)
    assert network.plan.num_tokens == 8
    six = "push the box push the box"
    np.testing.assert_array_equal(network.encode([six]), network.encode([f"{six} open the door"]))
    np.testing.assert_array_equal(tower(folder, prefix="open ").encode(["box"]), network.encode(["open box"]))


def test_the_identity_is_the_weights_and_the_tokens(folders, tmp_path):
    folder = folders("sentences")[0]
    first = plan_texts(TextTowerSettings(model=str(folder)))
    assert {"text_tower", "weights", "tokens", "torch", "transformers", "tokenizers"} == first.identity().keys()
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    (copy / "README.md").write_text("---\nlicense: mit\n---\n")
    second = plan_texts(TextTowerSettings(model=str(copy)))
    assert (second.identity(), second.licence, first.licence) == (first.identity(), "mit", None)
    content = json.loads((copy / "tokenizer.json").read_text())
    content["model"]["vocab"]["shove"] = content["model"]["vocab"].pop("push")
    (copy / "tokenizer.json").write_text(json.dumps(content))
    assert plan_texts(TextTowerSettings(model=str(copy))).identity() != first.identity()


def test_a_model_that_cannot_be_used_says_so(folders, tmp_path):
    save_tower(tmp_path, "dinov2")
    with pytest.raises(ConfigError, match=r"(?s)of the type dinov2, which sees images alone.*take SigLIP 2 or CLIP"):
        plan_texts(TextTowerSettings(model=str(tmp_path)))
    with pytest.raises(ConfigError, match="there is no model at"):
        plan_texts(TextTowerSettings(model=str(tmp_path / "absent")))
    copy = tmp_path / "copy"
    shutil.copytree(folders("clip")[0], copy)
    for path in copy.glob("token*.json"):
        path.unlink()
    with pytest.raises(ConfigError, match=r"has no tokenizer \(tokenizer\.json, "):
        tower(copy)
    network = tower(folders("clip")[0])
    with torch.no_grad():
        network._network.text_projection.weight.fill_(float("nan"))
    with pytest.raises(ConfigError, match="numbers that are not finite"):
        network.encode(["cut"])
