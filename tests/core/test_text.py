"""Encoders of texts: what a text's tokens depend on, and what is refused."""

from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from sciffusion.mended import mend_torchaudio
from sciffusion.text import StaticEncoder, TextEncoder, TransformersEncoder, wordllama

TEXTS = ["a low voice says seven", "nine", "someone says two"]


def letters(longest: int = 30) -> StaticEncoder:
    """A vocabulary of bytes."""
    table = torch.randn(256, 8, generator=torch.Generator().manual_seed(0))
    return StaticEncoder(table, lambda text: list(text.encode()), "letters", longest)


def packaged() -> TextEncoder:
    for package in ("tokenizers", "wordllama"):  # the latter is read, not imported
        if find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    return wordllama()


@pytest.fixture(params=["letters", "wordllama"])
def encoder(request: pytest.FixtureRequest) -> TextEncoder:
    return letters() if request.param == "letters" else packaged()


def test_tokens_are_those_of_the_text_alone_and_zero_beyond_it(encoder: TextEncoder) -> None:
    tokens, mask = encoder.encode(TEXTS)
    assert tokens.dtype == torch.float32 and tokens.shape[2] == encoder.width
    for i, text in enumerate(TEXTS):
        alone, whole = encoder.encode([text])
        assert bool(whole.all()) and int(mask[i].sum()) == alone.shape[1]
        assert torch.equal(tokens[i][mask[i]], alone[0])
    assert not tokens[~mask].any()


def test_the_same_weights_make_the_same_tokens_and_fingerprint(encoder: TextEncoder) -> None:
    again = letters() if encoder.name == "letters" else wordllama()
    assert torch.equal(encoder.encode(TEXTS)[0], again.encode(TEXTS)[0])
    assert encoder.fingerprint == again.fingerprint
    other = StaticEncoder(torch.ones(256, 8), lambda text: list(text.encode()), "letters")
    assert encoder.fingerprint != other.fingerprint


def test_a_table_is_scaled_to_a_mean_square_of_one() -> None:
    table = letters().table
    twice = StaticEncoder(2 * table, lambda text: list(text.encode()), "twice")
    assert float(table.square().mean()) == pytest.approx(1.0, rel=1e-5)
    assert torch.allclose(twice.table, table)


def test_words_of_like_meaning_are_nearer_than_others() -> None:
    encoder = packaged()
    vectors = {w: encoder.encode([w])[0][0].mean(0) for w in ("loud", "noisy", "seven")}
    near = torch.cosine_similarity(vectors["loud"], vectors["noisy"], dim=0)
    far = torch.cosine_similarity(vectors["loud"], vectors["seven"], dim=0)
    assert near > far


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ([], "texts is empty"),
        ("seven", "put it in a list"),
        (["one", "  "], r"texts\[1\] is empty"),
        (["one", 2], r"texts\[1\] must be a text, got int"),
        (["x" * 31], r"texts\[0\] has 31 tokens, but letters takes 1 to 30"),
    ],
)
def test_what_is_no_text_is_refused(texts: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        letters().encode(texts)


def test_a_table_of_zeros_is_refused() -> None:
    with pytest.raises(ValueError, match="table must be"):
        StaticEncoder(torch.zeros(3, 2), lambda text: [0], "zeros")


def test_a_language_model_is_read_from_its_folder_each_text_by_itself(tmp_path: Path) -> None:
    mend_torchaudio()  # a broken one would stop transformers
    transformers = pytest.importorskip("transformers")
    words = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        *sorted({w for t in TEXTS for w in t.split()}),
    ]
    (tmp_path / "vocab.txt").write_text("\n".join(words))
    transformers.BertTokenizerFast(str(tmp_path / "vocab.txt")).save_pretrained(tmp_path)
    small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = transformers.BertConfig(vocab_size=len(words), intermediate_size=16, **small)
    transformers.BertModel(config).save_pretrained(tmp_path)
    encoder = TransformersEncoder(tmp_path, longest=8)
    tokens, mask = encoder.encode(TEXTS)
    assert tokens.shape == (3, 7, 16) and mask.sum(1).tolist() == [7, 3, 5]
    assert torch.equal(tokens[1, :3], encoder.encode(TEXTS[1:2])[0][0])
    whole = encoder.fingerprint
    encoder._model.bfloat16()  # as many models are stored
    assert encoder.fingerprint != whole
    with pytest.raises(ValueError, match="takes 1 to 8"):
        encoder.encode(["nine " * 20])
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        TransformersEncoder(tmp_path / "absent")
