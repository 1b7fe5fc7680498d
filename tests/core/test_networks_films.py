"""Laws of networks of films: they start as those of images, attend along time, and frames may have their own noise."""

import pytest
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from sciffusion.denoiser import Preconditioned
from sciffusion.networks import DiT, NoiseLevel, TemporalAttention, UNet
from sciffusion.noise import Noise
from sciffusion.objective import Objective
from sciffusion.process import Gaussian
from sciffusion.schedule import RectifiedFlow

from .networks import close, draw, idle_after, shaken


def unet(film: bool = True, checkpointing: bool = False) -> UNet:
    torch.manual_seed(0)
    return UNet(
        3,
        2,
        widths=(8, 16),
        blocks=1,
        attention=(False, True),
        head_width=8,
        temporal=(True, True) if film else (),
        embedding=6,
        context=4,
        checkpointing=checkpointing,
    )


def dit(film: bool = True, attention: str = "factorised", checkpointing: bool = False) -> DiT:
    torch.manual_seed(0)
    return DiT(
        3,
        2,
        dims=3 if film else 2,
        patch=(1, 2, 2) if film else 2,
        width=24,
        depth=2,
        heads=2,
        embedding=6,
        context=4,
        attention=attention if film else "full",  # type: ignore[arg-type]
        checkpointing=checkpointing,
    )


def of(name: str) -> nn.Module:
    """A network of films away from its start, by name."""
    if name == "U-Net":
        return shaken(unet())
    return shaken(dit(attention="full" if name == "full DiT" else "factorised"))


def both(name: str) -> tuple[nn.Module, nn.Module]:
    """A network of images, with weights, and one of films that took them over."""
    image, film = (unet(False), unet()) if name == "U-Net" else (dit(False), dit())
    shaken(image)
    film.double().eval()
    missing, unexpected = film.load_state_dict(image.state_dict(), strict=False)
    assert unexpected == [] and all(".temporal." in key for key in missing)
    return image, film


@torch.no_grad()
@pytest.mark.parametrize("name", ["U-Net", "DiT"])
def test_with_the_weights_of_images_it_makes_of_every_frame_what_the_image_network_makes(
    name: str,
) -> None:
    image, film = both(name)
    x, e, context = draw(2, 3, 5, 4, 6), draw(2, 5, 6), draw(2, 3, 4)
    mask = torch.tensor([[True, True, False], [True, True, True]])
    for given in (e, e[:, 0]):  # a noise level for every frame, or for every film
        y = film(x, given, context, mask)
        assert y.shape == (2, 2, 5, 4, 6)
        assert y.abs().max() > 1e-3
        for i in range(5):
            own = given if given.ndim == 2 else given[:, i]
            close(y[:, :, i], image(x[:, :, i], own, context, mask))


@torch.no_grad()
@pytest.mark.parametrize("name", ["U-Net", "DiT", "full DiT"])
def test_trained_layers_let_frames_see_each_other_at_any_number_and_size(name: str) -> None:
    net = of(name)
    e, context = draw(2, 6), draw(2, 3, 4)
    for size in ((4, 4, 6), (1, 6, 4), (7, 2, 2)):
        x = draw(2, 3, *size)
        y = net(x, e, context)
        assert y.shape == (2, 2, *size)
        other = x.clone()
        other[:, :, -1] += 1
        moved = (net(other, e, context) - y).abs().amax((0, 1, 3, 4))
        assert (moved > 1e-6).all()
    each = [net(x[i : i + 1], e[i : i + 1], context[i : i + 1]) for i in range(2)]
    close(y, torch.cat(each))


@torch.no_grad()
def test_attention_along_time_is_the_identity_at_first_and_keeps_places_apart() -> None:
    net, x = TemporalAttention(8, 2).double(), draw(2, 12, 8)
    assert torch.equal(net(x, 3), x)
    shaken(net)
    other = x.clone()
    other[:, 4] = draw(2, 8, seed=3)  # the first place in the second of three frames
    moved = (net(other, 3) - net(x, 3)).abs().amax((0, 2)) > 1e-9
    assert moved.nonzero().flatten().tolist() == [0, 4, 8]
    assert (net(x.flip(1), 3).flip(1) - net(x, 3)).abs().max() > 1e-3  # time has a direction
    longer, mask = torch.cat((x, draw(2, 8, 8, seed=4)), 1), (torch.arange(20) < 12).expand(2, 20)
    close(net(longer, 5, None, mask)[:, :12], net(x, 3))


@torch.no_grad()
def test_padded_frames_and_points_are_not_seen() -> None:
    net, x, e, context = shaken(dit()), draw(1, 3, 3, 4, 4), draw(1, 6), draw(1, 3, 4)
    more = torch.full((1, 3, 5, 6, 4), torch.nan).double()
    mask = torch.zeros(1, 5, 6, 4, dtype=torch.bool)
    more[:, :, :3, :4], mask[:, :3, :4] = x, True
    close(net(more, e, context, mask=mask)[:, :, :3, :4], net(x, e, context))


@pytest.mark.parametrize("attention", ["factorised", "full"])
def test_products_of_attention_are_as_many_as_the_formula_says(attention: str) -> None:
    t, hw, width = 6, 16, 24
    net = dit(attention=attention)
    counter = FlopCounterMode(display=False)
    with counter, sdpa_kernel(SDPBackend.MATH), torch.no_grad():  # fast kernels are not counted
        net(torch.zeros(1, 3, t, 8, 8), torch.zeros(1, 6), torch.zeros(1, 3, 4))
    found = counter.flop_counts["Global"][torch.ops.aten.bmm]
    products = t * hw**2 + hw * t**2 if attention == "factorised" else (t * hw) ** 2
    depth, context = 2, 3 * t * hw  # the cross-attention comes on top
    assert found == depth * 2 * 2 * width * (products + context)


@torch.no_grad()
@pytest.mark.parametrize("name", ["U-Net", "DiT", "full DiT"])
def test_every_frame_may_have_an_embedding_of_its_own(name: str) -> None:
    net = of(name)
    x, e, context = draw(2, 3, 4, 4, 4), draw(2, 6), draw(2, 3, 4)
    y = net(x, e, context)
    close(net(x, e[:, None].expand(2, 4, 6), context), y)
    other = e[:, None].repeat(1, 4, 1)
    other[:, 0] += 1
    assert (net(x, other, context) - y)[:, :, 0].abs().max() > 1e-3


class Film(nn.Module):
    """Called as ``Preconditioned`` calls networks, with a log-SNR for every channel of every frame."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed = NoiseLevel(6, fourier=8)
        self.body = DiT(
            2,
            2,
            dims=3,
            patch=(1, 2, 2),
            width=24,
            depth=1,
            heads=2,
            embedding=6,
            attention="factorised",
        )

    def forward(
        self, x: torch.Tensor, log_snr: torch.Tensor, cond: object, previous: object
    ) -> torch.Tensor:
        return self.body(x, self.embed(log_snr if log_snr.ndim == 1 else log_snr[:, 0]))


def test_frames_at_time_zero_are_known_and_the_others_are_learnt_from_them() -> None:
    process, x0 = Gaussian(RectifiedFlow()), draw(2, 2, 4, 4, 4)
    denoiser = Preconditioned(shaken(Film()), process, sigma_data=1.0)
    t = torch.full((2, 2, 4), 0.6, dtype=torch.float64)
    t[:, :, 0] = 0
    noised = process.perturb(x0, t, Noise(0))
    assert isinstance(noised.x_t, torch.Tensor)
    assert torch.equal(noised.x_t[:, :, 0], x0[:, :, 0])
    prediction = denoiser(noised.x_t, t)
    close(prediction.x0[:, :, 0], x0[:, :, 0])
    whole = denoiser(noised.x_t, torch.tensor(0.6, dtype=torch.float64))
    assert (prediction.x0 - whole.x0)[:, :, 1:].abs().max() > 1e-3
    loss = Objective(process, target="flow").compare(prediction, noised)
    loss.mean.backward()
    error = (prediction.x0 - x0)[:, :, 1:] / 0.6
    close(loss.per_sample, error.square().sum((1, 2, 3, 4)) / x0[0].numel())
    assert all(p.grad is not None and p.grad.isfinite().all() for p in denoiser.parameters())


@pytest.mark.parametrize("name", ["U-Net", "DiT"])
def test_gradients_reach_every_parameter(name: str) -> None:
    inputs = (draw(2, 3, 3, 4, 4).float(), draw(2, 6).float(), draw(2, 3, 4).float())
    assert idle_after(unet() if name == "U-Net" else dit(), inputs, 3) == []


@pytest.mark.parametrize("name", ["U-Net", "DiT"])
def test_checkpointing_changes_neither_values_nor_gradients(name: str) -> None:
    found = []
    for on in (False, True):
        net = shaken(unet(checkpointing=on) if name == "U-Net" else dit(checkpointing=on))
        y = net(draw(1, 3, 3, 4, 4), draw(1, 6), draw(1, 3, 4))
        y.square().sum().backward()
        found.append((y, *(p.grad for p in net.parameters())))
    for a, b in zip(*found, strict=True):
        assert a is not None and b is not None
        close(a, b)


def test_it_compiles_to_one_graph() -> None:
    net = shaken(dit())  # the U-Net's test is that of its control
    inputs = (draw(2, 3, 3, 4, 4), draw(2, 3, 6), draw(2, 3, 4))
    torch.compiler.reset()
    close(torch.compile(net, fullgraph=True, backend="eager")(*inputs), net(*inputs))


def test_what_does_not_fit_is_refused_by_name() -> None:
    x, context = torch.zeros(1, 3, 4, 4, 4), torch.zeros(1, 3, 4)
    for net in (unet(), dit()):
        with pytest.raises(
            ValueError, match=r"or one for each frame, \(1, 4, 6\), got \(1, 3, 6\)"
        ):
            net(x, torch.zeros(1, 3, 6), context)
        with pytest.raises(ValueError, match=r"x must be \(B, 3, \*, \*, \*\), got \(1, 3, 4, 4\)"):
            net(x[:, :, 0], torch.zeros(1, 6), context)
    with pytest.raises(ValueError, match=r"embedding must be \(1, 6\), got \(1, 4, 6\)"):
        unet(False)(x[:, :, 0], torch.zeros(1, 4, 6), context)
    with pytest.raises(ValueError, match="temporal must name 3 levels, not 1"):
        UNet(1, 1, temporal=(True,))
    with pytest.raises(ValueError, match="factorised attention needs a first axis of time"):
        DiT(1, 1, dims=1, attention="factorised")
    with pytest.raises(ValueError, match="attention must be 'full' or 'factorised'"):
        DiT(1, 1, attention="sparse")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="tells nothing of a prefix"):
        DiT(1, 1, embedding=6, prefix=2)(
            torch.zeros(1, 1, 4, 4), torch.zeros(1, 2, 6), prefix=torch.zeros(1, 1, 2)
        )
