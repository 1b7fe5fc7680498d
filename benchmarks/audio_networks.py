"""What a transformer over spectrograms costs: ours against diffusers' of the same size.

    PYTHONPATH=/tmp/peers python benchmarks/audio_networks.py

Time and peak memory of a forward pass, and of a forward and a backward pass, on one CPU thread, contenders interleaved,
as in networks_against_peers.py. All have 256 tokens of width 384, 8 blocks and 6 heads of attention; ours gets as wide
an embedding as brings it to the parameters of the peer at least.

* Frames: 64 channels by 256 frames with 16 tokens of text to attend to, against ``StableAudioDiTModel``; both put one
  more token before those of the frames. The peer has half as many heads for keys and values and a gated two-layer
  network.
* Patches of 4 x 4 on 64 x 64, against ``DiTTransformer2DModel``, neither with a token more. The peer has fixed
  positions and a vector of its own for time and class in every block; ours has learned places on frequency and rotary
  ones on time, and normalises queries and keys: about 2 % of a training step, which the peer does not spend.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from measure import show, write
from network_costs import Contender, measure, page, rows_of
from networks_against_peers import diffusers, noisy
from torch import Tensor

from sciffusion.networks import DiT

WIDTH, DEPTH, HEADS = 384, 8, 6
TEXT = 192


def stable_audio(x: Tensor, text: Tensor) -> Contender:
    """Diffusers' transformer over frames."""
    library = diffusers()
    batch, channels, frames = x.shape
    net = noisy(
        library.StableAudioDiTModel(
            sample_size=frames,
            in_channels=channels,
            out_channels=channels,
            num_layers=DEPTH,
            attention_head_dim=WIDTH // HEADS,
            num_attention_heads=HEADS,
            num_key_value_attention_heads=HEADS // 2,
            cross_attention_dim=TEXT,
            cross_attention_input_dim=TEXT,
            time_proj_dim=256,
            global_states_input_dim=WIDTH,
        )
    )
    t, vector = torch.rand(batch), torch.randn(batch, 1, WIDTH)
    places = library.models.embeddings.get_1d_rotary_pos_embed(
        WIDTH // HEADS // 2, frames + 1, use_real=True, repeat_interleave_real=False
    )

    def call() -> Tensor:
        out: Tensor = net(
            x,
            t,
            encoder_hidden_states=text,
            global_hidden_states=vector,
            rotary_embedding=places,
        ).sample
        return out

    return Contender("StableAudioDiTModel", net, call)


def patches(x: Tensor) -> Contender:
    """Diffusers' transformer over patches."""
    net = noisy(
        diffusers().DiTTransformer2DModel(
            num_attention_heads=HEADS,
            attention_head_dim=WIDTH // HEADS,
            in_channels=1,
            out_channels=1,
            num_layers=DEPTH,
            sample_size=x.shape[-1],
            patch_size=4,
            num_embeds_ada_norm=1,
            norm_num_groups=1,
        )
    ).eval()  # or it would drop class labels at random; there is no dropout
    t, label = 999 * torch.rand(len(x)), torch.zeros(len(x), dtype=torch.long)
    return Contender("DiTTransformer2DModel", net, lambda: net(x, t, class_labels=label).sample)


def ours(x: Tensor, text: Tensor | None, least: int) -> Contender:
    """Ours for the same data, with at least so many parameters."""
    channels, dims = x.shape[1], x.ndim - 2
    embedding, parameters = 128, 0
    while not parameters or parameters < least:
        net = DiT(
            channels,
            channels,
            dims=dims,
            patch=1 if dims == 1 else 4,
            width=WIDTH,
            depth=DEPTH,
            heads=HEADS,
            embedding=embedding,
            context=0 if text is None else TEXT,
            prefix=32 if dims == 1 else 0,
            learned=None if dims == 1 else (x.shape[2] // 4, 0),
        )
        parameters = sum(p.numel() for p in net.parameters())
        e, embedding = torch.randn(len(x), embedding), embedding + 8
    made, token = noisy(net), torch.randn(len(x), 1, 32) if dims == 1 else None
    return Contender("sciffusion", made, lambda: made(x, e, text, prefix=token))


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=0.2, help="at least, per measurement")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/audio_networks.json"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)

    frames, text = torch.randn(args.batch, 64, 256), torch.randn(args.batch, 16, TEXT)
    square = torch.randn(args.batch, 1, 64, 64)
    cases: dict[str, tuple[Callable[[], Contender], Tensor, Tensor | None]] = {
        "Frames: 64 channels, 256 frames": (lambda: stable_audio(frames, text), frames, text),
        "Patches of 4 x 4 on 64 x 64": (lambda: patches(square), square, None),
    }
    settings = {k: v for k, v in vars(args).items() if k != "out"}
    results: dict[str, Any] = {}
    for case, (build, x, context) in cases.items():
        try:
            peers = [build()]
        except ImportError as missing:
            print(f"left out: {missing}")
            peers = []
        mine = ours(x, context, max((p.parameters for p in peers), default=0))
        pairs = [(p.name, mine.name) for p in peers]
        results[case] = measure([*peers, mine], pairs, args.repeats, args.seconds)
        show(case, ("peer / ours", "step", "memory"), rows_of(results[case]))
        write(args.out, settings, results)
    title = "Transformers over spectrograms against those of diffusers"
    args.out.with_suffix(".md").write_text(page(title, results, settings))


if __name__ == "__main__":
    main()
