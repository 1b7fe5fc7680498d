"""How gridded fields plug into the core: what a model is given, what it makes, and the typed settings of both.

A model makes ``targets`` out of ``inputs``: states at times that are counted in hours from a reference. One pair of
settings covers what weather people do:

=====================  ==================  =============  ===============================================
task                   inputs              targets        base, to which the generated residual is added
=====================  ==================  =============  ===============================================
forecast               (-12, 0)            (12, 24)       ``last``: the last input
interpolation in time  (0, 12)             (6,)           ``linear``: between the inputs around the target
downscaling            (0,), ``coarse=4``  (0,)           ``coarse``: the coarse field, interpolated
climate, priors        ()                  (0, 12, 24)    ``cell``: the time mean of every cell
=====================  ==================  =============  ===============================================

With ``leads``, (6, 12, 24) for instance, one forecast model serves all of these: its targets are counted from the lead,
0 being the lead itself, cases of every lead are learnt from, and the network is told which. It does not serve those
between, of which it knows nothing: name all that are wanted, or reach them in several steps.

``ridge`` is a linear regression from all coarse cells to all fine ones, and ``model`` adds the residual to the
prediction of another, deterministic model. All of it happens in units of the
training data's standard deviation, channel by channel: a network sees numbers of about unit size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, final

import torch
from torch import Tensor, nn

from sciffusion.harmonics import Harmonics
from sciffusion.networks import DiT, NoiseLevel, SpherePadding, UNet

from .calendar import LEAD, PLACE, SEASON, SUN
from .grid import Grid
from .times import Unit

__all__ = ["DiTConfig", "GridNet", "ModelConfig", "UNetConfig"]

Base = Literal["zero", "cell", "last", "linear", "coarse", "ridge", "model"]


@final
@dataclass(frozen=True)
class UNetConfig:
    """The convolutional network; see :class:`~sciffusion.networks.UNet`."""

    kind: Literal["unet"] = "unet"
    widths: tuple[int, ...] = (32, 64, 96)
    blocks: int = 2
    attention: tuple[bool, ...] = (False, False, True)
    embedding: int = 128
    dropout: float = 0.0


@final
@dataclass(frozen=True)
class DiTConfig:
    """The transformer over patches; see :class:`~sciffusion.networks.DiT`."""

    kind: Literal["dit"] = "dit"
    patch: int = 2
    width: int = 128
    depth: int = 6
    heads: int = 4
    embedding: int = 128


@final
@dataclass(frozen=True)
class ModelConfig:
    """A model of gridded fields.

    ``variables`` names those of the data set that are made (none: all that depend on time), ``statics`` those that are
    given at every place, ``log1p`` those that are seen as :math:`\\log(1+x)`, rain for instance, and ``vectors`` the
    components of vectors along latitude and longitude, which turn around beyond a pole: winds. ``inputs``, ``targets``,
    ``leads``, ``coarse`` and ``base`` are explained at the head of the module; a prior of monthly means counts its
    ``targets`` in months of the calendar, ``unit: month``. ``place`` tells the network where on earth and when it is
    (latitude, longitude, season, sun); without, one model serves any region. ``lmax`` is the degree of spherical
    harmonics up to which the data are resolved (those of spectral models are): nothing beyond it is made. ``head`` is
    what makes the residual: ``diffusion`` draws it in many steps, ``ensemble`` in one pass from noise, trained on the
    fair CRPS, ``mean`` is deterministic. ``noise`` is that of the diffusion: ``white`` on the grid, ``sphere``
    (isotropic, a flat spectrum), ``fitted`` (isotropic, the spectrum of the residuals) or ``student`` (heavy tails,
    ``nu``). ``members`` and ``latent`` belong to ``ensemble``: how many are drawn for each case in training, and how
    many numbers of noise modulate the network, beside ``noise_channels`` fields of it.
    """

    network: UNetConfig | DiTConfig = UNetConfig()
    variables: tuple[str, ...] = ()
    statics: tuple[str, ...] = ()
    log1p: tuple[str, ...] = ()
    vectors: tuple[str, ...] = ()
    inputs: tuple[int, ...] = (-12, 0)
    targets: tuple[int, ...] = (24,)
    leads: tuple[int, ...] = ()
    unit: Unit = "hour"
    coarse: int = 1
    base: Base = "last"
    place: bool = True
    lmax: int | None = None
    head: Literal["diffusion", "ensemble", "mean"] = "diffusion"
    schedule: Literal["edm", "rectified-flow", "cosine", "trig-flow"] = "edm"
    noise: Literal["white", "sphere", "fitted", "student"] = "white"
    nu: float = 10.0
    members: int = 2
    latent: int = 32
    noise_channels: int = 2

    def __post_init__(self) -> None:
        if not self.targets:
            raise ValueError(
                "targets is empty: name the hours that the model makes, for instance (24,)"
            )
        for name in ("inputs", "targets", "leads"):
            hours = getattr(self, name)
            if list(hours) != sorted(set(hours)):
                raise ValueError(f"{name} must be rising hours without repetition, got {hours}")
        if self.unit == "month" and self.inputs:
            raise ValueError(f"unit 'month' is for priors, which have no inputs, got {self.inputs}")
        if self.base in ("last", "linear", "coarse", "ridge") and not self.inputs:
            raise ValueError(f"base {self.base!r} is made of inputs, but there are none")
        if self.base == "linear" and not all(
            self.inputs[0] <= h <= self.inputs[-1] for h in self.targets
        ):
            raise ValueError(f"base 'linear' needs targets between the inputs, got {self.targets}")
        if (self.coarse > 1) != (self.base in ("coarse", "ridge")) and self.base != "model":
            raise ValueError("coarse above 1 and base 'coarse', 'ridge' or 'model' belong together")
        self._check_leads()
        if self.coarse < 1 or self.members < 2:
            raise ValueError(
                "coarse must be at least 1 and members at least 2 (the CRPS compares them)"
            )

    def _check_leads(self) -> None:
        if not self.leads:
            return
        if len(self.leads) < 2 or self.leads[0] + self.targets[0] <= 0:
            raise ValueError(
                f"leads must be at least two, with all targets after the start; got leads {self.leads} and targets "
                f"{self.targets}"
            )
        if self.targets[-1] != 0 or not self.inputs or self.inputs[-1] != 0:
            raise ValueError(
                f"with leads, targets are counted from the lead and inputs from the start, and both end with 0; got "
                f"targets {self.targets} and inputs {self.inputs}"
            )
        if self.base not in ("zero", "cell", "last"):
            raise ValueError(f"base {self.base!r} knows no leads; 'last', 'cell' or 'zero' do")

    def made(self, lead: int) -> tuple[int, ...]:
        """The hours after the start that are made: the targets, counted from the lead (0 for models without)."""
        return tuple(lead + h for h in self.targets)

    def check_lead(self, lead: int) -> None:
        """Raises ``ValueError`` for a lead that is none of those of the training data."""
        if lead not in self.leads:
            raise ValueError(
                f"lead {lead} h is none of those that the model was trained on, {self.leads} h; reach other times in "
                "several steps"
            )

    def net(self, grid: Grid | None, names: Sequence[str], statics: int) -> GridNet:
        """The network, freshly initialised, for states of these channels on this grid (None: any)."""
        turned = [-1.0 if name.split(":")[0] in self.vectors else 1.0 for name in names]
        extra, scalars = statics, 0
        if self.place:
            extra, scalars = extra + SUN + PLACE, SEASON
        if self.leads:
            scalars += LEAD
        match self.head:
            case "diffusion":
                seen = turned * len(self.targets)
            case "ensemble":
                seen, scalars = [1.0] * self.noise_channels, scalars + self.latent
            case "mean":
                seen = []
        signs = torch.tensor(seen + turned * len(self.inputs) + [1.0] * extra)
        made, noisy = len(names) * len(self.targets), self.head == "diffusion"
        return GridNet(
            self.network, grid, signs, made, scalars, noisy=noisy, harmonics=self.harmonics(grid)
        )

    def harmonics(self, grid: Grid | None) -> Harmonics | None:
        """The harmonics that are resolved; None where the settings name no degree.

        Raises ``ValueError`` for a grid that is no globe with a quadrature for them.
        """
        if self.lmax is None:
            return None
        if grid is None or grid.sphere is None:
            raise ValueError("lmax needs a global grid, Gaussian or of equal steps; leave it out")
        return Harmonics(grid.sphere, self.lmax, torch.float32)


@final
class GridNet(nn.Module):
    """A network over fields: noised ones, given ones, and numbers that hold for the whole map.

    Called like every network of :class:`~sciffusion.denoiser.Preconditioned`; ``cond`` holds ``fields`` (B, K, H, W)
    and ``scalars`` (B, S). Without noise levels (``noisy=False``) ``log_snr`` is ignored.
    """

    def __init__(
        self,
        config: UNetConfig | DiTConfig,
        grid: Grid | None,
        signs: Tensor,
        made: int,
        scalars: int,
        *,
        noisy: bool,
        harmonics: Harmonics | None = None,
    ) -> None:
        super().__init__()
        self.embed: nn.Module | None = None
        if noisy:
            self.embed = NoiseLevel(config.embedding, scalars)
        elif scalars:
            width = config.embedding
            self.embed = nn.Sequential(
                nn.Linear(scalars, width), nn.SiLU(), nn.Linear(width, width)
            )
        self.noisy, self.harmonics = noisy, harmonics
        embedding = 0 if self.embed is None else config.embedding
        circular, poles, pole_rows = False, (False, False), (False, False)
        if grid is not None:
            circular, poles, pole_rows = grid.circular, grid.poles, grid.pole_rows
        padding = SpherePadding(circular=circular, poles=poles, pole_rows=pole_rows)
        self.body: nn.Module
        match config:
            case UNetConfig():
                self.body = UNet(
                    len(signs),
                    made,
                    widths=config.widths,
                    blocks=config.blocks,
                    attention=config.attention,
                    embedding=embedding,
                    dropout=config.dropout,
                    padding=padding,
                    signs=signs if bool((signs < 0).any()) and any(poles) else None,
                )
            case DiTConfig():
                self.body = DiT(
                    len(signs),
                    made,
                    patch=config.patch,
                    width=config.width,
                    depth=config.depth,
                    heads=config.heads,
                    embedding=embedding,
                    circular=(False, circular),
                )

    def forward(
        self,
        x: Tensor | None,
        log_snr: Tensor | None,
        cond: dict[str, Tensor],
        previous: Tensor | None = None,
    ) -> Tensor:
        """(B, made, H, W) from noised fields (None: there are none), log-SNRs (B,) and the condition."""
        fields, scalars = cond["fields"], cond["scalars"]
        if x is not None:  # one condition may serve the whole batch
            shape = (len(x), *fields.shape[1:])
            fields = torch.cat([x, fields.to(x).expand(shape)], 1)
            scalars = scalars.to(x).expand(len(x), -1)
        scalars, embedding = scalars.to(fields), None
        if self.embed is not None:
            # of no numbers none are shown
            shown = scalars if scalars.shape[1] else None
            embedding = self.embed(log_snr, shown) if self.noisy else self.embed(scalars)
        out: Tensor = self.body(fields, embedding)
        if self.harmonics is None:
            return out
        return self.harmonics.synthesis(self.harmonics.analysis(out)).to(out)
