"""Laws of clips in a row: their order, lengths and level."""

import pytest
import torch

from sciffusion.domains.audio import Clip, joined

from .small import tones


def test_clips_follow_each_other_as_loud_as_the_first() -> None:
    first, second, third = (tones(3)[i] for i in range(3))
    soft = Clip(0.01 * second.samples, 800).resample(400)
    made = joined([first, soft, third], pause=0.05)
    sizes = [first.samples.shape[1], soft.resample(800).samples.shape[1], third.samples.shape[1]]
    a, b, c = (x.samples for x in (first, soft.resample(800), third))
    assert made.rate == 800 and made.samples.shape == (1, sum(sizes) + 80)
    parts = made.samples.split([sizes[0], 40, sizes[1], 40, sizes[2]], 1)
    assert torch.equal(parts[0], a)
    assert not bool(parts[1].any()) and not bool(parts[3].any())
    for part, sound in ((parts[2], b), (parts[4], c)):
        torch.testing.assert_close(part / first.peak, sound / sound.abs().max())


def test_channels_and_silence_are_kept() -> None:
    stereo = Clip(torch.stack([torch.full((4,), 0.5), torch.zeros(4)]), 800)
    made = joined([stereo, Clip(torch.zeros(1, 3), 800)], pause=0.0)
    assert torch.equal(made.samples[:, :4], stereo.samples)
    assert made.samples.shape == (2, 7) and not bool(made.samples[:, 4:].any())


def test_what_cannot_be_joined_is_refused() -> None:
    with pytest.raises(ValueError, match="must begin with one that is not silent"):
        joined([])
    with pytest.raises(ValueError, match="must begin with one that is not silent"):
        joined([Clip(torch.zeros(1, 3), 800)])
    with pytest.raises(ValueError, match="pause must not be negative, got -1"):
        joined([tones(1)[0]], pause=-1.0)
