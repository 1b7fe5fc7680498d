"""Laws of repaired clips: what is given stays as it is, what is made follows the model's law given the rest."""

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor

from sciffusion.denoiser import Condition, Denoiser, Prediction
from sciffusion.domains.audio import AudioModel, Clip, filling
from sciffusion.domains.audio.adapter import mel_state
from sciffusion.domains.audio.filling import METHOD, Drawing, Replacement, _anchored, complete
from sciffusion.inverse import MMPS, Mask, Method
from sciffusion.samplers import Sampler
from sciffusion.state import State, Value

from .chain import RHO, chain, covariance
from .small import shaken, tones


@pytest.fixture(scope="module")
def model() -> AudioModel:
    return chain()


def tone(seconds: float = 0.25, rate: int = 800, hertz: float = 90.0) -> Clip:
    t = np.arange(round(seconds * rate)) / rate
    return Clip.of(0.3 * np.sin(2 * np.pi * hertz * t), rate)


def drawing(model: AudioModel, n: int, steps: int = 8, seed: int = 0) -> Drawing:
    return Drawing.of(model, n, None, 1.0, steps, None, seed)


@pytest.mark.parametrize("method", [METHOD, Replacement(2)])
def test_outside_the_segments_every_sample_is_the_given_one(
    model: AudioModel, method: Method | Replacement
) -> None:
    clip = tone()
    made = model.inpaint(clip, [(0.05, 0.09), (0.15, 0.25)], 2, steps=2, method=method)
    keep = torch.ones(200, dtype=torch.bool)
    keep[40:72] = keep[120:200] = False
    for out in made:
        assert torch.equal(out.samples[:, keep], clip.samples[:, keep])
        assert float((out.samples - clip.samples)[:, ~keep].abs().max()) > 1e-3
    assert not torch.equal(made[0].samples, made[1].samples)


def test_a_stereo_clip_of_another_rate_keeps_both(model: AudioModel) -> None:
    one = tone(rate=2000)
    clip = Clip(torch.cat([one.samples, 0.25 * one.samples]), 2000)
    out = model.inpaint(clip, (0.1, 0.2), steps=2)[0]
    assert out.rate == 2000
    keep = torch.ones(500, dtype=torch.bool)
    keep[200:400] = False
    assert torch.equal(out.samples[:, keep], clip.samples[:, keep])
    loud, soft = out.samples[:, ~keep]
    torch.testing.assert_close(0.25 * loud, soft)


def test_what_a_hole_held_is_not_looked_at(model: AudioModel) -> None:
    clip = tone()
    other = clip.samples.clone()
    other[:, 80:120] = 7.0
    a, b = (model.inpaint(c, (0.1, 0.15), steps=2)[0] for c in (clip, Clip(other, 800)))
    assert torch.equal(a.samples, b.samples)


def test_what_is_made_is_as_loud_as_what_is_given(model: AudioModel) -> None:
    clip = tone()
    a, b = (model.inpaint(c, (0.1, 0.15), steps=2)[0] for c in (clip, Clip(clip.samples / 50, 800)))
    torch.testing.assert_close(a.samples / 50, b.samples, rtol=1e-3, atol=1e-5)


def test_a_hole_has_no_clicks_at_its_edges(model: AudioModel) -> None:
    clip = tone(rate=8000, seconds=0.3)
    out = model.inpaint(clip, (0.1, 0.2), steps=2)[0].samples[0].diff().abs()
    edges = max(float(out[799]), float(out[1599]))
    assert edges <= 1.05 * float(clip.samples[0].diff().abs().max())


def test_completions_have_the_mean_and_spread_of_the_conditional_law() -> None:
    torch.manual_seed(0)
    c = covariance(12)
    frames = (torch.linalg.cholesky(c) @ torch.randn(12, 8, dtype=torch.float64)).float()
    gap = torch.zeros(12, dtype=torch.bool)
    gap[4:8] = True
    known = ~gap[:, None].expand(-1, 8)
    made = complete(drawing(chain(), 300, 20), frames, known, MMPS(16))
    assert torch.equal(made[:, ~gap], frames[~gap].expand(300, -1, -1))
    gain = c[gap][:, ~gap] @ torch.linalg.inv(c[~gap][:, ~gap])
    mean, cov = gain @ frames[~gap].double(), c[gap][:, gap] - gain @ c[~gap][:, gap]
    spread = cov.diagonal().sqrt()
    found = made[:, gap].double()
    # 300 draws: the mean is known to 6 % of a deviation, which is known to 4 %
    assert float(((found.mean(0) - mean) / spread[:, None]).abs().max()) < 0.3
    assert float((found.std(0).mean(1) / spread - 1).abs().max()) < 0.08


def test_means_of_four_draws_scatter_half_as_far_as_one() -> None:
    known = torch.ones(7, 8, dtype=torch.bool)
    known[3] = False
    spread = []
    for draws in (1, 4):
        asked = Drawing.of(chain(), 60, None, 1.0, 6, None, 0, draws)
        made = complete(asked, torch.zeros(7, 8), known, METHOD, draws)[:, 3]
        assert made.shape == (60, 8)
        spread.append(float(made.std()))
    # of 480 numbers the spread is known to 4 %
    assert abs(spread[1] / spread[0] - 0.5) < 0.07


def test_half_the_temperature_scatters_half_as_far_about_the_same_mean() -> None:
    known = torch.ones(7, 8, dtype=torch.bool)
    known[3] = False
    frames = torch.full((7, 8), 1.5)
    hot, cool, cold = (
        complete(
            Drawing.of(chain(), 60, None, 1.0, 6, None, 0, temperature=t), frames, known, MMPS(8)
        )[:, 3]
        for t in (1.0, 0.5, 0.0)
    )
    # the chain is Gaussian, all is affine in the noise
    torch.testing.assert_close(cool - cold, 0.5 * (hot - cold), rtol=1e-2, atol=2e-3)
    assert float(cold.std(0).max()) < 1e-5 < 0.2 < float(hot.std(0).min())


def test_labels_are_what_was_given(model: AudioModel) -> None:
    clip = tones(1)[0]
    assert not model.inpaint(clip, (0.05, 0.08), 2, steps=2).labels
    for made in (
        model.inpaint(clip, (0.05, 0.08), 2, given={"pitch": ["low", None]}, draws=2, steps=2),
        model.super_resolve(
            clip, 2, cutoff=200.0, given={"pitch": ["low", None]}, draws=2, steps=2
        ),
        model.extend(clip, 0.3, 2, given={"pitch": ["low", None]}, steps=2),
        model.edit(clip, 0.5, 2, given={"pitch": ["low", None]}, steps=2),
        model.denoise(clip, 2, snr=3.0, given={"pitch": ["low", None]}, draws=2, steps=8),
    ):
        assert list(made.labels) == ["pitch"]
        assert made.labels["pitch"].tolist() == ["low", ""]
    parts = model.separate(clip, [{"pitch": "low"}, {}], draws=2, steps=2)
    assert parts.labels["pitch"].tolist() == ["low", ""]
    between = model.interpolate(clip, tones(4)[3], 3, given={"pitch": "low"}, steps=5)
    assert between.labels["pitch"].tolist() == ["low"] * 3


@pytest.mark.parametrize("level", [30.0, float("nan")])
def test_frames_that_no_sound_has_are_said_to_have_diverged(
    model: AudioModel, level: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run_away(sampler: Sampler, denoiser: Denoiser, x0: State, *rest: object) -> SimpleNamespace:
        return SimpleNamespace(x=x0.replace({"mel": torch.full_like(x0["mel"], level)}))

    monkeypatch.setattr(filling, "edit", run_away)
    with pytest.raises(RuntimeError, match="sampling diverged"):
        complete(drawing(model, 1), torch.zeros(8, 8), (torch.arange(8) < 4)[:, None].expand(-1, 8))


def test_what_a_network_gets_wrong_at_the_highest_noise_is_not_magnified() -> None:
    class Wrong(Denoiser):
        """The exact denoiser, and an error of a twentieth that hangs on other frames."""

        def __init__(self) -> None:
            super().__init__()
            self.right, self.process = chain().denoiser, chain().denoiser.process

        def forward(
            self, x_t: Value, t: Tensor, cond: Condition = None, previous: Value | None = None
        ) -> Prediction:
            x0 = self.right(x_t, t, cond).x0
            assert isinstance(x_t, State) and isinstance(x0, State)
            off = 0.05 * x_t["mel"].roll(-6, 1) * (self.process.clock.log_snr(t) < -6)
            return Prediction(x0.replace({"mel": x0["mel"] + off}), x_t, t, self.process)

    wrong = replace(chain(), denoiser=Wrong())  # type: ignore[arg-type]
    torch.manual_seed(0)
    frames = torch.cat([torch.randn(6, 8), torch.zeros(8, 8)])
    known = (torch.arange(14) < 6)[:, None].expand(-1, 8)
    made = complete(drawing(wrong, 16, 10), frames, known, MMPS(1))[:, 6:]
    assert float(made.square().mean()) < 1.5


def test_long_extensions_do_not_drift() -> None:
    torch.manual_seed(0)
    frames = torch.cat([torch.randn(6, 8), torch.zeros(114, 8)])
    known = (torch.arange(120) < 6)[:, None].expand(-1, 8)
    # MMPS(1) takes given frames beside made ones, which are no neighbours, for a sign of more variance
    made = complete(drawing(chain(), 16, 10), frames, known, MMPS(8))
    assert torch.equal(made[:, :6], frames[:6].expand(16, -1, -1))
    # after two windows, and after twenty
    for part in (made[:, 15:65], made[:, 70:]):
        assert abs(float(part.mean())) < 0.1
        # 6,000 numbers that hang together tell it to 4 %, and the method itself to 10 %
        assert abs(float(part.square().mean()) - 1) < 0.2
        after = float((part[:, 1:] * part[:, :-1]).mean())
        # the seams between windows too
        assert abs(after - RHO) < 0.15


def test_windows_far_from_what_is_given_see_it_all_the_same() -> None:
    given, done = torch.arange(100) < 30, torch.arange(100) < 80
    rows = _anchored(given, done, 60, 100)
    # of the 20 frames that it sees, 15 given ones, and the last five that were made
    assert rows[:15].tolist() == list(range(15, 30))
    assert rows[15:].tolist() == list(range(75, 100))
    near = _anchored(given, torch.arange(100) < 40, 20, 60)
    assert near[:15].tolist() == list(range(15, 30)) and near[15:].tolist() == list(range(35, 60))
    for first, start, end in (
        (30, 10, 50),
        (33, 15, 55),
        (0, 0, 40),
    ):  # enough is given, or nothing
        ready = torch.arange(100) < first
        assert _anchored(given & ready, ready, start, end).tolist() == list(range(start, end))


class Fading(Denoiser):
    """It knows one clip: silence, but for the last three frames."""

    def __init__(self) -> None:
        super().__init__()
        self.process = chain().denoiser.process
        self.anchor = torch.nn.Parameter(torch.zeros(()))

    def forward(
        self, x_t: Value, t: Tensor, cond: Condition = None, previous: Value | None = None
    ) -> Prediction:
        assert isinstance(x_t, State)
        x = x_t["mel"]
        end = (torch.arange(x.shape[1]) >= x.shape[1] - 3).float()[:, None] + 0 * x
        return Prediction(x_t.replace({"mel": end}), x_t, torch.as_tensor(t), self.process)


def test_a_long_extension_ends_once() -> None:
    fading = replace(chain(), denoiser=Fading())  # type: ignore[arg-type]
    known = (torch.arange(60) < 6)[:, None].expand(-1, 8)
    made = complete(drawing(fading, 2, 3), torch.zeros(60, 8), known)
    torch.testing.assert_close(made[:, -3:], torch.ones(2, 3, 8))
    torch.testing.assert_close(made[:, :-3], torch.zeros(2, 57, 8))


def test_an_extension_begins_with_the_clip_and_has_the_length_asked_for(model: AudioModel) -> None:
    clip = tone()
    made = model.extend(clip, 1.5, 2, steps=2)
    for out in made:
        assert out.samples.shape == (1, 1200)
        assert torch.equal(out.samples[:, :200], clip.samples)
        assert float(out.samples[:, 1000:].abs().max()) > 0


def test_a_long_clip_is_filled_through_windows(model: AudioModel) -> None:
    clip = tone(2.0)
    out = model.inpaint(clip, [(0.5, 0.6), (1.0, 1.7)], steps=2)[0]
    keep = torch.ones(1600, dtype=torch.bool)
    keep[400:480] = keep[800:1360] = False
    assert torch.equal(out.samples[:, keep], clip.samples[:, keep])


def test_the_given_band_is_kept_and_the_one_above_is_made(model: AudioModel) -> None:
    clip = tones(1)[0].resample(400)
    made = model.super_resolve(clip, 2, steps=2)
    up = clip.resample(800).samples[0]
    for out in made:
        assert out.rate == 800
        assert out.samples.shape == (1, len(up))
        mine, given = torch.fft.rfft(out.samples[0]), torch.fft.rfft(up)
        low = torch.arange(len(mine)) <= 180 / 800 * len(up)
        torch.testing.assert_close(mine[low], given[low], rtol=1e-4, atol=1e-4)
        assert float(mine[~low].abs().mean()) > 2 * float(given[~low].abs().mean())


def test_a_stated_cut_off_serves_a_clip_of_any_rate(model: AudioModel) -> None:
    clip = tones(1)[0]
    out = model.super_resolve(clip, cutoff=150.0, steps=2)[0]
    mine, given = torch.fft.rfft(out.samples[0]), torch.fft.rfft(clip.samples[0])
    low = torch.arange(len(mine)) <= 150 / 800 * clip.samples.shape[1]
    torch.testing.assert_close(mine[low], given[low], rtol=1e-4, atol=1e-4)


def test_a_variant_depends_on_seed_and_place_alone(model: AudioModel) -> None:
    clip = tone()
    many, few = (model.inpaint(clip, (0.1, 0.15), n, seed=3, steps=2) for n in (3, 2))
    for a, b in zip(many, few, strict=False):
        torch.testing.assert_close(a.samples, b.samples, rtol=1e-2, atol=1e-3)
    other = model.inpaint(clip, (0.1, 0.15), 1, seed=4, steps=2)[0]
    assert float((other.samples - many[0].samples).abs().max()) > 1e-3


def test_what_cannot_be_repaired_is_refused_by_name(model: AudioModel) -> None:
    clip, silent = tone(), Clip(torch.zeros(1, 200), 800)
    with pytest.raises(ValueError, match=r"seconds must lie within the 0.250 s of the clip"):
        model.inpaint(clip, (0.2, 0.4))
    with pytest.raises(ValueError, match="seconds must lie within"):
        model.inpaint(clip, (0.2, 0.1))
    with pytest.raises(ValueError, match="holds no sample at 800 Hz"):
        model.inpaint(clip, (0.1, 0.1001))
    for wrong in (0.3, [0.1, 0.2, 0.25], "ab", [(0.1, 0.2, 0.25)]):
        with pytest.raises(ValueError, match=r"seconds must be \(start, end\), or a list"):
            model.inpaint(clip, wrong)  # type: ignore[arg-type]
    array = clip.samples.numpy()
    calls: list[Callable[[], object]] = [
        lambda: model.inpaint(array, (0.1, 0.2)),  # type: ignore[arg-type]
        lambda: model.extend(array, 0.5),  # type: ignore[arg-type]
        lambda: model.super_resolve(array),  # type: ignore[arg-type]
        lambda: model.edit(array, 0.5),  # type: ignore[arg-type]
        lambda: model.denoise(array, noise_std=0.1),  # type: ignore[arg-type]
    ]
    for call in calls:
        with pytest.raises(ValueError, match=r"clip must be a Clip, got ndarray: Clip\.of makes"):
            call()
    with pytest.raises(ValueError, match="seconds names no segment"):
        model.inpaint(clip, [])
    with pytest.raises(ValueError, match="seconds leaves nothing of the clip"):
        model.inpaint(clip, [(0.0, 0.2), (0.1, 0.25)])
    with pytest.raises(ValueError, match="the clip is silent outside the segments"):
        model.inpaint(silent, (0.1, 0.2))
    with pytest.raises(ValueError, match="its channels cancel"):
        model.inpaint(Clip(torch.cat([clip.samples, -clip.samples]), 800), (0.1, 0.2))
    with pytest.raises(ValueError, match="given names 'digit'"):
        model.inpaint(clip, (0.1, 0.2), given={"digit": 3})
    with pytest.raises(ValueError, match="n must be at least 1"):
        model.inpaint(clip, (0.1, 0.2), 0)
    with pytest.raises(ValueError, match="temperature must not be negative, got -1"):
        model.inpaint(clip, (0.1, 0.2), temperature=-1.0)
    with pytest.raises(ValueError, match=r"seconds must exceed the 0.250 s"):
        model.extend(clip, 0.2)
    with pytest.raises(ValueError, match="the clip is silent: it tells"):
        model.super_resolve(silent, cutoff=100.0)
    with pytest.raises(ValueError, match="nothing is missing; say cutoff"):
        model.super_resolve(clip)
    with pytest.raises(ValueError, match="cutoff must lie above 0 and up to 400 Hz"):
        model.super_resolve(clip, cutoff=500.0)
    with pytest.raises(ValueError, match="leaves no mel bin"):
        model.super_resolve(clip, cutoff=10.0)


def test_guidance_lies_between_what_the_posterior_says_told_and_untold() -> None:
    model, told = shaken(), {"pitch": "low", "attack": 1}
    x = torch.randn(3, 12, 8, generator=torch.Generator().manual_seed(0))
    known = torch.zeros(3, 12, 8, dtype=torch.bool)
    known[:, :6] = True
    state, t = mel_state(list(x)), torch.full((3,), 0.7, dtype=torch.float64)

    def said(given: dict[str, object], scale: float) -> torch.Tensor:
        drawing = Drawing.of(model, 3, given, scale, None, None, 0)
        posterior = drawing.posterior(Mask(known, "mel"), state, 0.05, MMPS(1))
        with torch.no_grad():
            return posterior(state, t).x0["mel"]

    untold = said({}, 1.0)
    between = untold + 3.0 * (said(told, 1.0) - untold)
    torch.testing.assert_close(said(told, 3.0), between, rtol=1e-4, atol=1e-4)
