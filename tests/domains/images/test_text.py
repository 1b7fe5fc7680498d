"""Images asked by text: which tokens a model is told, what a null says, and which texts are refused."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from sciffusion.domains.images import (
    DataConfig,
    ImageModel,
    Images,
    ImageTask,
    ImageTraining,
    MMDiTConfig,
    ModelConfig,
    PatchesConfig,
    TextConfig,
    UNetConfig,
)
from sciffusion.domains.images.captions import OwnTexts
from sciffusion.domains.images.networks import Network
from sciffusion.domains.images.spelling import ALPHABET, SpellingEncoder
from sciffusion.text import StaticEncoder
from sciffusion.training import TrainConfig
from tests.domains.images.small import bars

for package in ("wordllama", "tokenizers"):
    pytest.importorskip(package)

NETWORKS: dict[str, Network] = {
    "unet": UNetConfig(
        widths=(8, 16), blocks=1, attention=(False, True), head_width=8, embedding=8
    ),
    "patches": PatchesConfig(patch=2, width=16, depth=1, heads=2, embedding=8),
    "mmdit": MMDiTConfig(patch=2, width=16, double=1, single=1, heads=2, embedding=8),
}
TEXTS = ("a bar down", "a bar across")


def told() -> Images:
    images = bars(8)
    texts = [TEXTS[label == "across"] for label in images.labels["label"]]
    return images.labelled(text=texts)


def settings(network: str) -> ImageTraining:
    model = ModelConfig(network=NETWORKS[network], attributes=(), text=TextConfig())
    return ImageTraining(
        model=model,
        data=DataConfig(captions="text"),
        train=TrainConfig(steps=2, batch_size=4),
    )


def shaken(network: str) -> ImageModel:
    """A model of texts with random weights, no output of which is zero."""
    torch.manual_seed(0)
    task = ImageTask(settings(network), told())
    denoiser, g = task.model(), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in denoiser.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=g))
    return ImageModel(task.config.model, denoiser.eval(), task.codec)


@pytest.fixture(scope="module")
def models() -> dict[str, ImageModel]:
    return {name: shaken(name) for name in NETWORKS}


@pytest.fixture(params=list(NETWORKS))
def model(request: pytest.FixtureRequest, models: dict[str, ImageModel]) -> ImageModel:
    return models[request.param]


def test_an_image_depends_on_its_own_text_alone(model: ImageModel) -> None:
    texts = [TEXTS[0], "a very long text of many words that say nothing of it", None]
    both = model.sample(3, given={"text": texts}, steps=2, guidance=1.5, progress=False)
    alone = model.sample(1, given={"text": TEXTS[0]}, steps=2, guidance=1.5, progress=False)
    torch.testing.assert_close(both.pixels[:1], alone.pixels, atol=1e-5, rtol=0)
    assert both.labels["text"].tolist() == [TEXTS[0], texts[1], ""]
    assert model.attributes == ("text",)


def test_the_order_of_words_is_told(model: ImageModel) -> None:
    a, b = (
        model.sample(1, given={"text": text}, steps=1, guidance=1.0, progress=False)
        for text in ("red square left of blue circle", "blue circle left of red square")
    )
    assert not torch.allclose(a.pixels, b.pixels, atol=1e-5)


def test_guidance_leaves_what_has_no_text_alone(model: ImageModel) -> None:
    plain, strong = (
        model.sample(2, given={"text": [None, TEXTS[0]]}, steps=2, guidance=g, progress=False)
        for g in (1.0, 3.0)
    )
    torch.testing.assert_close(plain.pixels[:1], strong.pixels[:1], atol=1e-5, rtol=0)
    assert not torch.allclose(plain.pixels[1:], strong.pixels[1:], atol=1e-4)


def test_tokens_that_do_not_count_change_nothing(model: ImageModel) -> None:
    cond = model.condition({"text": TEXTS[0]}, 1)
    x = torch.randn(1, *model.config.shape(model.config.size))
    more = {
        "text": torch.cat((cond["text"], torch.full((1, 3, cond["text"].shape[2]), 1e3)), 1),
        "text_mask": torch.cat((cond["text_mask"], torch.zeros(1, 3).bool()), 1),
    }
    t = torch.tensor([0.5])
    with torch.no_grad():
        a, b = (model.denoiser(x, t, c).x0 for c in (cond, more))
    torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)
    nothing = model.condition({}, 1)
    dropped = {"text": cond["text"], "text_mask": torch.zeros_like(cond["text_mask"])}
    with torch.no_grad():
        a, b = (model.denoiser(x, t, c).x0 for c in (nothing, dropped))
    torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("word " * 80, "wordllama takes 1 to 64"),
        (" ", "text must hold words, got ' '; None says nothing"),
        (["one", "two"], "text has 2 values for 3 images"),
        ([1, 2, 3], "text must hold words, got 1"),
        (7, "text must be a text, or one for each image, got 7"),
    ],
)
def test_texts_that_cannot_be_read_are_refused(
    models: dict[str, ImageModel], text: object, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        models["patches"].sample(3, given={"text": text}, steps=1)


def test_a_model_of_texts_says_that_it_knows_no_other_attribute(
    models: dict[str, ImageModel],
) -> None:
    with pytest.raises(
        ValueError, match="given names 'texts', but this model knows text. Did you mean 'text'?"
    ):
        models["patches"].sample(1, given={"texts": "a bar"}, steps=1)


def test_a_model_without_texts_knows_none() -> None:
    config = ModelConfig(network=NETWORKS["patches"], size=(6, 6), classes=(("a",),))
    model = ImageModel(config, config.denoiser(), config.codec_module())
    with pytest.raises(ValueError, match="given names 'text', but this model knows label"):
        model.sample(1, given={"text": "a bar"}, steps=1)
    with pytest.raises(ValueError, match="an MM-DiT reads texts, but the model has none"):
        ModelConfig(network=NETWORKS["mmdit"], classes=(("a",),)).denoiser()
    with pytest.raises(ValueError, match="attributes must not be called"):
        ModelConfig(attributes=("text",))


def test_captions_and_a_model_of_texts_need_each_other() -> None:
    config = settings("patches")
    with pytest.raises(ValueError, match="a model of texts needs both, any other neither"):
        ImageTask(replace(config, data=DataConfig()), told())
    with pytest.raises(ValueError, match="the images lack text"):
        ImageTask(config, bars(8))
    with pytest.raises(ValueError, match="the images lack word, colour"):
        ImageTask(replace(config, data=DataConfig(captions="glyphs")), told())


def test_a_batch_is_told_the_texts_of_its_images() -> None:
    task = ImageTask(settings("patches"), told())
    _, cond = task.batch(np.array([3, 0]), 5, torch.device("cpu"))
    text = task.config.model.text
    assert text is not None and text.width == 256 and text.fingerprint
    wanted = text.condition([task.images.labels["text"][i] for i in (3, 0)], 2)
    for name, value in wanted.items():
        assert torch.equal(cond[name], value)
    assert OwnTexts().texts(task.images[:1], 0, 1.0) == [task.images.labels["text"][0]]


def test_another_encoder_than_in_training_is_refused(
    models: dict[str, ImageModel], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = models["mmdit"].save(tmp_path_factory.mktemp("model") / "model.safetensors")
    again = ImageModel.from_file(path)
    assert again.config == models["mmdit"].config and again.config.text is not None
    other = replace(again.config.text, fingerprint="0" * 16)
    with pytest.raises(ValueError, match="trained with another encoder of texts"):
        other.condition("a bar", 1)
    with pytest.raises(ValueError, match="has no width yet"):
        ModelConfig(network=NETWORKS["mmdit"], attributes=(), text=TextConfig()).denoiser()


def words() -> StaticEncoder:
    """A vector for every letter of the alphabet, words being what lies between blanks."""
    table = torch.randn(40, 12, generator=torch.Generator().manual_seed(0))
    return StaticEncoder(table, lambda text: [len(w) for w in text.split()], "lengths")


def test_quoted_letters_follow_the_words_each_with_its_places() -> None:
    encoder = SpellingEncoder(words(), places=5)
    tokens, mask = encoder.encode(['say "cat" now', "say nothing"])
    plain, _ = words().encode(['say "cat" now'])
    assert mask.sum(1).tolist() == [6, 2]
    assert torch.equal(tokens[0, :3, :12], plain[0]) and not tokens[0, :3, 12:].any()
    for i, letter in enumerate("cat"):
        features = tokens[0, 3 + i].nonzero()[:, 0] - 12
        n = len(ALPHABET)
        assert features.tolist() == [ALPHABET.index(letter), n + i, n + 5 + 2 - i]
    # both kinds of tokens have one norm
    torch.testing.assert_close(tokens[0, 3].square().sum(), torch.tensor(12.0))


def test_words_differ_in_their_letters_alone() -> None:
    encoder = SpellingEncoder(words(), places=5)
    tokens, _ = encoder.encode(['"cat"', '"act"', '"tac"'])
    assert torch.equal(tokens[0, 0], tokens[1, 0])  # this encoder knows the length alone
    assert not torch.equal(tokens[0, 1:], tokens[1, 1:])
    assert len({encoder.fingerprint, SpellingEncoder(words(), 4).fingerprint}) == 2


def test_what_cannot_be_spelled_is_refused() -> None:
    encoder = SpellingEncoder(words(), places=5)
    with pytest.raises(ValueError, match="up to 5 letters, got 6: 'abcdef'"):
        encoder.encode(['"abcdef"'])
    with pytest.raises(ValueError, match="'é' of 'café' cannot be spelled: use ASCII"):
        encoder.encode(['"café"'])
    with pytest.raises(ValueError, match="places must be at least 1"):
        SpellingEncoder(words(), 0)


@pytest.mark.parametrize("network", ["unet", "patches"])
def test_an_untrained_control_leaves_a_model_of_texts_as_it_is(
    models: dict[str, ImageModel], network: str
) -> None:
    base = models[network]
    given = {"text": TEXTS[0]}
    plain = base.sample(2, given=given, steps=2, progress=False)
    steered = base.controlled().sample(
        2, given={**given, "edges": bars(2)}, steps=2, progress=False
    )
    assert torch.equal(plain.pixels, steered.pixels)


def test_only_networks_of_one_stream_are_controlled(models: dict[str, ImageModel]) -> None:
    with pytest.raises(ValueError, match="can be controlled"):
        models["mmdit"].controlled()
