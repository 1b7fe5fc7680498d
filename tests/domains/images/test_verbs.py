"""Laws of the verbs: what is known stays bit by bit, what is undone comes back, and seeds mean what they say."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from sciffusion.domains.images import ImageModel, Images

from .small import bars, shaken

HALF = torch.arange(6)[None].expand(6, 6) < 3


@pytest.fixture(scope="module", params=["unet", "latent"])
def model(request: pytest.FixtureRequest) -> ImageModel:
    return shaken(latent=request.param == "latent")


@pytest.fixture(scope="module")
def pixels() -> ImageModel:
    return shaken("folded")


def close(a: Images, b: Images, atol: float = 2e-5) -> None:
    torch.testing.assert_close(a.pixels, b.pixels, rtol=0, atol=atol)


def test_known_pixels_stay_bit_by_bit_and_the_others_are_made_anew(model: ImageModel) -> None:
    images = bars(3)
    made = model.inpaint(images, HALF, steps=3, rounds=2)
    known = HALF.expand_as(made.pixels)
    assert torch.equal(made.pixels[known], images.to_floats().pixels[known])
    assert float((made.pixels - images.to_floats().pixels)[~known].abs().max()) > 0.01
    assert made.labels["label"].tolist() == images.labels["label"].tolist()
    assert torch.equal(made.to_bytes().pixels[known], images.pixels[known])


def test_each_image_has_a_mask_and_a_seed_of_its_own(model: ImageModel) -> None:
    images = bars(3)
    masks = torch.stack([HALF, ~HALF, HALF.T])[:, None]
    made = model.inpaint(images, masks, steps=2, rounds=2, seed=5)
    close(made[:2], model.inpaint(images[:2], masks[:2], steps=2, rounds=2, seed=5))
    other = model.inpaint(images, masks, steps=2, rounds=2, seed=6)
    assert float((other.pixels - made.pixels).abs().max()) > 1e-3


def test_what_is_hidden_does_not_matter(pixels: ImageModel) -> None:
    images = bars(2)
    hidden = Images(images.pixels.masked_fill(~HALF, 255), images.labels)
    a, b = (pixels.inpaint(x, HALF, steps=3, rounds=2) for x in (images, hidden))
    close(a, b)


def test_outpainting_adds_margins_and_keeps_the_middle(model: ImageModel) -> None:
    images = bars(2)
    made = model.outpaint(images, (1, 0, 2, 3), steps=2, rounds=1)
    assert made.size == (7, 11)
    assert torch.equal(made.pixels[:, :, 1:, 2:8], images.to_floats().pixels)


def test_an_edit_of_strength_zero_is_the_image_and_of_one_forgets_it(model: ImageModel) -> None:
    images, other = bars(3), bars(3, seed=7)
    same = model.edit(images, 0.0, given={"label": "down"})
    assert torch.equal(same.pixels, images.to_floats().pixels)
    assert same.labels["label"].tolist() == ["down"] * 3
    one, two = (model.edit(x, 1.0, given={"label": "down"}, steps=3) for x in (images, other))
    close(one, two)
    close(one, model.sample(3, given={"label": "down"}, steps=3))
    middle = model.edit(images, 0.5, steps=3)
    assert float((middle.pixels - images.to_floats().pixels).abs().max()) > 0.01
    close(middle[:2], model.edit(images[:2], 0.5, steps=3))


def test_more_strength_leaves_less(pixels: ImageModel) -> None:
    images = bars(8)
    apart = [
        float((pixels.edit(images, s, steps=4).pixels - images.to_floats().pixels).square().mean())
        for s in (0.1, 0.4, 0.9)
    ]
    assert apart == sorted(apart)


def test_variations_are_edits_with_noise_of_their_own(pixels: ImageModel) -> None:
    images = bars(2)
    made = pixels.variation(images, 3, 0.5, steps=2)
    assert made.labels["source"].tolist() == [0, 0, 0, 1, 1, 1]
    assert float((made.pixels[0] - made.pixels[1]).abs().max()) > 1e-3


def test_what_is_inverted_is_made_again(model: ImageModel) -> None:
    images = bars(4)
    known = {"label": images.labels["label"].tolist()}
    noise = model.invert(images, steps=12, iterations=12)
    back = model.restore(noise, given=known, steps=12)
    wanted = model.decode(model.encode(images), images.size)
    close(back, wanted, atol=2e-3)
    other = model.restore(noise, given={"label": "down"}, steps=12)
    assert torch.equal(other.pixels[1::2], back.pixels[1::2])
    rough = model.restore(model.invert(images, steps=12, iterations=1), given=known, steps=12)
    assert (rough.pixels - wanted.pixels).abs().max() > (back.pixels - wanted.pixels).abs().max()


def test_a_way_between_images_begins_and_ends_with_them(pixels: ImageModel) -> None:
    a, b = bars(2), bars(2, seed=9)
    made = pixels.interpolate(a, b, 3, steps=12, iterations=12)
    assert made.labels["pair"].tolist() == [0, 0, 0, 1, 1, 1]
    assert made.labels["share"].tolist() == [0, 0.5, 1] * 2
    close(made[::3], a.to_floats(), atol=2e-3)
    close(made[2::3], b.to_floats(), atol=2e-3)
    sizes = pixels.invert(a, given={}, steps=4), pixels.invert(b, given={}, steps=4)
    from sciffusion.domains.images.verbs import _slerp

    middle = _slerp(*sizes, 0.5).flatten(1).norm(dim=1)
    ends = torch.stack([s.flatten(1).norm(dim=1) for s in sizes]).mean(0)
    torch.testing.assert_close(middle, ends)


def test_masks_and_arguments_that_do_not_fit_are_refused(pixels: ImageModel) -> None:
    images = bars(2)
    with pytest.raises(ValueError, match="mask must be boolean, True where a pixel is known"):
        pixels.inpaint(images, HALF.float())
    with pytest.raises(ValueError, match=r"mask must be \(6, 6\) or \(2, 1, 6, 6\).*got \(5, 6\)"):
        pixels.inpaint(images, HALF[:5])
    with pytest.raises(ValueError, match="mask hides nothing"):
        pixels.inpaint(images, torch.ones(6, 6, dtype=torch.bool))
    with pytest.raises(ValueError, match="rounds and jump must be at least 1, got 0"):
        pixels.inpaint(images, HALF, rounds=0)
    for wrong in ((0, 0, 0, 0), 2):
        with pytest.raises(ValueError, match="margins are four numbers"):
            pixels.outpaint(images, wrong)  # type: ignore[arg-type]
    tensor: Any = images.pixels
    calls: list[Callable[[], object]] = [
        lambda: pixels.inpaint(tensor, HALF),
        lambda: pixels.outpaint(tensor, (1, 0, 0, 0)),
        lambda: pixels.edit(tensor, 0.5),
        lambda: pixels.variation(tensor),
        lambda: pixels.invert(tensor),
        lambda: pixels.interpolate(images, tensor),
    ]
    for call in calls:
        with pytest.raises(
            ValueError, match=r"images must be Images, got Tensor: Images\.of makes"
        ):
            call()
    with pytest.raises(ValueError, match="strength must lie between 0 and 1, got 1.5"):
        pixels.edit(images, 1.5)
    with pytest.raises(ValueError, match="n must be at least 1"):
        pixels.variation(images, 0)
    with pytest.raises(ValueError, match=r"noise must be \(B, 1, 6, 6\) .*got \(2, 1, 5, 5\)"):
        pixels.restore(torch.zeros(2, 1, 5, 5))
    with pytest.raises(ValueError, match="as many images of one size"):
        pixels.interpolate(images, bars(3))
    with pytest.raises(ValueError, match="n must be at least 2"):
        pixels.interpolate(images, images, 1)
