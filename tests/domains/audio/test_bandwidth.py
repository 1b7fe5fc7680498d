"""Laws of the model of a missing band: what is given is kept, nothing leaks, and what is learnt comes back."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from sciffusion.cli import main
from sciffusion.domains.audio import (
    BandExtender,
    Clip,
    Clips,
    GriffinLim,
    MelConfig,
    load,
    train,
)
from sciffusion.domains.audio.bandwidth import BandConfig, band_state
from sciffusion.domains.audio.bandwidth_task import BandTask, BandTraining
from sciffusion.domains.audio.datasets import split
from sciffusion.domains.audio.given import Heard
from sciffusion.domains.audio.recovery import banded
from sciffusion.domains.audio.standard import Standard
from sciffusion.training import TrainConfig, export

FSDD = Path(__file__).parents[4] / "shared/data/audio/fsdd/fsdd.npz"
CONFIG = BandConfig(
    rate=800, n_fft=64, hop=16, cutoffs=(150.0, 220.0), floor=1e-2, width=16, depth=2, embedding=8
)
SETTINGS = BandTraining(
    model=CONFIG,
    time_mean=1.0,
    train=TrainConfig(steps=150, batch_size=8, lr=1e-2, warmup=5, log_every=50),
)


def voices(n: int = 16, seed: int = 0) -> Clips:
    """Clips of 0.2 to 0.4 s: a tone below the cut-off, and one above it whose strength the lower one tells."""
    rng = np.random.default_rng(seed)
    clips = []
    for i in range(n):
        t = np.arange(int(rng.integers(160, 320))) / 800
        low, high = (60, 0.3) if i % 2 else (120, 0.003)
        wave = 0.3 * np.sin(2 * np.pi * low * t) + high * np.sin(2 * np.pi * 300 * t)
        clips.append(Clip.of((wave + 1e-3 * rng.standard_normal(len(t))).astype(np.float32), 800))
    return Clips(clips)


@pytest.fixture(scope="module")
def shaken() -> BandExtender:
    """Random weights, no output of which is zero."""
    denoiser, g = CONFIG.denoiser(), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in denoiser.parameters():
            p.copy_(0.15 * torch.randn(p.shape, generator=g))
    standard = Standard(torch.zeros(CONFIG.bins), torch.ones(CONFIG.bins))
    return BandExtender(CONFIG, denoiser.eval(), standard)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[BandExtender, Path]:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("band")
    made, state = train(SETTINGS, folder, voices())
    assert state.step == 150 and isinstance(made, BandExtender)
    return made, folder / "model.safetensors"


def test_the_given_band_is_kept_and_the_one_above_is_made(shaken: BandExtender) -> None:
    clip = voices(1)[0].resample(400)
    up = clip.resample(800).samples[0]
    for out in shaken.super_resolve(clip, 2, steps=2):
        assert out.rate == 800 and out.samples.shape == (1, len(up))
        mine, given = torch.fft.rfft(out.samples[0]), torch.fft.rfft(up)
        low = torch.arange(len(mine)) <= 180 / 800 * len(up)
        torch.testing.assert_close(mine[low], given[low], rtol=1e-3, atol=2e-2)
        assert float(mine[~low].abs().mean()) > 2 * float(given[~low].abs().mean())


def test_what_lies_above_the_cut_off_is_not_looked_at(shaken: BandExtender) -> None:
    clip = voices(1)[0]
    size = clip.samples.shape[1]
    tone = 0.2 * torch.hann_window(size) * torch.sin(2 * torch.pi * 330 / 800 * torch.arange(size))
    made, same = (
        shaken.super_resolve(c, cutoff=180.0, steps=2)[0].samples
        for c in (clip, Clip(clip.samples + tone, 800))
    )
    torch.testing.assert_close(made, same, rtol=0, atol=1e-2)


def test_a_clip_depends_neither_on_its_neighbours_nor_on_padding(shaken: BandExtender) -> None:
    g = torch.Generator().manual_seed(1)
    sizes = torch.tensor([9, 5, 1])
    x, low = (torch.randn(3, 9, k, generator=g) for k in (CONFIG.upper, CONFIG.bins))
    known = CONFIG.known(torch.tensor([160.0, 180.0, 200.0]))
    t = torch.tensor(0.6)
    state = band_state(x, sizes)
    many = shaken.denoiser(state, t, {"low": low, "known": known}).x0
    wild = band_state(torch.where(state.layout("band").clean(x) == 0, 1e3, x), sizes)
    beyond = torch.where(state.layout("band").clean(low) == 0, -1e3, low)
    padded = shaken.denoiser(wild, t, {"low": beyond, "known": known}).x0
    for i, n in enumerate(sizes.tolist()):
        alone = band_state(x[i : i + 1, :n], sizes[i : i + 1])
        one = shaken.denoiser(alone, t, {"low": low[i : i + 1, :n], "known": known[i : i + 1]}).x0
        for other in (many, padded):
            torch.testing.assert_close(other["band"][i, :n], one["band"][0], rtol=1e-4, atol=1e-5)


def test_a_variant_depends_on_seed_and_place_alone(shaken: BandExtender) -> None:
    clip = voices(1)[0].resample(400)
    many, few = (shaken.super_resolve(clip, n, seed=3, steps=2) for n in (3, 2))
    for a, b in zip(many, few, strict=False):
        # Griffin-Lim magnifies what rounding leaves
        assert float((a.samples - b.samples).square().mean()) < 0.05 * float(
            (a.samples - many[2].samples).square().mean()
        )
    other = shaken.super_resolve(clip, seed=4, steps=2)[0]
    assert float((other.samples - many[0].samples).abs().max()) > 1e-3
    cold = shaken.super_resolve(clip, 2, temperature=0.0, steps=2)
    torch.testing.assert_close(cold[0].samples, cold[1].samples, rtol=1e-2, atol=2e-3)


def test_a_mean_of_draws_is_that_of_their_levels(shaken: BandExtender) -> None:
    # at a temperature near zero all is affine in the noise, so means of many draws are those without noise
    clip = voices(1)[0].resample(400)
    cold = shaken.super_resolve(clip, temperature=0.0, steps=2)[0].samples
    one, mean = (
        shaken.super_resolve(clip, temperature=0.05, draws=n, steps=2)[0].samples - cold
        for n in (1, 64)
    )
    assert float(mean.square().mean()) < 0.3 * float(one.square().mean())


def test_what_the_known_band_tells_is_learnt(trained: tuple[BandExtender, Path]) -> None:
    for clip in voices(4, seed=1):
        made = trained[0].super_resolve(clip.resample(400), draws=4)[0]
        size = min(made.samples.shape[1], clip.samples.shape[1])
        x, y = (CONFIG.framing.analyse(c.samples[:, :size])[0].abs() for c in (made, clip))
        tone = round(300 / 800 * 64)
        # strong or weak: 40 dB lie between
        error = 20 * (x[tone].mean().log10() - y[tone].mean().log10())
        assert abs(float(error)) < 10


def test_a_trained_model_is_read_back_as_it_was_written(
    trained: tuple[BandExtender, Path], tmp_path: Path
) -> None:
    made, path = trained
    read = load(path)
    assert isinstance(read, BandExtender)
    with pytest.raises(ValueError, match="recovery: .* makes no mel spectrograms"):
        load(path, GriffinLim(MelConfig()))
    assert read.config == CONFIG and read.sampling == made.sampling
    recipe = BandTask(SETTINGS, voices()).describe()
    assert read.info == {"steps": 150, "clips": 16, "recipe": recipe}
    for name, tensor in made.denoiser.state_dict().items():
        torch.testing.assert_close(read.denoiser.state_dict()[name], tensor, rtol=1e-3, atol=1e-5)
    export({"x": torch.zeros(1)}, tmp_path / "other.safetensors", {"kind": "audio"})
    with pytest.raises(ValueError, match="not a model of a missing band"):
        BandExtender.from_file(tmp_path / "other.safetensors")


def test_what_is_known_is_neither_learnt_nor_seen_noised() -> None:
    task, cpu = BandTask(SETTINGS, voices(8)), torch.device("cpu")
    model, (state, cond) = task.model(), task.batch(np.arange(8), 0, torch.device("cpu"))
    assert 1 < len(set(cond["known"].sum(1).tolist()))  # cut-offs of their own
    known = cond["known"][:, None, -CONFIG.upper :]
    g = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=g))
    other = state.replace({"band": torch.where(known, 5.0, state["band"])})
    a, b = (task.losses(model, (x, cond), 3).per_sample for x in (state, other))
    torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
    above = torch.where(cond["known"][:, None], cond["low"], 7.0)
    c = task.losses(model, (state, cond | {"low": above}), 3).per_sample
    torch.testing.assert_close(a, c, rtol=1e-4, atol=1e-5)
    assert task.batch(np.arange(8), 1, cpu)[1]["known"].ne(cond["known"]).any()


def test_a_sharp_cut_keeps_what_lies_below_and_drops_the_rest() -> None:
    t = torch.arange(400) / 800
    low, high = (torch.sin(2 * torch.pi * f * t) for f in (100, 200))
    cut = CONFIG.lower(torch.stack([low + high] * 2), torch.tensor([150.0, 210.0]))
    torch.testing.assert_close(cut, torch.stack([low, low + high]), rtol=0, atol=1e-4)


def test_the_command_line_widens_a_file(
    trained: tuple[BandExtender, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    narrow, wide = tmp_path / "narrow.wav", tmp_path / "wide.wav"
    voices(1)[0].resample(400).save(narrow)
    asked = ["sample", "audio", "--model", str(trained[1]), "--out", str(wide)]
    assert main([*asked, "--clip", str(narrow), "--cutoff", "170"]) == 0
    made = trained[0].super_resolve(Clip.read(narrow), cutoff=170.0)[0]
    got = Clip.read(wide)
    assert got.rate == 800 and got.samples.shape == made.samples.shape
    assert main(asked) == 2
    assert "given must hold clip" in capsys.readouterr().err


def test_every_weight_has_a_finite_gradient() -> None:
    task = BandTask(SETTINGS, voices(4))
    model = task.model()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.1)  # gates begin at zero
    task.loss(model, task.batch(np.arange(4), 0, torch.device("cpu")), 0).mean.backward()
    for name, p in model.named_parameters():
        assert p.grad is not None and bool(p.grad.isfinite().all()) and bool(p.grad.any()), name


def test_batches_are_those_of_their_key_and_hold_both_bands_at_one_level() -> None:
    task = BandTask(SETTINGS, voices(4))
    rows, cpu = np.arange(4), torch.device("cpu")
    (x, cond), (y, _), (z, _) = (task.batch(rows, k, cpu) for k in (1, 1, 2))
    assert torch.equal(x["band"], y["band"]) and not torch.equal(x["band"][:, :5], z["band"][:, :5])
    levels = task.standard.decode(cond["low"][0])
    # the tone below the cut-off is at 120 Hz, 10 bins up, and is what has the peak of 0.5
    peak = levels[4:8].exp().amax(1)
    torch.testing.assert_close(peak, torch.full((4,), 0.5 * 32 / 2), rtol=0.2, atol=0)


def test_what_cannot_be_done_is_refused_by_name(shaken: BandExtender) -> None:
    clip = voices(1)[0]
    low = clip.resample(400)
    with pytest.raises(ValueError, match=r"between 150 and 220 Hz, .* trained on, got 90"):
        shaken.super_resolve(clip.resample(200))
    with pytest.raises(ValueError, match=r"nothing is missing; say cutoff"):
        shaken.super_resolve(clip)
    with pytest.raises(ValueError, match=r"cutoff must lie above 0 and up to 200 Hz, got 210"):
        shaken.super_resolve(clip.resample(400), cutoff=210.0)
    with pytest.raises(ValueError, match="n must be at least 1"):
        shaken.super_resolve(low, 0)
    with pytest.raises(ValueError, match="temperature must not be negative"):
        shaken.super_resolve(low, temperature=-1.0)
    with pytest.raises(ValueError, match="the clip is silent"):
        shaken.super_resolve(Clip(torch.zeros(1, 200), 400))
    with pytest.raises(ValueError, match=r"cond must hold low, \(B, 4, 33\)"):
        shaken.denoiser(band_state(torch.zeros(1, 4, CONFIG.upper), torch.tensor([4])), 0.5)
    with pytest.raises(ValueError, match="it holds \\['clap'\\]"):
        shaken.sample(1, {"clap": low})
    with pytest.raises(ValueError, match="cutoff must be a frequency in Hz, got 'low'"):
        shaken.sample(1, {"clip": low, "cutoff": "low"})
    for wrong in ((0.0, 100.0), (200.0, 100.0), (100.0, 400.0)):
        with pytest.raises(ValueError, match="cutoffs must lie in order above 0 and below 400 Hz"):
            replace(CONFIG, cutoffs=wrong)
    with pytest.raises(ValueError, match="kernel odd"):
        replace(CONFIG, kernel=4)
    with pytest.raises(AttributeError, match="no 'inpaint': it has super_resolve and sample"):
        shaken.inpaint(low, (0.1, 0.2))  # type: ignore[attr-defined]
    assert not hasattr(shaken, "extend")


@pytest.mark.skipif(not FSDD.is_file(), reason="needs the spoken digits")
def test_the_one_that_ships_is_far_nearer_to_held_out_digits_than_their_mean_spectrum() -> None:
    band = load("fsdd-band")
    assert isinstance(band, BandExtender)
    c = band.config

    def distance(made: Clip, truth: Clip) -> float:
        size = min(made.samples.shape[1], truth.samples.shape[1])
        x, y = (
            c.framing.analyse(clip.samples[:, :size])[0, 58:].abs().clamp(min=1e-3).log10()
            for clip in (made, truth)
        )
        return float((20 * (x - y)).square().mean(0).sqrt().mean())

    for truth in split("fsdd:test", FSDD)[::100]:
        clip = truth.resample(4000)
        heard = Heard.of(clip, c)
        mean = band.standard.mean.exp()[None, :, None].expand(
            -1, -1, c.framing.frames(len(heard.wave))
        )
        plain = banded(c.framing, mean.contiguous(), heard.wave, 1800 / c.rate) / heard.gain
        made = band.super_resolve(clip, draws=2)[0]
        assert distance(made, truth) < 0.75 * distance(Clip(plain, c.rate), truth)
