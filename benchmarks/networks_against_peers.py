"""What a U-Net and transformers on patches cost: ours against diffusers' and azula's of the same size.

    PYTHONPATH=/tmp/peers python benchmarks/networks_against_peers.py

Time of a forward pass, and of a forward and a backward pass, on one CPU thread, contenders interleaved; peak memory of
both beyond weights, gradients of weights and inputs. U-Nets have the same widths and resolutions, two blocks a level
(diffusers': as many as bring it near the size), attention at the coarsest level and a vector that modulates all blocks.
Against each peer stands the smallest of ours with at least its parameters: what is missing goes into blocks at the
coarsest level. Edges are those of the peer (diffusers: zeros, azula: circles on both axes); the sphere with its poles,
which no peer has, stands against azula too. Transformers have the same patch, width, depth and heads; the peer's
positions are fixed and its queries and keys are taken as they are, ours are rotary and normalised. Those of two streams
have the same width, heads and numbers of blocks with two streams and with one, 32 tokens of context, and are told a
guidance scale; diffusers' is that of FLUX, whose blocks of one stream do attention and network at once.

Peers are measured where they are installed, and skipped with a message elsewhere (see benchmarks/README.md).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import torch
from measure import show, write
from network_costs import Contender, measure, page, rows_of
from torch import Tensor, nn

from sciffusion.domains.audio._torchaudio import torchaudio
from sciffusion.errors import MissingExtra
from sciffusion.networks import (
    Circular,
    DiT,
    GuidanceScale,
    MMDiT,
    NoiseLevel,
    Padding,
    SpherePadding,
    UNet,
    Zeros,
)

CHANNELS = 4
TEXT = (32, 64)
"""Tokens of a context, and their width."""
Net = TypeVar("Net", bound=nn.Module)


def noisy(net: Net) -> Net:
    """The network with no weight at zero, as after some training."""
    with torch.no_grad():
        for p in net.parameters():
            p.add_(0.02 * torch.randn_like(p))
    return net


def diffusers() -> Any:
    """The library; transformers, which it imports where it is installed, imports torchaudio, which may be broken."""
    with suppress(MissingExtra):
        torchaudio()
    import diffusers as library

    return library


def diffusers_unet(base: int, x: Tensor, layers: int) -> Contender:
    """Widths base, 2 base, 2 base; edges are zeros."""
    net = noisy(
        diffusers().UNet2DModel(
            sample_size=tuple(x.shape[2:]),
            in_channels=CHANNELS,
            out_channels=CHANNELS,
            block_out_channels=(base, 2 * base, 2 * base),
            layers_per_block=layers,
            norm_num_groups=base // 4,
            attention_head_dim=base // 2,
            down_block_types=("DownBlock2D", "DownBlock2D", "AttnDownBlock2D"),
            up_block_types=("AttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
        )
    )
    t = 999 * torch.rand(len(x))
    return Contender("diffusers", net, lambda: net(x, t).sample)


def azula_unet(base: int, x: Tensor) -> Contender:
    """Widths base, 2 base, 2 base; both axes are circles. It has no attention."""
    from azula.nn.unet import UNet as Theirs

    widths, width = (base, 2 * base, 2 * base), 4 * base
    net = noisy(
        Theirs(
            CHANNELS,
            CHANNELS,
            hid_channels=widths,
            hid_blocks=(2, 2, 2),
            mod_features=width,
            periodic=True,
        )
    )
    e = torch.randn(len(x), width)
    return Contender("azula", net, lambda: net(x, e))


def our_unet(base: int, x: Tensor, edges: str, padding: Padding, least: int) -> Contender:
    """Ours of the same widths with at least so many parameters."""
    width, parameters, deepest = 4 * base, 0, 2
    while parameters < least or not parameters:
        net = UNet(
            CHANNELS,
            CHANNELS,
            widths=(base, 2 * base, 2 * base),
            blocks=(2, 2, deepest),
            head_width=base // 2,
            embedding=width,
            padding=padding,
        )
        parameters, deepest = sum(p.numel() for p in net.parameters()), deepest + 1
    e, made = torch.randn(len(x), width), noisy(net)
    return Contender(f"sciffusion, {edges}", made, lambda: made(x, e))


def unets(base: int, layers: int, x: Tensor) -> tuple[list[Contender], list[tuple[str, str]]]:
    """The contenders of a size, and which is measured against which: (peer, ours)."""
    found: list[Contender] = []
    pairs: list[tuple[str, str]] = []
    rivals: list[tuple[Callable[[], Contender], dict[str, Padding]]] = [
        (lambda: diffusers_unet(base, x, layers), {"zeros": Zeros()}),
        (
            lambda: azula_unet(base, x),
            {"circles": Circular((-1, -2)), "sphere": SpherePadding()},
        ),
    ]
    for build, paddings in rivals:
        try:
            peer = [build()]
        except ImportError as missing:
            print(f"left out: {missing}")
            peer = []
        least = peer[0].parameters if peer else 0
        ours = [our_unet(base, x, edges, rule, least) for edges, rule in paddings.items()]
        pairs += [(p.name, o.name) for p in peer for o in ours]
        found += [*peer, *ours]
    return found, pairs


def transformers(
    width: int, depth: int, x: Tensor
) -> tuple[list[Contender], list[tuple[str, str]]]:
    """Transformers on patches of 2 x 2, as :func:`unets`; ours gets as wide an embedding as makes up for theirs."""
    heads, found = width // 64, []
    try:
        found.append(diffusers_transformer(width, depth, heads, x))
    except ImportError as missing:
        print(f"left out: {missing}")
    least, embedding, parameters = max((c.parameters for c in found), default=0), width, 0
    while parameters < least or not parameters:
        net = DiT(
            CHANNELS,
            CHANNELS,
            width=width,
            depth=depth,
            heads=heads,
            embedding=embedding,
            circular=(False, True),
        )
        parameters, e = sum(p.numel() for p in net.parameters()), torch.randn(len(x), embedding)
        embedding += 8
    made = noisy(net)
    ours = Contender("sciffusion", made, lambda: made(x, e))
    return [*found, ours], [(c.name, ours.name) for c in found]


def diffusers_transformer(width: int, depth: int, heads: int, x: Tensor) -> Contender:
    """With one class, and a vector of its own for time and class in every block; it takes squares only."""
    net = noisy(
        diffusers().DiTTransformer2DModel(
            num_attention_heads=heads,
            attention_head_dim=width // heads,
            in_channels=CHANNELS,
            num_layers=depth,
            sample_size=x.shape[-1],
            patch_size=2,
            num_embeds_ada_norm=1,
            norm_num_groups=1,
        )
    ).eval()  # or it would drop class labels at random; there is no dropout
    t, label = 999 * torch.rand(len(x)), torch.zeros(len(x), dtype=torch.long)
    return Contender("diffusers", net, lambda: net(x, t, class_labels=label).sample)


class Guided(nn.Module):
    """Ours with two streams, and what embeds the noise level and the guidance scale."""

    def __init__(self, width: int, double: int, single: int, heads: int, embedding: int) -> None:
        super().__init__()
        self.level, self.scale = NoiseLevel(embedding), GuidanceScale(embedding)
        self.body = MMDiT(
            CHANNELS,
            CHANNELS,
            context=TEXT[1],
            width=width,
            double=double,
            single=single,
            heads=heads,
            embedding=embedding,
        )

    def forward(self, x: Tensor, log_snr: Tensor, scale: Tensor, text: Tensor) -> Tensor:
        """The output for a batch."""
        return self.body(x, self.level(log_snr) + self.scale(scale), text)


def two_streams(
    width: int, double: int, single: int, x: Tensor
) -> tuple[list[Contender], list[tuple[str, str]]]:
    """Transformers of a context and patches of 2 x 2, as :func:`transformers`."""
    heads, found = width // 64, []
    text, scale = torch.randn(len(x), *TEXT), torch.full((len(x),), 3.5)
    try:
        found.append(diffusers_flux(width, double, single, heads, x, text, scale))
    except ImportError as missing:
        print(f"left out: {missing}")
    least, embedding, parameters = max((c.parameters for c in found), default=0), width // 2, 0
    while parameters < least or not parameters:
        net = Guided(width, double, single, heads, embedding)
        parameters, embedding = sum(p.numel() for p in net.parameters()), embedding + 8
    made, level = noisy(net), torch.randn(len(x))
    ours = Contender("sciffusion", made, lambda: made(x, level, scale, text))
    return [*found, ours], [(c.name, ours.name) for c in found]


def diffusers_flux(
    width: int, double: int, single: int, heads: int, x: Tensor, text: Tensor, scale: Tensor
) -> Contender:
    """It wants its patches packed by the caller."""
    from sciffusion.domains.audio._torchaudio import torchaudio

    torchaudio()  # diffusers imports it here, and would fail if its compiled part does
    net = noisy(
        diffusers().FluxTransformer2DModel(
            patch_size=1,
            in_channels=4 * CHANNELS,
            num_layers=double,
            num_single_layers=single,
            attention_head_dim=width // heads,
            num_attention_heads=heads,
            joint_attention_dim=TEXT[1],
            pooled_projection_dim=TEXT[1],
            guidance_embeds=True,
            axes_dims_rope=(16, 24, 24),
        )
    )
    places = torch.zeros(x.shape[2] // 2, x.shape[3] // 2, 3)
    places[..., 1] += torch.arange(places.shape[0])[:, None]
    places[..., 2] += torch.arange(places.shape[1])
    t, pooled = torch.rand(len(x)), torch.zeros(len(x), TEXT[1])

    def call() -> Tensor:
        tokens = x.unflatten(2, (-1, 2)).unflatten(4, (-1, 2)).permute(0, 2, 4, 1, 3, 5)
        y = net(
            hidden_states=tokens.flatten(1, 2).flatten(2),
            encoder_hidden_states=text,
            pooled_projections=pooled,
            timestep=t,
            img_ids=places.flatten(0, 1),
            txt_ids=torch.zeros(TEXT[0], 3),
            guidance=scale,
        ).sample
        y = y.unflatten(1, tokens.shape[1:3]).unflatten(3, (CHANNELS, 2, 2))
        return y.permute(0, 3, 1, 4, 2, 5).reshape(x.shape)

    return Contender("diffusers", net, call)


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=0.2, help="at least, per measurement")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="cases whose name contains this")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/networks.json"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)

    grid, square = (torch.randn(args.batch, CHANNELS, *size) for size in ((32, 64), (32, 32)))
    cases = {
        "U-Net 32-64-64 on 32 x 64": lambda: unets(32, 1, grid),
        "U-Net 64-128-128 on 32 x 64": lambda: unets(64, 2, grid),
        "Transformer 192 x 6 on 32 x 32": lambda: transformers(192, 6, square),
        "Two streams 192 x 2, then one 192 x 4, on 32 x 32": lambda: two_streams(192, 2, 4, square),
    }
    settings = {k: v for k, v in vars(args).items() if k != "out"}
    results = {}
    for case, build in cases.items():
        if args.only not in case:
            continue
        contenders, pairs = build()
        results[case] = measure(contenders, pairs, args.repeats, args.seconds)
        show(case, ("peer / ours", "step", "memory"), rows_of(results[case]))
        write(args.out, settings, results)
    title = f"Networks of {CHANNELS} channels against those of diffusers and azula"
    args.out.with_suffix(".md").write_text(page(title, results, settings))


if __name__ == "__main__":
    main()
