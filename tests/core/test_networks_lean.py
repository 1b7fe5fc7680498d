"""Functions that forget what is inside them have the same derivatives as before, of every kind."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from sciffusion.networks import DiT, UNet
from sciffusion.networks.lean import lean, remade, two_layers
from sciffusion.networks.norm import active_norm

from .networks import close, draw, shaken


@pytest.mark.parametrize("shape", [(8,), (2, 8)], ids=["a channel", "a sample and channel"])
def test_the_norm_and_its_derivatives_are_those_of_its_formula(shape: tuple[int, ...]) -> None:
    x, scale, shift = draw(2, 8, 3), draw(*shape, seed=2), draw(*shape, seed=3)
    normal = F.layer_norm(x.view(2, 2, 12), (12,)).view(2, 8, 3)  # two groups of four channels
    close(active_norm(x, scale, shift), F.silu(normal * scale[..., None] + shift[..., None]))
    last = x[..., None].contiguous(memory_format=torch.channels_last)
    close(active_norm(last, scale, shift)[..., 0], active_norm(x, scale, shift))

    def forgetful(*inputs: Tensor) -> Tensor:
        return lean(active_norm, *inputs)

    inputs = tuple(value.requires_grad_() for value in (x, scale, shift))
    assert torch.autograd.gradcheck(forgetful, inputs, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(forgetful, inputs)


def test_only_the_inputs_are_kept() -> None:
    kept: list[int] = []

    def note(x: Tensor) -> Tensor:
        kept.append(x.numel())
        return x

    x, one = draw(4, 8, 50).requires_grad_(), torch.ones(8).double()
    with torch.autograd.graph.saved_tensors_hooks(note, lambda x: x):
        lean(active_norm, x, one, one)
    assert sorted(kept) == [8, 8, 1600]


def test_what_a_layer_keeps_of_its_input_is_made_anew_with_all_derivatives() -> None:
    layer, kept = torch.nn.Linear(5, 3).double(), []
    x = draw(2, 4, 5).requires_grad_()
    again = [0]

    def double(x: Tensor) -> Tensor:
        again[0] += 1
        return x * x

    y, wanted = remade(layer, double, x), layer(x * x)
    assert again == [1]
    for value in (y, wanted):
        first = torch.autograd.grad(value.square().sum(), [x, layer.weight], create_graph=True)
        second = torch.autograd.grad(
            torch.cat([g.flatten() for g in first]).square().sum(), [x, layer.weight]
        )
        kept.append([value, *first, *second])
    for a, b in zip(*kept, strict=True):
        close(a, b)
    assert again[0] > 1


class TwoLayers(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.wide, self.narrow = torch.nn.Linear(5, 9), torch.nn.Linear(9, 3)

    def forward(self, x: Tensor) -> Tensor:
        return two_layers(self.wide, self.narrow, x)


def test_two_layers_have_all_derivatives_of_their_formula() -> None:
    net, x = shaken(TwoLayers()), draw(2, 4, 5).requires_grad_()
    names, weights = zip(*net.named_parameters(), strict=True)
    close(net(x), net.narrow(F.gelu(net.wide(x))))

    def call(x: Tensor, *weights: Tensor) -> Tensor:
        return torch.func.functional_call(net, dict(zip(names, weights, strict=True)), (x,))

    assert torch.autograd.gradcheck(call, (x, *weights), check_forward_ad=True)
    assert torch.autograd.gradgradcheck(call, (x, *weights))


def test_two_layers_give_gradients_of_what_is_wanted_only() -> None:
    net, x = shaken(TwoLayers()).requires_grad_(False), draw(2, 4, 5)
    wanted = torch.autograd.functional.jacobian(lambda x: net.narrow(F.gelu(net.wide(x))), x)
    close(torch.autograd.functional.jacobian(net, x), wanted)
    net.wide.bias.requires_grad_()
    net(x).sum().backward()
    assert [p.grad is not None for p in net.parameters()] == [False, True, False, False]


def test_two_layers_keep_one_wide_tensor_and_hold_one_without_a_gradient() -> None:
    net, x, kept = shaken(TwoLayers()), draw(2, 4, 5), []

    def note(x: Tensor) -> Tensor:
        kept.append(x.numel())
        return x

    with torch.autograd.graph.saved_tensors_hooks(note, lambda x: x):
        y = net(x)
    assert kept.count(2 * 4 * 9) == 1
    seen: list[Tensor] = []
    net.wide.register_forward_hook(lambda module, inputs, out: seen.append(out))
    net.narrow.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        close(net(x), y)
    assert seen[0].data_ptr() == seen[1].data_ptr()
    close(net(x), y)  # layers that somebody watches are called
    assert len(seen) == 4


def test_a_layer_whose_gradient_is_watched_is_called() -> None:
    net, x, seen = shaken(TwoLayers()), draw(2, 4, 5).requires_grad_(), []
    net.narrow.register_full_backward_pre_hook(lambda module, grads: seen.append(module))
    net(x).sum().backward()
    assert len(seen) == 1


def test_two_layers_run_in_low_precision() -> None:
    net, x = shaken(TwoLayers()).float(), draw(2, 4, 5).float()
    with torch.autocast("cpu", torch.bfloat16):
        y = net(x)
    y.sum().backward()
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y.float(), net(x), atol=0.05, rtol=0.05)


def test_gradients_of_single_samples_are_mapped() -> None:
    net, x = shaken(DiT(3, 2, width=24, heads=2, depth=1)), draw(3, 3, 2, 4)

    def loss(sample: Tensor) -> Tensor:
        return net(sample[None]).square().sum()

    each = torch.stack([torch.func.grad(loss)(sample) for sample in x])
    with sdpa_kernel(SDPBackend.MATH):
        close(torch.func.vmap(torch.func.grad(loss))(x), each)


@pytest.mark.parametrize("name", ["U-Net", "DiT"])
def test_networks_have_forward_and_second_derivatives(name: str) -> None:
    net = shaken(
        UNet(3, 2, widths=(8, 16), blocks=1, attention=(False, True), head_width=8)
        if name == "U-Net"
        else DiT(3, 2, width=24, heads=2, depth=1)
    )
    x, v = draw(1, 3, 2, 4), draw(1, 3, 2, 4, seed=2)
    w = draw(1, 2, 2, 4, seed=3)
    with sdpa_kernel(SDPBackend.MATH):
        forward = torch.func.jvp(net, (x,), (v,))[1]
        backward = torch.func.vjp(net, x)[1](w)[0]
        close((forward * w).sum(), (backward * v).sum())

        def gradient(y: Tensor) -> Tensor:
            return torch.func.vjp(net, y)[1](w)[0]

        curve, step = torch.func.jvp(gradient, (x,), (v,))[1], 1e-5
        nearby = (gradient(x + step * v) - gradient(x - step * v)) / (2 * step)
        torch.testing.assert_close(curve, nearby, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["U-Net", "DiT"])
def test_networks_train_under_autocast(name: str) -> None:
    torch.manual_seed(0)
    net = UNet(3, 2, embedding=4) if name == "U-Net" else DiT(3, 2, embedding=4)
    with torch.no_grad():
        for p in net.parameters():
            p.add_(0.02 * torch.randn_like(p))
    x, e = draw(1, 3, 8, 8).float(), draw(1, 4).float()
    grads = []
    for on in (False, True):
        net.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=on):
            y = net(x, e)
        y.float().sum().backward()
        grads.append(torch.cat([p.grad.flatten() for p in net.parameters() if p.grad is not None]))
    assert (grads[0] - grads[1]).norm() < 0.1 * grads[0].norm()
