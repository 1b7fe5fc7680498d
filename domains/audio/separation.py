r"""Two or more sounds out of their sum, by posterior sampling with a prior for each.

The state holds the spectrograms of all sources, every one with its own prior (a model asked for something), and their
levels, log-normal around equal ones. Powers of sounds with unrelated phases add up, on average: what is observed is

.. math:: y = \tfrac12\log\sum_k e^{2(m_k + l_k)} + \varepsilon

at every mel bin and frame, m being log-mels, l levels. The spread of :math:`\varepsilon` stands for the phases, which
this forward model leaves out. The mixture's complex spectrum is then shared out by the powers that were found, as
Wiener's filter does, so its phases serve all sources and these sum to it. Of several samples the median counts: the
posterior has more than one mode, and some samples give the sound of one source to the other.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, final

import numpy as np
import torch
from torch import Tensor

from sciffusion.denoiser import Condition, Denoiser, Prediction
from sciffusion.inverse import Function, Method, Posterior
from sciffusion.layout import Dense
from sciffusion.process import Gaussian, Joint
from sciffusion.samplers import Sampler
from sciffusion.space import Euclidean
from sciffusion.state import State, Value

from .adapter import mel_state
from .clip import Clip, Clips
from .filling import METHOD, Drawing
from .given import Heard
from .mel import LogMel
from .recovery import envelope

if TYPE_CHECKING:
    from .functionals import Guidance
    from .model import AudioModel

__all__ = ["Sources", "separate"]

SPREAD = 0.5
"""The standard deviation of a source's level around that of the others, nats: a factor of 1.65."""


@final
class Sources(Denoiser):
    """Independent sounds side by side: the fields ``mel0``, ``mel1``, ... and their levels ``level`` (B, K), nats."""

    def __init__(self, denoisers: Sequence[Denoiser], spread: float = SPREAD) -> None:
        super().__init__()
        self.sources = torch.nn.ModuleList(denoisers)
        self.spread = spread
        fields = {f"mel{k}": d.process.field("mel") for k, d in enumerate(denoisers)}
        level = Gaussian(denoisers[0].process.clock, Euclidean())
        self.process = Joint(fields | {"level": level})

    def forward(
        self, x_t: Value, t: Tensor, cond: Condition = None, previous: Value | None = None
    ) -> Prediction:
        assert isinstance(x_t, State)
        t, out = torch.as_tensor(t), {}
        for k, source in enumerate(self.sources):
            name = f"mel{k}"
            one = source(State({"mel": x_t[name]}, x_t.layout(name)), t)
            out[name] = one.x0["mel"]
        level, (alpha, sigma) = x_t["level"], self.process.clock(t)
        gain = alpha * self.spread**2 / (alpha**2 * self.spread**2 + sigma**2)
        out["level"] = x_t.layout("level").expand(gain.to(level), level) * level
        return Prediction(x_t.replace(out), x_t, t, self.process)


def separate(
    model: AudioModel,
    mixture: Clip,
    givens: Sequence[Mapping[str, object]],
    *,
    models: Sequence[AudioModel] | None = None,
    draws: int = 8,
    noise_std: float = 0.2,
    guidance: Guidance = 1.0,
    method: Method = METHOD,
    seed: int = 0,
    steps: int | None = None,
    sampler: Sampler | None = None,
) -> Clips:
    """The sources of a mixture, mono and at the model's rate; their sum is its mean channel at that rate.

    Args:
        model: of single sources.
        mixture: of any rate; no longer than what the models were trained on.
        givens: what is known of each source, attributes by name, ``[{"digit": 3}, {"digit": 7}]``; one dictionary for
            each source, which may be empty, though sources of which the same is known may be mixed up.
        models: one for each source, of the same spectrograms, instead of ``model`` for all.
        draws: posterior samples; the median of their shares counts.
        noise_std: spread of the observed log-mels, nats.
        guidance: as :meth:`.AudioModel.sample` takes it; 1 is a sample of the posterior.
        method: any posterior method of the core.
        seed: of everything random.
        steps: of the solver.
        sampler: any of the core, instead of the model's own.

    Raises:
        ValueError: fewer than two sources, another number of models, models of other spectrograms, a mixture that is
            silent or too long, a ``noise_std`` that is not positive, and attributes that a model does not know.
    """
    if len(givens) < 2:
        raise ValueError(
            f"givens must say what is known of two or more sources, got {len(givens)}; nothing is {{}}"
        )
    models = [model] * len(givens) if models is None else list(models)
    if len(models) != len(givens):
        raise ValueError(f"models has {len(models)} entries for {len(givens)} sources in givens")
    if not noise_std > 0:
        raise ValueError(f"noise_std must be positive, got {noise_std}")
    config = model.config.spectrogram
    for k, other in enumerate(models):
        config.require_same(other.config.spectrogram, f"model {k}")
    parts = [
        Drawing.of(m, draws, g, guidance, steps, sampler, seed)
        for m, g in zip(models, givens, strict=True)
    ]
    heard = Heard.of(mixture, config)
    frames = LogMel(config).encode(heard.wave[None])[0].mT
    for part in parts:
        part.require_fit(mixture)
    # sources of unit level: their sum is higher by the root of their number
    frames = (frames + 0.5 * math.log(len(models))).to(model.device)
    blank = mel_state([torch.zeros_like(frames)] * draws)
    layout = blank.layout("mel")
    names = [f"mel{k}" for k in range(len(models))]
    like = State(
        dict.fromkeys(names, blank["mel"]) | {"level": frames.new_zeros(draws, len(models))},
        dict.fromkeys(names, layout) | {"level": Dense(draws)},
    )

    def loud(x: Value) -> list[Tensor]:
        assert isinstance(x, State)
        level = x["level"]
        return [
            m.standard.decode(x[name]) + level[:, k, None, None]
            for k, (m, name) in enumerate(zip(models, names, strict=True))
        ]

    def observe(x: Value) -> Value:
        return State({"mixture": 0.5 * torch.logsumexp(2 * torch.stack(loud(x)), 0)}, layout)

    y = State({"mixture": frames.expand(draws, -1, -1)}, layout)
    denoiser = Sources([p.denoiser() for p in parts])
    posterior = Posterior(denoiser, Function(observe), y, noise_std, method)
    found = loud(parts[0].run(posterior, like))
    power = torch.stack([envelope(config, f.mT).square() for f in found]).clamp(min=1e-12)
    # the median, which a draw that has lost a source does not move
    shares = torch.softmax(power.log().log_softmax(0).quantile(0.5, 1), 0)
    spectrum = config.framing.analyse(heard.wave[None]).to(shares.device)
    size = len(heard.wave)
    waves = config.framing.synthesise(shares * spectrum)[:, :size].cpu()
    # the last one is what the others leave, which rounding errors do not spoil
    waves[-1] = heard.wave - waves[:-1].sum(0)
    told = [part.labels() for part in parts]
    labels = {
        name: np.array([str(t[name][0]) if name in t else "" for t in told])
        for name in dict.fromkeys(name for t in told for name in t)
    }
    return Clips([Clip(w[None] / heard.gain, config.rate) for w in waves], labels)
