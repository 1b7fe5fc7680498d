"""Codecs: the affine map of a latent, and its fit."""

import pytest
import torch
from torch import Tensor

from sciffusion.codec import Affine, Codec
from sciffusion.noise import Noise


class Doubling(Codec):
    """Data (B, 2, n) as a latent of two channels with other scales, and noise of a known size."""

    scale: Tensor

    def __init__(self, std: float | None) -> None:
        super().__init__(2)
        self.std = std
        self.register_buffer("scale", torch.tensor([2.0, 300.0]))

    def posterior(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        z = x * self.scale.to(x)[:, None] + 1e4
        return z, None if self.std is None else torch.full_like(z, self.std)

    def reconstruct(self, z: Tensor) -> Tensor:
        return (z - 1e4) / self.scale.to(z)[:, None]


def data(n: int) -> Tensor:
    return torch.randn(n, 2, 5, generator=torch.Generator().manual_seed(n), dtype=torch.float64)


@pytest.mark.parametrize("std", [None, 1.5])
def test_a_fitted_latent_has_zero_mean_and_unit_variance_in_every_channel(
    std: float | None,
) -> None:
    codec = Doubling(std)
    batches = [data(n) for n in (400, 300, 1)]
    codec.fit(batches)
    z = torch.cat([codec.encode(x, Noise(3)) for x in batches]).transpose(0, 1).flatten(1)
    tolerance = 1e-5 if std is None else 0.03
    assert z.mean(1).abs().max() < max(tolerance, 1e-3)  # buffers are float32 at 1e4
    assert (z.std(1, correction=0) - 1).abs().max() < tolerance


def test_the_fit_does_not_depend_on_how_data_are_batched() -> None:
    one, many = Doubling(0.5), Doubling(0.5)
    x = data(30)
    one.fit([x])
    many.fit(x.split([1, 20, 9]))
    torch.testing.assert_close(one.affine.mean, many.affine.mean)
    torch.testing.assert_close(one.affine.std, many.affine.std)


def test_decoding_undoes_encoding() -> None:
    codec = Doubling(1.0)
    codec.fit([data(50)])
    torch.testing.assert_close(codec.decode(codec.encode(data(7))), data(7), rtol=1e-9, atol=1e-9)


def test_a_draw_belongs_to_its_seed_and_not_to_its_batch() -> None:
    codec = Doubling(1.0)
    x = data(3)
    together = codec.encode(x, Noise([5, 6, 7]))
    assert torch.equal(codec.encode(x[1:2], Noise([6])), together[1:2])
    assert not torch.equal(together, codec.encode(x))


def test_the_affine_map_is_stored_with_the_weights() -> None:
    fitted, other = Doubling(None), Doubling(None)
    fitted.fit([data(20)])
    other.load_state_dict(fitted.state_dict())
    assert torch.equal(other.encode(data(4)), fitted.encode(data(4)))


def test_bad_input_is_named() -> None:
    codec = Doubling(None)
    with pytest.raises(ValueError, match="batches is empty"):
        codec.fit([])
    with pytest.raises(ValueError, match="std must be positive"):
        codec.fit([torch.zeros(3, 2, 5)])
    with pytest.raises(ValueError, match=r"shape \(B, 2, ...\), got \(3, 4, 5\)"):
        codec.decode(torch.zeros(3, 4, 5))
    with pytest.raises(ValueError, match="got 2 and 1 numbers"):
        Affine([0.0, 1.0], [1.0])
