"""Laws of the networks of clips: what is padded does not act, clips do not see each other, every condition acts."""

import pytest
import torch
from torch import Tensor

from sciffusion.domains.audio import MelConfig, ModelConfig
from sciffusion.domains.audio.adapter import mel_state
from sciffusion.layout import Masked
from sciffusion.state import State

from .small import NETWORKS, shaken

T = torch.tensor(0.4)


def draw(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def predict(model: object, state: State, cond: dict[str, Tensor]) -> Tensor:
    denoiser = getattr(model, "denoiser")  # noqa: B009  a model's
    x0 = denoiser(state, T, cond).x0
    assert isinstance(x0, State)
    return x0["mel"]


def condition(pitch: list[int], attack: list[int]) -> dict[str, Tensor]:
    return {"pitch": torch.tensor(pitch), "attack": torch.tensor(attack)}


@torch.no_grad()
@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("length", [1, 5, 6])
def test_a_padded_clip_is_predicted_as_the_clip_alone(network: str, length: int) -> None:
    model, clip = shaken(network), draw(length, 8)
    alone = predict(model, mel_state([clip]), condition([1], [0]))
    garbage = torch.cat([clip, 100 * draw(9 - length, 8, seed=2)])[None]
    padded = State({"mel": garbage}, Masked(torch.arange(9)[None] < length))
    x = predict(model, padded, condition([1], [0]))
    torch.testing.assert_close(x[:, :length], alone, rtol=1e-4, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("network", NETWORKS)
def test_clips_do_not_see_each_other(network: str) -> None:
    model, clips = shaken(network), [draw(n, 8, seed=n) for n in (3, 8, 5)]
    together = predict(model, mel_state(clips), condition([0, 1, 2], [1, 0, 2]))
    for i, (clip, pitch, attack) in enumerate(zip(clips, (0, 1, 2), (1, 0, 2), strict=True)):
        alone = predict(model, mel_state([clip]), condition([pitch], [attack]))
        torch.testing.assert_close(together[i, : len(clip)], alone[0], rtol=1e-4, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("network", NETWORKS)
def test_every_attribute_and_its_absence_acts(network: str) -> None:
    model, state = shaken(network), mel_state([draw(6, 8)])
    base = predict(model, state, condition([0], [0]))
    for other in (condition([1], [0]), condition([0], [1]), condition([2], [0])):
        assert float((predict(model, state, other) - base).abs().max()) > 1e-4


@torch.no_grad()
@pytest.mark.parametrize("attend", [True, False])
def test_texts_act_and_their_padding_does_not(attend: bool) -> None:
    model = shaken(text=5, reference=3, attend=attend)
    state = mel_state([draw(6, 8), draw(4, 8)])
    cond = dict(model.condition({}, 2))
    absent = predict(model, state, cond)
    tokens, mask = draw(2, 3, 5), torch.tensor([[1, 1, 0], [0, 0, 0]]).bool()
    said = predict(model, state, cond | {"text": tokens, "text_mask": mask})
    assert float((said[0] - absent[0]).abs().max()) > 1e-4
    torch.testing.assert_close(said[1], absent[1])
    tokens[:, 2] = 50.0
    again = predict(model, state, cond | {"text": tokens, "text_mask": mask})
    torch.testing.assert_close(said, again)
    # a bag of words: each counts, their order does not
    turned = predict(model, state, cond | {"text": tokens[:, [1, 0, 2]], "text_mask": mask})
    torch.testing.assert_close(said, turned, rtol=1e-4, atol=1e-5)
    twice = predict(model, state, cond | {"text": tokens[:, [0, 0, 2]], "text_mask": mask})
    assert float((twice - said)[0].abs().max()) > 1e-4
    heard = predict(model, state, cond | {"reference": draw(2, 3)})
    assert float((heard - absent).abs().max()) > 1e-4


def test_values_of_attributes_are_found_by_their_names() -> None:
    config = ModelConfig(attributes=("digit",), classes=(("0", "7"),))
    assert [config.asked.index("digit", v) for v in (7, "7", 0, None)] == [1, 1, 0, 2]
    with pytest.raises(ValueError, match="digit must be one of 0, 7, got 12"):
        config.asked.index("digit", 12)
    with pytest.raises(ValueError, match="given names 'digits', .* Did you mean 'digit'"):
        config.asked.index("digits", 7)


def test_settings_that_do_not_fit_are_refused_by_name() -> None:
    with pytest.raises(ValueError, match="classes lists 1 attributes, but attributes names 0"):
        ModelConfig(classes=(("a",),))
    with pytest.raises(ValueError, match="must not be called"):
        ModelConfig(attributes=("text",))
    with pytest.raises(ValueError, match="patches of 4 frequencies do not divide the 10 mels"):
        ModelConfig(mel=MelConfig(mels=10), network=NETWORKS["patches"]).denoiser()
    with pytest.raises(ValueError, match="each of at least one frame"):
        mel_state([torch.zeros(0, 8)])
    with pytest.raises(ValueError, match="the U-Net was built for 16 frames, got 20"):
        shaken("unet").denoiser(mel_state([draw(20, 8)]), T, condition([0], [0]))
    with pytest.raises(ValueError, match="cond has no entry for"):
        shaken().denoiser(mel_state([draw(4, 8)]), T, {})
