# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Sounds: speak, repair, extend
#
# A spectrogram is a picture of a sound: time to the right, frequency upwards, brightness for how
# loud. A diffusion model that has learnt what such pictures look like can draw new ones, and a new
# picture is a new sound. It can also complete a picture that lacks a piece: a gap in time is a
# damaged recording, missing frequencies are a telephone, and one picture that should be two are
# two people who speak at once.
#
# In this lesson a small model says digits, and one and the same model then does all of that. At the
# end you train one of your own. All of it runs on a laptop without GPU, offline. It needs
# `pip install "sciffusion[audio]"`.

# %% tags=["parameters"]
import tempfile
import time
from pathlib import Path

import helper
import numpy as np
import torch

from sciffusion.domains import audio
from sciffusion.domains.audio.metrics import log_spectral_distance, si_sdr

SEED = 0
N = 8 if helper.QUICK else 120  # clips for each judgement
FEW = 2 if helper.QUICK else 20  # clips to repair, to sharpen and to speak again
MIXTURES = 1 if helper.QUICK else 6  # of two digits
TRAINING_STEPS = 3 if helper.QUICK else 1000  # of a model of our own

figures: dict[str, float] = {}
folder = Path(tempfile.mkdtemp())

# %% [markdown]
# The figures of the last full run, with the hardware and the command that made them. No figure
# stands in the prose, so none can grow stale there.

# %%
helper.published("03_audio")

# %% [markdown]
# ## Speak
#
# One model ships with the library. It learnt from recordings of six people who say digits at a
# telephone's bandwidth (the Free Spoken Digit Dataset). It can be asked by digit and by speaker;
# what you don't ask for is drawn as it was in the recordings, the duration too.

# %%
model = audio.load("fsdd")
for name, classes in zip(model.attributes, model.config.classes, strict=True):
    print(f"{name}: {', '.join(classes)}")

# %%
seven = model.sample(1, {"digit": 7, "speaker": "theo"}, seed=SEED)[0]
seven

# %% [markdown]
# Press play. Outside of a notebook, `seven.save("seven.wav")` writes a file (the suffix says which
# format). Above, a picture of it; with the waveform:

# %%
seven.plot()

# %% [markdown]
# Many at once: one value for all clips, or a list with one for each.

# %%
digits = model.sample(10, {"digit": range(10), "speaker": "jackson"}, seed=SEED)
digits

# %%
digits.plot()

# %% [markdown]
# Clip number seven depends on the seed, the number seven and what is asked of it alone: ask for ten
# or for ten thousand, in batches of any size, and it stays the same clip.

# %%
again = model.sample(10, {"digit": range(10), "speaker": "jackson"}, seed=SEED, batch_size=3)
assert torch.allclose(again[7].samples, digits[7].samples, atol=1e-3)

# %% [markdown]
# A boolean array of labels selects, as it does in numpy: `digits[digits.labels["digit"] == "4"]`.
# (Labels are the names of the model's classes, so they are strings.)
#
# ## Judge
#
# Does it say what was asked? A *judge* tells: a small network that learnt from the recordings alone,
# and never heard our model. It errs too. The column *real data* says how often it is right on
# recordings that it had not heard, and no model can be found better than that.

# %%
speakers = model.config.classes[model.attributes.index("speaker")]
asked = {
    "digit": np.arange(N) % 10,
    "speaker": np.array(speakers)[np.arange(N) // 10 % len(speakers)],
}
started = time.process_time()
clips = model.sample(N, asked, seed=SEED)
figures["cpu_seconds_per_clip"] = round((time.process_time() - started) / N, 3)
figures["cpu_seconds_per_second_of_sound"] = round(
    (time.process_time() - started) / sum(clip.seconds for clip in clips), 3
)
report = clips.report(seed=SEED)
report

# %% [markdown]
# ## Guidance
#
# The model knows two answers at every step: what the sound would be with what you asked for, and
# what it would be if nothing was asked. *Guidance* goes from the second to the first and then on.
# Scale 0 ignores the question, 1 is what was learnt, more exaggerates. What does that do to the
# accuracy, and to the variety?
#
# Variety we measure between clips of the same digit by the same speaker: the mean distance of the
# judge's features, relative to that at scale 1.

# %%
from sciffusion.domains.audio.judges import Judge

judge = Judge.load("fsdd")
same = {"digit": 3, "speaker": "george"}


def variety(clips: audio.Clips) -> float:
    """The mean distance between the features of two clips."""
    features = torch.from_numpy(judge(clips).features)
    return float(torch.pdist(features).mean())


usual = variety(model.sample(max(3, N // 6), same, guidance=1, seconds=0.4, seed=SEED))
for scale in (0, 1, 2, 4):
    guided = model.sample(N, asked, guidance=scale, seed=SEED).report(seed=SEED)
    alike = model.sample(max(3, N // 6), same, guidance=scale, seconds=0.4, seed=SEED)
    figures[f"digit_accuracy_at_scale_{scale}"] = round(guided["digit_accuracy"].value, 3)
    figures[f"speaker_accuracy_at_scale_{scale}"] = round(guided["speaker_accuracy"].value, 3)
    figures[f"variety_at_scale_{scale}"] = round(variety(alike) / usual, 2)
    print(
        f"scale {scale}: digit right {guided['digit_accuracy'].value:6.1%}, speaker right "
        f"{guided['speaker_accuracy'].value:6.1%}, variety {variety(alike) / usual:.2f}"
    )
figures["digit_accuracy_of_recordings"] = round(judge.held_out["digit"], 3)
figures["speaker_accuracy_of_recordings"] = round(judge.held_out["speaker"], 3)

# %% [markdown]
# If nothing is said, the model takes its own scale, which was chosen when it was made. Fewer steps
# are faster: `model.sample(..., steps=4)`. Try how few you can hear.
#
# ## Repair
#
# Now the other direction: a sound is given, and a part of it is missing. With a file of yours,
# `clip = audio.Clip.read("seven.wav")` stands here. Ours is a digit that was said above, and a
# tenth of a second in its middle is lost.

# %%
clip = digits[8]
middle = clip.seconds / 2
gap = (middle - 0.05, middle + 0.05)


def silenced(clip: audio.Clip, gap: tuple[float, float]) -> audio.Clip:
    """The clip with silence in the gap."""
    samples = clip.samples.clone()
    samples[:, round(gap[0] * clip.rate) : round(gap[1] * clip.rate)] = 0
    return audio.Clip(samples, clip.rate)


damaged = silenced(clip, gap)
repaired = model.inpaint(damaged, gap, 3, seed=SEED)
audio.Clips([clip, damaged, *repaired], {"clip": ["intact", "damaged", *["repaired"] * 3]}).plot()

# %% [markdown]
# Three fillings, for nobody knows what was there; each begins and ends as its surroundings demand.
# We did not even tell which digit it is (`given={"digit": 8}` would). Outside of the gap, nothing
# changes: not a little, but bit by bit.

# %%
start, end = (round(t * clip.rate) for t in gap)
for one in repaired:
    assert torch.equal(one.samples[:, :start], damaged.samples[:, :start])
    assert torch.equal(one.samples[:, end:], damaged.samples[:, end:])
repaired[0]

# %% [markdown]
# Is it what was there? We damage some clips, and ask the judge which digit it hears before, with
# the gap, and after. The log-spectral distance to the undamaged clip, over the gap alone, says how
# near a filling comes in decibels.

# %%
some = clips[:FEW]
gaps = [(c.seconds / 2 - 0.05, c.seconds / 2 + 0.05) for c in some]
broken = [silenced(c, g) for c, g in zip(some, gaps, strict=True)]
filled = [model.inpaint(c, g, seed=SEED)[0] for c, g in zip(broken, gaps, strict=True)]
for name, these in (("intact", some), ("broken", broken), ("filled", filled)):
    heard = judge(list(these)).right("digit", some.labels["digit"]).mean()
    figures[f"digit_accuracy_{name}"] = round(float(heard), 3)
    print(f"{name}: digit right {heard:6.1%}", end="")
    if name == "intact":
        print()
        continue
    distance = np.mean(
        [
            log_spectral_distance(made.cut(*g), truth.cut(*g))
            for made, truth, g in zip(these, some, gaps, strict=True)
        ]
    )
    figures[f"gap_log_spectral_distance_{name}_db"] = round(float(distance), 2)
    print(f", {distance:5.1f} dB from the intact sound in the gap")

# %% [markdown]
# ## Extend
#
# A sound that goes on is a sound with a gap at its end. `seconds` is the length of the whole, and it
# may be far beyond all that the model was trained on: windows overlap, and each continues the one
# before. The model only knows people who say one digit. Let us hear what follows one.

# %%
longer = model.extend(digits[1], 1.2 if helper.QUICK else 3.0, 2, seed=SEED)
assert torch.equal(longer[0].samples[:, : digits[1].samples.shape[1]], digits[1].samples)
longer

# %%
longer.plot(columns=1)

# %% [markdown]
# ## Sharpen
#
# Half of the samples are gone, as they are after a bad line: nothing above half of the band is
# left. `super_resolve` draws what could have been there. The lower band is untouched. Our model does
# it as it filled the gap. A smaller one that ships, `audio.load("fsdd-band")`, has learnt nothing
# else; it is asked by the same verb.

# %%
dull = digits[6].resample(4000)
sharp = model.super_resolve(dull, 2, seed=SEED)
audio.Clips([digits[6], dull, *sharp], {"clip": ["intact", "dull", "sharp", "sharp"]}).plot()

# %%
low = [c.resample(4000) for c in some]
made = [model.super_resolve(c, seed=SEED)[0] for c in low]
for name, these in (("interpolated", [c.resample(8000) for c in low]), ("sharpened", made)):
    distance = np.mean([log_spectral_distance(a, b) for a, b in zip(these, some, strict=True)])
    figures[f"log_spectral_distance_{name}_db"] = round(float(distance), 2)
    print(f"{name:<13}{distance:5.1f} dB from the sound with all frequencies")

# %% [markdown]
# ## Take apart
#
# Two people speak at once. Each of them alone is something that the model knows, so it looks for two
# sounds that are both likely and that add up to what was heard. What do we know of each? The more
# is said, the better; here, who says what.

# %%
who = [{"digit": 6, "speaker": "theo"}, {"digit": 9, "speaker": "nicolas"}]
gains = []
for i in range(MIXTURES):
    truth = [model.sample(1, w, seconds=0.5, seed=SEED + i)[0] for w in who]
    mixture = audio.Clip(truth[0].samples + truth[1].samples, truth[0].rate)
    parts = model.separate(mixture, who, seed=SEED)
    gains += [si_sdr(a, b) - si_sdr(mixture, b) for a, b in zip(parts, truth, strict=True)]
figures["separation_si_sdr_gain_db"] = round(float(np.mean(gains)), 2)
print(f"SI-SDR gain {np.mean(gains):.1f} dB, mean over {len(gains)} sources")
names = ["mixture", "six", "nine", "six, found", "nine, found"]
audio.Clips([mixture, *truth, *parts], {"clip": names}).plot()

# %%
audio.Clips([mixture, *parts], {"clip": ["mixture", "six, found", "nine, found"]})

# %% [markdown]
# The gain is how many decibels nearer to its truth a part lies than the mixture did (SI-SDR, the
# scale-invariant ratio of signal to distortion). White noise is a second speaker that is simpler:
# `model.denoise(clip, snr=10)`.
#
# ## The same word in another voice
#
# Add noise to a clip, but not all of it, and let the model go back as somebody else. What survives
# the noise stays. `strength` says how far to go, in the time of the process: at 0 nothing happens, at
# 1 nothing is left but the duration. A sound says the same thing at many frequencies and frames, so
# much noise is needed before a voice is forgotten, and the interesting range is near the end. We tell
# the model the word and the new speaker.

# %%
others = np.where(some.labels["speaker"] == "lucas", "theo", "lucas")
for percent in (60, 80, 95):
    spoken = [
        model.edit(c, percent / 100, given={"digit": digit, "speaker": who}, seed=SEED)[0]
        for c, digit, who in zip(some, some.labels["digit"], others, strict=True)
    ]
    verdict = judge(spoken)
    word = float(verdict.right("digit", some.labels["digit"]).mean())
    voice = float(verdict.right("speaker", others).mean())
    figures[f"edit_{percent}_percent_digit_kept"] = round(word, 3)
    figures[f"edit_{percent}_percent_speaker_reached"] = round(voice, 3)
    print(f"strength {percent / 100:.2f}: word kept {word:6.1%}, voice reached {voice:6.1%}")

# %%
edited = model.edit(digits[5], 0.95, given={"digit": 5, "speaker": "theo"}, seed=SEED)[0]
audio.Clips([digits[5], edited], {"clip": ["as it was", "by theo"]})

# %% [markdown]
# `model.interpolate(a, b)` walks from one sound to another, `model.log_likelihood` says how likely
# it finds one, and `guidance=audio.Towards(audio.brightness, target)` steers by any differentiable
# property of the sound.
#
# ## Train on sounds of your own
#
# Strings, plucked: a harmonic $k$ of a string that is plucked at a share $p$ of its length has an
# amplitude of $\sin(\pi k p) / k$ and fades the faster the higher it is. We pluck each note of a
# scale a few times, at random places.

# %%
RATE = 8000
SCALE = [55, 57, 59, 60, 62, 64, 66, 67]  # MIDI notes


def hertz(pitch: float) -> float:
    """The frequency of a MIDI note."""
    return float(440 * 2 ** ((pitch - 69) / 12))


def pluck(pitch: int, rng: np.random.Generator) -> audio.Clip:
    """Half a second of a string."""
    t = np.arange(RATE // 2) / RATE
    k = np.arange(1, int(0.45 * RATE / hertz(pitch)) + 1)[:, None]
    place, decay = rng.uniform(0.1, 0.5), rng.uniform(3, 6)
    waves = np.sin(np.pi * k * place) / k * np.sin(2 * np.pi * k * hertz(pitch) * t)
    return audio.Clip.of((waves * np.exp(-decay * k**0.7 * t)).sum(0), RATE).normalised()


rng = np.random.default_rng(SEED)
pitches = np.repeat(SCALE, 4 if helper.QUICK else 40)
strings = audio.Clips([pluck(p, rng) for p in pitches], {"pitch": pitches})
print(strings)
strings[:: len(strings) // 4].plot()

# %% [markdown]
# `Clips` are clips with labels, and that is all that training needs. A recipe is a file of
# settings; overrides change single ones, and a misspelt key is an error that names the right one.
# We take that of the shipped model, make the network small, and let it be asked by pitch. A window of
# the spectrogram that is twice as long tells the harmonics of a low note apart.

# %%
recipe = audio.recipe(
    "fsdd",
    [
        "model.attributes=[pitch]",
        "model.mel.n_fft=512",
        "model.mel.hop=128",
        "model.network.width=96",
        "model.network.depth=3",
        "model.network.embedding=64",
        f"train.steps={TRAINING_STEPS}",
        "train.batch_size=32",
        "train.warmup=50",
        "train.ema.value=0.99",
        "train.validate_every=0",
        "train.print_seconds=30",
    ],
)
started = time.process_time()
own, state = audio.train(recipe, folder / "strings", strings)
assert not state.stopped, f"this run was ended by {state.stopped}"
figures["own_training_cpu_seconds"] = round(time.process_time() - started, 1)
print(f"{sum(p.numel() for p in own.denoiser.parameters()):,} parameters")

# %% [markdown]
# The run lives in a folder: interrupt it, call it again, and it goes on with the very numbers that
# it would have had. Its model lies beside, as `model.safetensors`, for `audio.load`.

# %%
rounds = 1 if helper.QUICK else 10
played = own.sample(rounds * len(SCALE), {"pitch": SCALE * rounds}, seed=SEED)
played[: len(SCALE)].plot(columns=4)

# %% [markdown]
# A tune, note after note:

# %%
tune = [own.sample(1, {"pitch": p}, seed=SEED + i)[0] for i, p in enumerate([55, 59, 62, 67])]
audio.Clip(torch.cat([note.samples for note in tune], dim=1), RATE)

# %% [markdown]
# Are they in tune? The autocorrelation of a sound peaks at its period. A semitone is a hundred
# cents, and half of that is where one note becomes the next.


# %%
def heard_cents(clip: audio.Clip, pitch: float) -> float:
    """How far a sound is from a MIDI note, by the peak of its autocorrelation."""
    x = clip.samples[0].double().numpy()
    power = np.abs(np.fft.rfft(x, 2 * len(x))) ** 2
    finer = 8  # lags of an eighth of a sample
    lags = np.fft.irfft(power, 2 * finer * len(x))[10 * finer : 60 * finer]
    period = (10 + int(lags.argmax()) / finer) / clip.rate
    return float(1200 * np.log2(1 / period / hertz(pitch)))


for name, these in (("strings", strings[::4]), ("samples", played)):
    cents = np.array(
        [heard_cents(c, float(p)) for c, p in zip(these, these.labels["pitch"], strict=True)]
    )
    right = float((np.abs(cents) < 50).mean())
    figures[f"own_in_tune_{name}"] = round(right, 3)
    figures[f"own_median_cents_{name}"] = round(float(np.median(np.abs(cents))), 1)
    print(
        f"{name}: {right:6.1%} within a quarter tone, median {np.median(np.abs(cents)):.1f} cents"
    )

# %% [markdown]
# And a model that you trained does what the shipped one does: a string whose pluck was lost.

# %%
headless = own.inpaint(strings[0], (0.0, 0.1), given={"pitch": SCALE[0]}, seed=SEED)
audio.Clips([strings[0], *headless], {"clip": ["intact", "with another pluck"]}).plot()

# %% [markdown]
# ## Your own files
#
# A folder of sounds of any format, rate and number of channels; labels come from a table beside
# them. Models bring what they are given to their own rate and loudness, and give back what you
# gave: here a stereo file at another rate is repaired, at that rate, in both channels.

# %%
played.save(folder / "notes" / "note.wav")
back = audio.read(folder / "notes")
print(back, sorted(path.name for path in (folder / "notes").iterdir())[:3])

# %%
left = digits[2].resample(22050)
stereo = audio.Clip(torch.cat([left.samples, 0.3 * left.samples]), left.rate)
stereo.save(folder / "two.flac")
mended = model.inpaint(audio.Clip.read(folder / "two.flac"), (0.1, 0.15), seed=SEED)[0]
print(mended)

# %% [markdown]
# Arrays as well: floats as they are, 16-bit integers divided by what they can hold. What cannot be
# a sound is refused, and the error says what to do.

# %%
print(audio.Clip.of((1000 * np.sin(np.arange(4000) / 5)).astype(np.int16), 8000))
for wrong in (
    lambda: audio.Clip.of(np.zeros((4000, 2)), 8000),
    lambda: model.inpaint(clip, (5.0, 6.0)),
    lambda: model.sample(1, {"speaker": "teo"}),
):
    try:
        wrong()
    except ValueError as error:
        print(error)

# %% [markdown]
# Where next: `sciffusion --help` for all of this on the command line; `domains/audio/README.md` for
# what the models can and cannot do; `audio.recipe("notes")` for twenty instruments,
# `audio.recipe("fsdd-text")` for a model that is asked in words.

# %%
for name, value in figures.items():
    print(f"{name:<44} {value:g}")
