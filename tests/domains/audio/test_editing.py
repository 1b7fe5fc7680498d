"""Laws of edits and of ways between two clips."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from sciffusion.domains.audio import AudioModel, Clip, GriffinLim
from sciffusion.domains.audio.recovery import Recovery

from .chain import chain
from .small import MEL, tones


class Heard(Recovery):
    """Griffin-Lim that remembers the spectrograms it was given."""

    seen: list[Tensor] = []

    def __call__(self, mel: Tensor, mask: Tensor | None = None) -> Tensor:
        self.seen.append(mel)
        return GriffinLim(self.config)(mel, mask)


@pytest.fixture
def model() -> AudioModel:
    Heard.seen.clear()
    return replace(chain(), recovery=Heard(MEL))


def test_an_edit_of_strength_zero_is_the_clip(model: AudioModel) -> None:
    clip = tones(1)[0].resample(1600)
    out = model.edit(clip, 0.0, 2)
    assert len(out) == 2
    torch.testing.assert_close(out[0].samples, clip.resample(800).samples)
    a, b = (model.encode([c])["mel"] for c in (clip, out[1]))
    torch.testing.assert_close(a, b)


def test_an_edit_of_full_strength_knows_length_and_level_alone(model: AudioModel) -> None:
    first, second = tones(2)
    second = Clip(0.1 * second.samples[:, : first.samples.shape[1]], 800)
    first = Clip(first.samples[:, : second.samples.shape[1]], 800)
    a, b = (model.edit(c, 1.0, steps=3)[0] for c in (first, second))
    assert a.samples.shape == first.samples.shape
    torch.testing.assert_close(
        a.samples / first.peak, b.samples / second.peak, rtol=1e-3, atol=1e-4
    )


def test_less_survives_a_stronger_edit(model: AudioModel) -> None:
    clip = tones(1)[0]
    given = model.standard.decode(model.encode([clip])["mel"])[0].mT
    far = []
    for strength in (0.2, 0.5, 0.8):
        model.edit(clip, strength, 8, steps=4)
        far.append(float((Heard.seen[-1] - given).square().mean()))
    assert far[0] < 0.5 * far[1] < 0.5 * far[2]


def test_the_ends_of_an_interpolation_have_the_spectrograms_of_the_clips(model: AudioModel) -> None:
    a, b = tones(5)[0], tones(5)[3]
    found = model.interpolate(a, b, 3, steps=10)
    longest = max(c.samples.shape[1] for c in (a, b))
    for clip, mel, out in ((a, Heard.seen[-1][0], found[0]), (b, Heard.seen[-1][2], found[2])):
        rest = longest - clip.samples.shape[1]
        padded = Clip(torch.nn.functional.pad(clip.samples, (0, rest)), 800)
        given = model.standard.decode(model.encode([padded])["mel"])[0].mT
        assert float((mel - given).abs().max()) < 0.05
        assert out.samples.shape == clip.samples.shape
    middle = found[1].samples.shape[1]
    assert middle == round((a.samples.shape[1] + b.samples.shape[1]) / 2)


def test_levels_pass_over_evenly(model: AudioModel) -> None:
    a = tones(1)[0]
    b = Clip(a.samples / 100, 800)
    loud, middle, soft = (c.samples for c in model.interpolate(a, b, 3, steps=5))
    torch.testing.assert_close(loud / 10, middle, rtol=1e-2, atol=1e-4)
    torch.testing.assert_close(loud / 100, soft, rtol=1e-2, atol=1e-5)


def test_what_cannot_be_edited_is_refused_by_name(model: AudioModel) -> None:
    clip, silent, long = tones(1)[0], Clip(torch.zeros(1, 200), 800), Clip(torch.ones(1, 1600), 800)
    with pytest.raises(ValueError, match="strength must lie from 0 to 1, got 1.5"):
        model.edit(clip, 1.5)
    with pytest.raises(ValueError, match="the clip is silent"):
        model.edit(silent, 0.5)
    with pytest.raises(ValueError, match=r"the clip has 2.00 s, but the model knows up to 0.30 s"):
        model.edit(long, 0.5)
    with pytest.raises(ValueError, match="given names 'speaker'"):
        model.edit(clip, 0.5, given={"speaker": "theo"})
    with pytest.raises(ValueError, match="n must be at least 2"):
        model.interpolate(clip, clip, 1)
    with pytest.raises(ValueError, match="the clip is silent"):
        model.interpolate(clip, silent)
    with pytest.raises(ValueError, match="the clip has 2.00 s"):
        model.interpolate(clip, long)
