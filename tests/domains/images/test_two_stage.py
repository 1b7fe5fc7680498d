"""Two stages: vectors shared by images and texts, a prior of them, and a decoder that is told one."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from sciffusion.domains.images import (
    DataConfig,
    Embedder,
    EmbedderConfig,
    EmbedderTask,
    EmbedderTraining,
    ImageModel,
    Images,
    ImageTask,
    ImageTraining,
    ModelConfig,
    PatchesConfig,
    Prior,
    PriorConfig,
    PriorTask,
    PriorTraining,
    TwoStage,
    recipe,
    train,
)
from sciffusion.training import TrainConfig
from tests.domains.images.small import bars

for package in ("wordllama", "tokenizers"):
    pytest.importorskip(package)

TEXTS = {"down": "a bar that runs down", "across": "a bar that lies across"}
DATA = DataConfig(captions="text")


def told(n: int, seed: int = 0) -> Images:
    images = bars(n, seed=seed)
    return images.labelled(text=[TEXTS[label] for label in images.labels["label"]])


def shaken(module: torch.nn.Module, seed: int = 0) -> None:
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in module.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=g))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An embedder of bars, trained for seconds."""
    config = EmbedderTraining(
        model=EmbedderConfig(widths=(8, 16), features=6, width=16, depth=1),
        data=DATA,
        train=TrainConfig(steps=60, batch_size=8, lr=5e-3, warmup=2),
    )
    path = tmp_path_factory.mktemp("embedder")
    made, _ = train(config, path, told(64), told(32, 1))
    assert isinstance(made, Embedder) and 0 < made.info["accuracy"] <= 1
    return path


@pytest.fixture(scope="module")
def embedder(folder: Path) -> Embedder:
    return Embedder.load(folder / "model.safetensors")


@pytest.fixture(scope="module")
def two(embedder: Embedder, folder: Path) -> TwoStage:
    """Two stages with random weights."""
    task = PriorTask(_prior(folder), told(16))
    shaken(denoiser := task.model())
    prior = task.finished(denoiser.state_dict(), {})
    decoder = ImageTask(_decoder(folder), told(16))
    shaken(net := decoder.model())
    return TwoStage(embedder, prior, ImageModel.from_training(decoder, net.state_dict()))


def _prior(folder: Path, steps: int = 2) -> PriorTraining:
    return PriorTraining(
        embedder=folder / "model.safetensors",
        model=PriorConfig(width=16, depth=1, heads=2, embedding=8),
        data=DATA,
        train=TrainConfig(steps=steps, batch_size=16, lr=5e-3, warmup=2),
    )


def _decoder(folder: Path) -> ImageTraining:
    network = PatchesConfig(patch=2, width=16, depth=1, heads=2, embedding=8)
    return ImageTraining(
        embedder=folder / "model.safetensors",
        model=ModelConfig(network=network, attributes=()),
        train=TrainConfig(steps=2, batch_size=4),
    )


def test_images_lie_nearer_to_their_own_text(embedder: Embedder) -> None:
    images = told(32, seed=5)
    seen = embedder.embed(images)
    own = (seen * embedder.embed_texts(images.labels["text"].tolist())).sum(1)
    swapped = [TEXTS["down" if t == TEXTS["across"] else "across"] for t in images.labels["text"]]
    other = (seen * embedder.embed_texts(swapped)).sum(1)
    assert float((own > other).double().mean()) > 0.9


def test_vectors_have_length_one_and_padding_does_not_act(embedder: Embedder) -> None:
    texts = [TEXTS["down"], "a text that goes on much longer than the other one does"]
    found = embedder.embed_texts(texts)
    for vectors in (found, embedder.embed(told(3))):
        torch.testing.assert_close(vectors.norm(dim=1), torch.ones(len(vectors)))
    torch.testing.assert_close(found[:1], embedder.embed_texts(texts[:1]), atol=1e-5, rtol=0)
    scrambled = embedder.embed_texts(["down runs that bar a"])
    assert not torch.allclose(found[:1], scrambled, atol=5e-5)


def test_references_are_standardised_and_undone(embedder: Embedder) -> None:
    vectors = embedder.embed(told(64))
    references = embedder.references(vectors)
    torch.testing.assert_close(references.mean(0), torch.zeros(6), atol=0.02, rtol=0)
    torch.testing.assert_close(references.std(0), torch.ones(6), atol=0.02, rtol=0)
    torch.testing.assert_close(embedder.vectors(references), vectors, atol=1e-5, rtol=0)


def test_the_loss_of_pairs_is_that_of_a_hand_count() -> None:
    config = EmbedderTraining(
        model=EmbedderConfig(widths=(8, 16), features=4, width=16, depth=1), data=DATA
    )
    task = EmbedderTask(config, told(8))
    torch.manual_seed(0)
    model = task.model()
    batch = task.batch(np.arange(4), 0, torch.device("cpu"))
    with torch.no_grad():
        u, v = model.see(batch[0]), model.read(*batch[1:])
        scores = (model.scale.exp() * u @ v.mT).double()
        wanted = 0.0
        for i in range(4):
            for row in (scores[i], scores[:, i]):
                wanted -= float(row[i] - row.exp().sum().log()) / 8
        loss = float(task.loss(model, batch, 0).mean)
    assert loss == pytest.approx(wanted, rel=1e-4)


def test_a_vector_depends_on_its_own_text_and_seed(two: TwoStage) -> None:
    texts = [TEXTS["down"], "something much longer than that of the first", None]
    three = two.prior.sample(3, texts, seed=4, steps=3)
    one = two.prior.sample(1, TEXTS["down"], seed=4, steps=3)
    assert three.shape == (3, 6)
    torch.testing.assert_close(three[:1], one, atol=1e-5, rtol=0)
    other = two.prior.sample(1, TEXTS["across"], seed=4, steps=3)
    assert not torch.allclose(one, other, atol=1e-3)
    with pytest.raises(ValueError, match="n must be at least 1"):
        two.prior.sample(0, TEXTS["down"])


def test_a_trained_prior_makes_the_vectors_of_its_text(folder: Path, embedder: Embedder) -> None:
    images = told(64)
    prior, _ = train(_prior(folder, 150), folder.parent / "prior", images)
    assert isinstance(prior, Prior)
    made = embedder.vectors(prior.sample(16, TEXTS["down"], guidance=1.0, steps=8))
    means = {
        k: torch.nn.functional.normalize(
            embedder.embed(images[images.labels["label"] == k]).mean(0), dim=0
        )
        for k in TEXTS
    }
    nearer = (made @ means["down"]) > (made @ means["across"])
    assert float(nearer.double().mean()) > 0.85


def test_the_decoder_draws_what_the_vector_says(two: TwoStage) -> None:
    vectors = two.prior.sample(2, TEXTS["down"], seed=1, steps=2)
    both = two.decode(vectors, seed=3, steps=2)
    first = two.decode(vectors[:1], seed=3, steps=2)
    torch.testing.assert_close(both.pixels[:1], first.pixels, atol=1e-5, rtol=0)
    other = two.decode(-vectors[:1], seed=3, steps=2)
    assert not torch.allclose(first.pixels, other.pixels, atol=1e-4)
    made = two.sample(2, TEXTS["down"], seed=1, steps=2)
    again = two.decode(two.prior.sample(2, TEXTS["down"], seed=1), seed=2, steps=2)
    assert torch.equal(made.pixels, again.pixels)


def test_variations_are_images_of_one_vector(two: TwoStage) -> None:
    images = told(2)
    made = two.variations(images, 3, seed=2, steps=2)
    assert len(made) == 6
    found = two.embedder.references(two.embedder.embed(images))
    again = two.decode(found[[0, 0, 0, 1, 1, 1]], seed=2, steps=2)
    assert torch.equal(made.pixels, again.pixels)
    with pytest.raises(ValueError, match="n must be at least 1"):
        two.variations(images, 0)
    with pytest.raises(ValueError, match="this embedder knows images of 6 x 6"):
        two.variations(bars(2, size=8))


def test_a_batch_of_the_decoder_is_told_its_images_vectors(
    folder: Path, embedder: Embedder
) -> None:
    images = told(16)
    task = ImageTask(_decoder(folder), images)
    _, cond = task.batch(np.array([5, 2]), 0, torch.device("cpu"))
    wanted = embedder.references(embedder.embed(images))[[5, 2]]
    torch.testing.assert_close(cond["reference"], wanted)
    plain = replace(_decoder(folder), embedder=None, model=ModelConfig(attributes=(), reference=6))
    with pytest.raises(ValueError, match="images need a label 'reference'"):
        ImageTask(plain, images)


def test_parts_that_do_not_fit_are_refused(two: TwoStage, folder: Path, tmp_path: Path) -> None:
    narrow = replace(two.prior, config=replace(two.prior.config, features=5))
    with pytest.raises(ValueError, match="embedder 6, prior 5, decoder 6"):
        TwoStage(two.embedder, narrow, two.decoder)
    with pytest.raises(ValueError, match=r"reference must be \(6,\) or \(2, 6\)"):
        two.decode(torch.zeros(2, 5))
    with pytest.raises(ValueError, match="embedder is missing"):
        PriorTask(replace(_prior(folder), embedder=None), told(4))
    with pytest.raises(ValueError, match="an embedder learns from images and texts"):
        EmbedderTask(EmbedderTraining(data=DataConfig()), told(4))
    with pytest.raises(ValueError, match="a prior learns from images and texts"):
        PriorTask(replace(_prior(folder), data=DataConfig()), told(4))
    with pytest.raises(ValueError, match="not a prior of embeddings of images"):
        Prior.from_file(folder / "model.safetensors")


def test_a_prior_comes_back_from_its_file(two: TwoStage, tmp_path: Path) -> None:
    again = Prior.from_file(two.prior.save(tmp_path / "prior.safetensors"))
    assert again.config == two.prior.config and again.sampling == two.prior.sampling
    a, b = (p.sample(2, TEXTS["down"], steps=2) for p in (two.prior, again))
    torch.testing.assert_close(a, b, atol=0.02, rtol=0.02)  # weights are stored as float16


def test_the_recipes_of_both_stages_can_be_read() -> None:
    kinds = {"scenes-embedder": EmbedderTraining, "scenes-prior": PriorTraining}
    kinds |= {"scenes-decoder": ImageTraining, "scenes": ImageTraining, "glyphs": ImageTraining}
    for name, kind in kinds.items():
        assert isinstance(recipe(name), kind)
