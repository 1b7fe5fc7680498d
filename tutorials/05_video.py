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
# # Films: move, animate, continue, slow down
#
# A film is more than its pictures. A digit that flies to the right in one frame must be further to
# the right in the next, must still be the same digit, and must turn where the wall is. Whoever draws
# films frame by frame forgets all of that; a diffusion model draws all frames at once, and learns
# what holds them together.
#
# If some frames are there already, the same model draws the others: after a picture (animation),
# after a film (continuation), between frames (slow motion). In this lesson you do all of it, with
# films so small that a second of them takes a blink. All of it runs on a laptop without GPU,
# offline. It needs `pip install "sciffusion[audiovisual]"`.

# %% tags=["parameters"]
import tempfile
import time
from pathlib import Path

import helper
import numpy as np
import torch

from sciffusion.domains import audio, audiovisual, video
from sciffusion.domains.audio import Clip
from sciffusion.domains.video.motion import centres

SEED = 0
N = 16 if helper.QUICK else 64  # films for each judgement
FEW = 2 if helper.QUICK else 12  # films that are continued and slowed down
WINDOWS = 2 if helper.QUICK else 8  # half films by which a film is continued
TRAINING_STEPS = 2 if helper.QUICK else 250  # of a model of our own

figures: dict[str, float] = {}
folder = Path(tempfile.mkdtemp())

# %% [markdown]
# The figures of the last full run, with the hardware and the command that made them. No figure
# stands in the prose, so none can grow stale there.

# %%
helper.published("05_video")

# %% [markdown]
# ## Films whose physics is known
#
# Handwritten digits fly straight, at a constant speed, and bounce off the walls. Such films are made
# by a formula, when they are asked for, so we know exactly what is right. Those of the test show
# digits that the model never saw.

# %%
real = video.MovingDigits(video.digits("test")).films(max(N, 40), seed=1)
print(real, real[0])
real[:4].plot()

# %%
real[:8]

# %% [markdown]
# ## Draw
#
# One model ships with the library. It can be asked by digit; what you don't ask for is drawn as it
# was in training.

# %%
model = video.load("moving-digits")
started = time.process_time()
films = model.sample(N, seed=SEED)
figures["cpu_seconds_per_film"] = round((time.process_time() - started) / N, 3)
films[:8]

# %%
model.sample(4, {"digit": [2, 3, 5, 7]}, seed=SEED).plot()

# %% [markdown]
# Film number three depends on the seed, the number three and what is asked of it alone: ask for four
# or for four thousand, in batches of any size, and it stays the same film.

# %%
again = model.sample(4, seed=SEED, batch_size=3)
difference = (again[3].frames.int() - films[3].frames.int()).abs().max()
assert int(difference) <= 1  # the last bit may round the other way

# %% [markdown]
# ## Judge
#
# * **Agreement**: in how many frames a reader of digits, which never saw a drawn film, reads what
#   was asked for. **Identity**: in how many it reads the digit that it reads most often.
# * **Jitter**: how much the centre of mass strays from its usual step. **Straight**: which share of
#   the steps is the usual one or part of a bounce.
# * **Warp error**: what no motion of small blocks explains of the change between frames.
# * **Frechet distances** compare all films with all real ones, in features of pictures and change.
#
# The column *real data* is the one that counts: the real films, judged in the same way.

# %%
report = films.report(real, seed=SEED)
for name in ("agreement", "identity", "straight", "jitter", "warp_error"):
    figures[name] = round(report[name].value, 3)
    figures[f"{name}_of_real_films"] = round(report.ceiling[name].value, 3)
report

# %% [markdown]
# ## Guidance
#
# The model knows what a film would be with the digit that you asked for, and without. Guidance goes
# from the second to the first and then on: scale 1 is what was learnt, more exaggerates. Does the
# digit become clearer, and does the flight suffer?

# %%
for scale in (0, 1, 2, 4):
    guided = model.sample(N, guidance=scale, seed=SEED).report(seed=SEED)
    for name in ("agreement", "straight"):
        figures[f"{name}_at_scale_{scale}"] = round(guided[name].value, 3)
    print(
        f"scale {scale}: digit read in {guided['agreement'].value:6.1%} of the frames, "
        f"{guided['straight'].value:6.1%} of the steps straight"
    )

# %% [markdown]
# ## Animate a picture
#
# A picture says what flies, but not where to. So there are many films that begin with it; the
# picture itself comes back as the first frame, bit by bit.

# %%
picture = real[2].frames[0]
animated = model.animate(picture, 4, seed=SEED)
for film in animated:
    assert torch.equal(film.frames[0], picture)
animated.plot()

# %% [markdown]
# Two frames say more: speed and direction are known then, and the films should agree as long as no
# wall is near. How far are the digits apart in the last frame, by their centres of mass?

# %%
for count, name in ((1, "a_picture"), (2, "two_frames"), (4, "four_frames")):
    begun = model.extend(real[2][:count], count + 8, max(3, FEW // 2), seed=SEED)
    last = centres(begun.stack().float())[:, -1]
    spread = float(last.std(0).norm())
    figures[f"spread_pixels_after_{name}"] = round(spread, 2)
    print(f"after {name.replace('_', ' ')}: spread {spread:.1f} pixels")

# %% [markdown]
# ## Continue
#
# A film goes on window by window, far beyond the length that the model was trained on: each window
# sees half a window of what came before, the first of it given frames. Errors may add up, so look at
# the end before you trust it.
# Here nobody tells which digit it is, and it is forgotten; `given={"digit": 7}` would hold it.

# %%
half = len(real[0]) // 2
long = [model.extend(film, len(film) + WINDOWS * half, seed=SEED)[0] for film in real[:FEW]]
for film, begun in zip(long, real, strict=False):
    assert torch.equal(film.frames[: len(begun)], begun.frames)
print(long[0])
long[0]

# %%
labels = {"digit": real.labels["digit"][:FEW]}
size = len(real[0])
for name, frames in (("given", slice(0, size)), ("last", slice(-size, None))):
    judged = video.Films([film[frames] for film in long], labels).report(seed=SEED)
    for metric in ("agreement", "identity", "straight"):
        figures[f"continued_{metric}_{name}"] = round(judged[metric].value, 3)
    print(
        f"{name}: the digit of the beginning in {judged['agreement'].value:6.1%} of the frames, "
        f"{judged['straight'].value:6.1%} of the steps straight"
    )

# %% [markdown]
# ## Slow motion
#
# Only every fourth frame is left. The usual remedy is to mix its neighbours, and then there are two
# pale digits where one should be. The model draws frames in which one digit is on its way. As the
# physics is a formula, we know what the frames between really look like.
#
# Two questions, two answers. How far is a pixel from the truth? There, mixing is hard to beat: it
# hedges, and a sharp digit that is off by a pixel is wrong twice, where it is and where it should be.
# The mean of several draws hedges too. And in how many frames is there a digit that can be read?

# %%
fast = video.MovingDigits(video.digits("test")).films(FEW, frames=17, seed=3)
weights = (torch.arange(4) / 4).view(1, 4, 1, 1, 1)
drawn, hedged, mixed = [], [], []
for film in fast:
    kept = video.Film(film.frames[::4], film.rate / 4)
    draws = model.interpolate_time(kept, 4, 4, seed=SEED)
    drawn.append(draws[0])
    hedged.append(video.Film(draws.stack().float().mean(0) / 255, film.rate))
    ends = kept.floats().frames[:, None]
    between = (ends[:-1] * (1 - weights) + ends[1:] * weights).flatten(0, 1)
    mixed.append(video.Film(torch.cat([between, ends[-1]]), film.rate))
gap = torch.arange(17) % 4 != 0
digit = fast.labels
for name, those in (("truth", list(fast)), ("draw", drawn), ("mean", hedged), ("mixing", mixed)):
    frames = torch.stack([film.floats().frames for film in those])[:, gap]
    truth = torch.stack([film.floats().frames for film in fast])[:, gap]
    error = float((frames - truth).square().mean().sqrt())
    read = video.Films([video.Film(x, 8) for x in frames], digit).report(seed=SEED)["agreement"]
    figures[f"between_error_{name}"] = round(error, 4)
    figures[f"between_digit_read_{name}"] = round(read.value, 3)
    print(
        f"{name:<7} error {error:.4f} of 1, digit read in {read.value:6.1%} of the frames between"
    )
rows = {"film": ["truth", "draw", "mean", "mixing"]}
video.Films([fast[0].floats(), drawn[0].floats(), hedged[0], mixed[0]], rows).plot()

# %% [markdown]
# ## Mend
#
# A part of the picture is gone, for the whole film. `mask` is true where pixels are made anew; all
# others come back bit by bit.

# %%
mask = torch.zeros(size, *real[0].size, dtype=torch.bool)
mask[:, 10:22, 10:22] = True
hole = video.Film(torch.where(mask[:, None], torch.tensor(128, dtype=torch.uint8), real[1].frames))
mended = model.inpaint(hole, mask, seed=SEED)[0]
assert torch.equal(mended.frames[~mask[:, None]], real[1].frames[~mask[:, None]])
video.Films([real[1], hole, mended], {"film": ["truth", "hole", "mended"]}).plot()

# %% [markdown]
# ## Train on films of your own
#
# Discs that fall and bounce: a ball is dropped from some height and loses a part of its speed
# whenever it touches the ground. With clips of yours, `films = video.Films.read("clips")` stands
# here, for a folder with a folder of GIF or MP4 files for each class.

# %%
SIDE = 16


def drop(rubber: bool, rng: np.random.Generator) -> video.Film:
    """Eight frames of a ball; one of rubber keeps more of its speed."""
    height, speed, across = rng.uniform(6, 11), 0.0, rng.uniform(4, 11)
    y, x = np.mgrid[:SIDE, :SIDE]
    frames = []
    for step in range(32):
        height, speed = height + speed / 4, speed - 1.5 / 4
        if height < 0:
            height, speed = -height, -speed * (0.9 if rubber else 0.4)
        if step % 4 == 0:
            away = np.hypot(x - across, y - (SIDE - 4 - height))
            frames.append(np.clip(3 - away, 0, 1))
    return video.Film.of(np.stack(frames))


rng = np.random.default_rng(SEED)
rubber = np.arange(32 if helper.QUICK else 400) % 2 == 0
names = np.where(rubber, "rubber", "clay")
balls = video.Films([drop(bool(r), rng) for r in rubber], {"ball": names})
balls[:4].plot()

# %% [markdown]
# A recipe is a file of settings; overrides change single ones, and a misspelt key is an error that
# names the right one. `data.shapes` are the lengths and sizes of the windows to learn from.

# %%
recipe = video.recipe(
    "moving-digits",
    [
        f"model.shape=[8,{SIDE},{SIDE}]",
        "model.network.patch=8",
        "model.network.width=96",
        "model.network.depth=4",
        "model.attributes=[ball]",
        f"data.shapes=[[8,{SIDE},{SIDE}]]",
        "data.valid=null",
        f"train.steps={TRAINING_STEPS}",
        "train.batch_size=16",
        "train.warmup=30",
        "train.ema.value=0.99",
        "train.validate_every=0",
        "train.print_seconds=30",
    ],
)
started = time.process_time()
own, state = video.train(recipe, folder / "balls", balls)
assert not state.stopped, f"this run was ended by {state.stopped}"
figures["own_training_cpu_seconds"] = round(time.process_time() - started, 1)
own.sample(4, {"ball": ["rubber", "clay"] * 2}, seed=SEED).plot()

# %% [markdown]
# Does rubber bounce and clay not? How high is the ball above the lowest place of its film, on the
# average, after it has touched the ground?


# %%
def bounce(films: video.Films) -> float:
    """The mean height of the ball in the frames after its lowest one, in pixels."""
    y = centres(films.stack().float())[..., 0].numpy()
    lowest = y.argmax(1)
    after = [row[i] - row[i + 1 :] for row, i in zip(y, lowest, strict=True) if i + 1 < len(row)]
    return float(np.concatenate(after).mean()) if after else 0.0


for name in ("rubber", "clay"):
    made = own.sample(N, {"ball": name}, seed=SEED)
    for whose, those in (("real", balls[balls.labels["ball"] == name]), ("drawn", made)):
        figures[f"bounce_pixels_{name}_{whose}"] = round(bounce(those), 2)
        print(f"{name:<7}{whose:<6} {bounce(those):.2f} pixels")

# %% [markdown]
# ## Films with sound
#
# A digit appears in the dark, and in the same moment a voice says which one it is. Picture and sound
# are two fields of one model: each has a noise level of its own, and both attend to each other. So
# one model draws scenes, the sound to a film, and the film to a sound. Films have no text here to
# tell them what to show: the digit and the speaker can be asked for, or left open.

# %%
talking = audiovisual.load("talking-digits")
scenes = talking.sample(N, {"digit": [i % 10 for i in range(N)]}, seed=SEED)
scenes[:2].plot()

# %%
scenes[7]  # in a notebook it plays

# %% [markdown]
# Do both halves belong together? Two judges that know nothing of each other look and listen. What
# would two models do, one of films and one of sounds, each asked for the same digit? They agree on
# what, but not on when: neither knows when the other begins.

# %%
halves = talking.sample(N, {"digit": [i % 10 for i in range(N)]}, apart=True, seed=SEED)
free = talking.sample(N, {"digit": None, "speaker": None}, seed=SEED)
for name, those in (("asked", scenes), ("two_models", halves), ("open", free)):
    for what, metric in those.report(seed=SEED).metrics.items():
        figures[f"scenes_{name}_{what}"] = round(metric.value, 3)
        print(f"{name:<11} {what:<10} {metric.value:.3f} {metric.unit}")

# %% [markdown]
# A sound to a film that is there: a film of this lesson, dark for the first half second. And a film
# to a sound that is there: a voice of another model, that of the lesson on sound. Which digit it is,
# the model finds out by itself: it asks which one explains best what is there.

# %%
rate = talking.config.rate
dark = torch.arange(talking.config.shape[0]) < rate / 2
silent = [
    video.Film(torch.where(dark[:, None, None, None], 0, film.frames), film.rate)
    for film in video.MovingDigits(video.digits("test")).films(FEW, frames=len(dark), seed=5)
]
sounds = talking.sound_of(silent, seed=SEED)
sounds[:2].plot()

# %%
voice = audio.load("fsdd").sample(FEW, {"digit": [i % 10 for i in range(FEW)]}, seed=SEED)
late = [
    Clip(torch.nn.functional.pad(clip.mono().samples, (clip.rate // 2, 0)), clip.rate)
    for clip in voice
]
shown = talking.film_of(late, seed=SEED)
for name, those in (("sound_to_film", sounds), ("film_to_sound", shown)):
    for what, metric in those.report(seed=SEED).metrics.items():
        figures[f"scenes_{name}_{what}"] = round(metric.value, 3)
        print(f"{name:<14} {what:<10} {metric.value:.3f} {metric.unit}")
shown[:2].plot()

# %% [markdown]
# ## Your own files

# %%
films[:4].save(folder / "films.npz")  # films and labels as they are
films[0].save(folder / "film.gif")
films[0].save(folder / "film.mp4")
assert torch.equal(video.Film.read(folder / "film.gif").frames, films[0].frames)
print(video.Films.read(folder / "films.npz"), video.Film.read(folder / "film.mp4", grey=True))

# %% [markdown]
# What cannot be a film is refused, and the error says what to do.

# %%
for wrong in (
    lambda: video.Film.of(255 * np.random.default_rng(0).random((8, 16, 16))),
    lambda: model.animate(picture[0]),
    lambda: model.sample(1, {"digit": "seven"}),
    lambda: model.interpolate_time(real[0][:1]),
):
    try:
        wrong()
    except ValueError as error:
        print(error)

# %% [markdown]
# Where next: `sciffusion --help` for all of this on the command line; `domains/video/README.md` for
# how the model works, what it can and cannot do, and for real films; `domains/audiovisual/README.md`
# for films with their sound.

# %%
for name, value in figures.items():
    print(f"{name:<44} {value:g}")
