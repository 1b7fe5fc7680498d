"""The transformer that denoises molecules, written on bare tensors.

One token is one atom. Three ingredients carry most of what the network knows of chemistry:

- *order*: a token hears its rank in the molecule, and every pair its difference of ranks. With a
  canonical order (heavy atoms along a chain, each followed by its hydrogens) rank says who is
  probably bonded to whom. With ``ordered=False`` the network is permutation equivariant.
- *distance*: Gaussian radial functions of the noisy interatomic distances are added, per layer and
  head, to the attention logits; how much is decided by the noise level.
- *relative coordinates*: atom i is displaced by ``sum_j w_ij (x_i - x_j) / (d_ij + 1)`` as well,
  with ``w_ij`` a bilinear form of the two tokens times a function of their distance. At low noise
  denoising is "mend the bond length along the bond", which a network that reads absolute
  coordinates would have to learn as a product.

Noise level and size act through adaptive layer normalisation with zero-initialised gates
(Peebles and Xie 2023, arXiv:2212.09748). Rotations are not built in: augment the training data.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_MAX_OFFSET = 28
_MAX_ATOMS = 256


def _sincos(x: Tensor, dim: int, longest: float) -> Tensor:
    """Sines and cosines of x at dim/2 frequencies from 1 down to 1/longest: (...) -> (..., dim)."""
    half = dim // 2
    frequency = torch.exp(-math.log(longest) * torch.arange(half, device=x.device) / half)
    angle = x.float()[..., None] * frequency
    return torch.cat([angle.sin(), angle.cos()], dim=-1)


def _zero(linear: nn.Linear) -> nn.Linear:
    nn.init.zeros_(linear.weight)
    if linear.bias is not None:
        nn.init.zeros_(linear.bias)
    return linear


def _modulate(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape[-1:]) * (1 + scale) + shift


class _Block(nn.Module):
    """Self-attention with an additive pair bias, then SwiGLU; both gated by the condition."""

    def __init__(self, d_model: int, heads: int, mlp_ratio: float) -> None:
        super().__init__()
        hidden = round(mlp_ratio * d_model)
        self.heads = heads
        self.qkv = nn.Linear(d_model, 3 * d_model, bias=False)
        self.out = nn.Linear(d_model, d_model, bias=False)
        self.up = nn.Linear(d_model, 2 * hidden, bias=False)
        self.down = nn.Linear(hidden, d_model, bias=False)
        self.modulation = _zero(nn.Linear(d_model, 6 * d_model))

    def forward(self, x: Tensor, condition: Tensor, bias: Tensor) -> Tensor:
        batch, atoms, width = x.shape
        dim = width // self.heads
        mod = self.modulation(condition)[:, None].to(x.dtype).chunk(6, dim=-1)
        qkv = self.qkv(_modulate(x, mod[0], mod[1]))
        # One copy to (3, B * heads, N, dim); baddbmm then adds the bias inside the product.
        qkv = qkv.view(batch, atoms, 3, self.heads, dim).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.reshape(3, batch * self.heads, atoms, dim).unbind(0)
        logits = torch.baddbmm(
            bias.reshape(batch * self.heads, atoms, atoms), q, k.transpose(1, 2), alpha=dim**-0.5
        )
        mixed = torch.bmm(logits.softmax(dim=-1), v).view(batch, self.heads, atoms, dim)
        x = x + mod[2] * self.out(mixed.transpose(1, 2).reshape(batch, atoms, width))
        value, gate = self.up(_modulate(x, mod[3], mod[4])).chunk(2, dim=-1)
        return x + mod[5] * self.down(F.silu(gate) * value)


class TransformerNet(nn.Module):
    """Noisy positions and atom types -> raw position output and logits of the clean types.

    Args:
        d_model: width of the tokens; a multiple of ``heads`` and even.
        layers: number of attention blocks.
        heads: attention heads per block.
        atom_channels: K, channels that describe an atom at the input (one-hot type, or noisy one).
        atom_classes: K_out, number of logits; None means ``atom_channels``.
        cond_channels: C, width of the molecule-level condition; 0 means that none is taken.
        mlp_ratio: hidden width of the SwiGLU over ``d_model``.
        radial: number of Gaussian radial functions of a distance.
        relative_heads: bilinear forms in the relative-coordinate head; 0 switches the head off.
        relative_dim: width of each of these forms.
        ordered: let tokens and pairs know the rank of the atoms.

    The position output is in fp32 even under autocast and is not freed of its mean: the caller
    preconditions it and projects it. The matrices ``qkv``, ``out``, ``up`` and ``down`` of the
    blocks suit Muon; everything else is for AdamW.

    Raises:
        ValueError: ``d_model`` is odd or no multiple of ``heads``, or ``radial`` is below 4.
    """

    centres: Tensor
    inverse_width: Tensor

    def __init__(
        self,
        d_model: int = 192,
        layers: int = 6,
        heads: int = 6,
        atom_channels: int = 5,
        atom_classes: int | None = None,
        cond_channels: int = 0,
        mlp_ratio: float = 2.0,
        radial: int = 24,
        relative_heads: int = 8,
        relative_dim: int = 16,
        ordered: bool = True,
    ) -> None:
        super().__init__()
        if d_model % heads or d_model % 2:
            raise ValueError(f"d_model={d_model} must be even and a multiple of heads={heads}")
        if radial < 4:
            raise ValueError(f"radial={radial} is too few; give at least 4 radial functions")
        self.heads, self.layers, self.ordered = heads, layers, ordered
        self.relative_heads, self.relative_dim = relative_heads, relative_dim
        # Noisy and previous (self-conditioning) features, and a flag that the latter are there.
        self.embed = nn.Linear(2 * (3 + atom_channels) + 1, d_model)
        self.embed_size = nn.Embedding(_MAX_ATOMS, d_model)
        nn.init.normal_(self.embed_size.weight, std=0.02)
        self.embed_noise = nn.Sequential(
            nn.Linear(64, d_model), nn.SiLU(), nn.Linear(d_model, d_model)
        )
        self.embed_cond = nn.Linear(cond_channels, d_model, bias=False) if cond_channels else None
        channels = layers * heads + relative_heads
        self.pair_weight = nn.Parameter(torch.randn(radial, channels) * 0.1)
        self.pair_modulation = _zero(nn.Linear(d_model, channels))
        if ordered:
            self.embed_rank = nn.Linear(d_model, d_model)
            self.offset_bias = nn.Parameter(torch.zeros(2 * _MAX_OFFSET + 1, channels))
        self.blocks = nn.ModuleList(_Block(d_model, heads, mlp_ratio) for _ in range(layers))
        self.final_modulation = _zero(nn.Linear(d_model, 2 * d_model))
        self.position_head = _zero(nn.Linear(d_model, 3))
        classes = atom_channels if atom_classes is None else atom_classes
        self.atom_head = nn.Linear(d_model, classes)
        if relative_heads:
            self.relative_qk = nn.Linear(d_model, 2 * relative_heads * relative_dim, bias=False)
            self.relative_gain = nn.Parameter(torch.zeros(relative_heads))
        # In standard deviations of the data: narrow functions where bonds are, wide ones beyond.
        near, far = radial // 2, radial - radial // 2
        self.register_buffer(
            "centres", torch.cat([torch.linspace(0.3, 1.4, near), torch.linspace(1.5, 6.0, far)])
        )
        widths = [1.1 / (near - 1)] * near + [4.5 / (far - 1)] * far
        self.register_buffer("inverse_width", 1 / torch.tensor(widths))

    def forward(
        self,
        pos: Tensor,
        atom: Tensor,
        mask: Tensor | None,
        log_snr: Tensor,
        previous_pos: Tensor | None = None,
        previous_atom: Tensor | None = None,
        cond: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Map one noisy batch to ``(pos_out (B, N, 3), atom_logits (B, N, K_out))``.

        Args:
            pos: noisy positions, CoM-free and scaled to unit variance, (B, N, 3).
            atom: noisy atom types as channels, (B, N, K).
            mask: True where an atom is, (B, N); None when all are. Padded outputs are zero.
            log_snr: log(alpha^2 / sigma^2) of the positions, (B,).
            previous_pos: earlier estimate of the clean positions (self-conditioning), (B, N, 3).
            previous_atom: earlier probabilities of the types, (B, N, K); goes with the former.
            cond: condition of each molecule, (B, C).

        Raises:
            ValueError: one of the two previous estimates is missing, or ``cond`` and
                ``cond_channels`` disagree.
        """
        if (previous_pos is None) != (previous_atom is None):
            raise ValueError("previous_pos and previous_atom go together; give both or neither")
        if (cond is None) != (self.embed_cond is None):
            raise ValueError("cond must be given exactly when cond_channels > 0")
        batch, atoms, _ = pos.shape
        size, rank = self._count(mask, batch, atoms, pos.device)
        flag = pos.new_full((batch, atoms, 1), 0.0 if previous_pos is None else 1.0)
        previous_pos = torch.zeros_like(pos) if previous_pos is None else previous_pos
        previous_atom = torch.zeros_like(atom) if previous_atom is None else previous_atom
        stacked = torch.cat([pos, atom, previous_pos, previous_atom, flag], dim=-1)
        if mask is not None:
            # where, not a product: what stands in the padding must not survive, NaN included.
            stacked = torch.where(mask[..., None], stacked, 0.0)
            pos = torch.where(mask[..., None], pos, 0.0)
        x = self.embed(stacked)
        if self.ordered:
            x = x + self.embed_rank(_sincos(rank, x.shape[-1], 100.0))

        noise = self.embed_noise(_sincos(8.0 * log_snr, 64, 1000.0))
        condition = noise + self.embed_size(size)
        if self.embed_cond is not None and cond is not None:
            condition = condition + self.embed_cond(cond)
        condition = F.silu(condition)

        offsets = pos[:, :, None] - pos[:, None]
        distance = (offsets.square().sum(dim=-1) + 1e-8).sqrt()
        bias = self._pair_bias(distance, condition, rank, mask)
        x = x.to(bias.dtype)
        # A single split: slicing per layer would make the backward pass fill one full tensor each.
        parts = bias.split([self.heads] * self.layers + [self.relative_heads], dim=1)
        for block, part in zip(self.blocks, parts[:-1], strict=True):
            x = block(x, condition, part)

        scale, shift = self.final_modulation(condition)[:, None].to(x.dtype).chunk(2, dim=-1)
        x = _modulate(x, scale, shift)
        logits = self.atom_head(x).float()
        # Positions need more digits than bfloat16 has.
        with torch.autocast(pos.device.type, enabled=False):
            out = self.position_head(x.float())
        if self.relative_heads:
            out = out + self._relative(x, parts[-1], offsets, distance, mask)
        if mask is not None:
            out = out * mask[..., None]
            logits = logits * mask[..., None]
        return out, logits

    @staticmethod
    def _count(
        mask: Tensor | None, batch: int, atoms: int, device: torch.device
    ) -> tuple[Tensor, Tensor]:
        """Number of atoms of each molecule, (B,), and rank of each atom, (1 or B, N)."""
        if mask is None:
            size = torch.full((batch,), atoms, device=device)
            rank = torch.arange(atoms, device=device)[None]
        else:
            size = mask.sum(dim=1)
            rank = (mask.cumsum(dim=1) - 1).clamp(min=0)
        return size.clamp(max=_MAX_ATOMS - 1), rank

    def _pair_bias(
        self, distance: Tensor, condition: Tensor, rank: Tensor, mask: Tensor | None
    ) -> Tensor:
        """Biases of all layers and the relative head's radial functions, (B, channels, N, N)."""
        batch, atoms, _ = distance.shape
        radial = torch.exp(-0.5 * ((distance[..., None] - self.centres) * self.inverse_width) ** 2)
        weight = self.pair_weight * (1 + self.pair_modulation(condition))[:, None]
        radial = radial.view(batch, atoms * atoms, -1)
        bias = torch.bmm(weight.transpose(1, 2), radial.transpose(1, 2))
        bias = bias.view(batch, -1, atoms, atoms)
        if self.ordered:
            offset = rank[:, :, None] - rank[:, None]
            index = offset.clamp(-_MAX_OFFSET, _MAX_OFFSET) + _MAX_OFFSET
            bias = bias + self.offset_bias[index].permute(0, 3, 1, 2).to(bias.dtype)
        if mask is not None:
            # Only logits of padded keys; the relative head masks its own weights.
            bias = torch.where(mask[:, None, None, :], bias, -1e9)
        return bias

    def _relative(
        self, x: Tensor, radial: Tensor, offsets: Tensor, distance: Tensor, mask: Tensor | None
    ) -> Tensor:
        """Sum over j of w_ij (x_i - x_j) / (d_ij + 1), (B, N, 3)."""
        batch, atoms, _ = x.shape
        qk = self.relative_qk(x).view(batch, atoms, 2, self.relative_heads, self.relative_dim)
        q, k = qk.permute(2, 0, 3, 1, 4).unbind(0)
        forms = torch.matmul(q, k.transpose(2, 3)) * radial * self.relative_dim**-0.5
        with torch.autocast(x.device.type, enabled=False):
            weight = torch.einsum("bhij,h->bij", forms.float(), self.relative_gain)
            if mask is not None:
                weight = torch.where(mask[:, None, :], weight, 0.0)
            return torch.einsum("bij,bijk->bik", weight / (distance + 1), offsets)
