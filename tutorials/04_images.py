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
# # Images: draw, complete, change, steer
#
# Images are where diffusion models became famous. What the large ones do with a billion weights, a
# small one does with a few hundred thousand, on pictures so small that every step takes
# milliseconds: the mechanisms are the same, and here you can look at each of them.
#
# In this lesson you draw digits by class, find out what guidance does, complete halves, turn one
# digit into another, walk between two, steer a trained model by edges (ControlNet), ask one in words, and
# train a model of pictures of your own, in pixels and in the latent of an autoencoder. All of it runs on a
# laptop without GPU, offline. It needs `pip install "sciffusion[images]"`.

# %% tags=["parameters"]
import tempfile
import time
from pathlib import Path

import helper
import numpy as np
import torch

from sciffusion.domains import images

SEED = 0
N = 40 if helper.QUICK else 500  # images for each judgement
FEW = 20 if helper.QUICK else 100  # images that are completed, changed and steered
CONTROL_STEPS = 3 if helper.QUICK else 400  # of training a control
TRAINING_STEPS = 3 if helper.QUICK else 500  # of each of our own models
CODEC_STEPS = 3 if helper.QUICK else 300  # of an autoencoder, and of a judge

figures: dict[str, float] = {}
folder = Path(tempfile.mkdtemp())

# %% [markdown]
# The figures of the last full run, with the hardware and the command that made them. No figure
# stands in the prose, so none can grow stale there.

# %%
helper.published("04_images")

# %% [markdown]
# ## Draw
#
# One model that ships learnt handwritten digits of eight by eight pixels, which lie inside
# scikit-learn. Every fifth of them it never saw; those are our real images in what follows.

# %%
model = images.load("digits")
digits, _ = images.DATASETS["digits"](None)
real = digits[digits.labels["part"] == "test"]
print(real)
real[:40].plot(columns=10)

# %%
started = time.process_time()
drawn = model.sample(N, seed=SEED)  # the classes in turn
figures["cpu_seconds_per_image"] = round((time.process_time() - started) / N, 4)
drawn[:40].plot(columns=10)

# %% [markdown]
# `model.sample(16, given={"label": 7})` draws sevens only. Image number three depends on the seed,
# the number three and what is asked of it alone: ask for four or for four thousand, in batches of
# any size, and it stays the same image.

# %%
assert torch.allclose(model.sample(4, seed=SEED).pixels, drawn[:4].pixels, atol=1e-3)

# %% [markdown]
# ## Judge
#
# A *judge* is a small classifier that saw real digits alone. It tells whether an image is the digit
# that was asked for, and its features tell how far two sets of images lie apart:
#
# * **Frechet and kernel distance** compare the sets as a whole. They are no FID, for that is the
#   distance in the features of another network.
# * **Precision**: are the images among the real ones? **Recall**: are the real ones among them?
#   A model that draws one perfect seven again and again has all of the first and none of the second.
#
# In the column *real data*, real images take the place of the drawn ones. Nothing can be better
# than that but by chance.

# %%
report = drawn.report(real, seed=SEED)
for name in ("accuracy", "frechet", "precision", "recall"):
    figures[name] = round(report[name].value, 3)
    figures[f"{name}_of_real_images"] = round(report.ceiling[name].value, 3)
report

# %% [markdown]
# ## Guidance
#
# The model knows what an image would be with what you asked for, and without. *Guidance* goes from
# the second to the first, and then on: scale 0 ignores the question, 1 is what was learnt, more
# exaggerates. Watch accuracy and recall.

# %%
for scale in (0, 1, 2, 5):
    guided = model.sample(N, guidance=scale, seed=SEED).report(real, seed=SEED)
    for name in ("accuracy", "precision", "recall"):
        figures[f"{name}_at_scale_{scale}"] = round(guided[name].value, 3)
    print(
        f"scale {scale}: accuracy {guided['accuracy'].value:6.1%}, precision "
        f"{guided['precision'].value:6.1%}, recall {guided['recall'].value:6.1%}"
    )

# %%
model.sample(20, given={"label": [1, 4, 7, 8] * 5}, guidance=5, seed=SEED).plot()

# %% [markdown]
# ## Complete
#
# The lower halves of some digits are lost. `mask` is true where a pixel is known. What was known
# stays, bit by bit; the rest is drawn so that it fits. What the digit is, the model takes from the
# labels of the images, if they have any; here it is not told, `given={"label": None}`.

# %%
some = real[:FEW]
mask = torch.ones(some.size, dtype=torch.bool)
mask[4:] = False
completed = model.inpaint(some, mask, given={"label": None}, seed=SEED)
assert torch.equal(completed.pixels[..., :4, :], some.to_floats().pixels[..., :4, :])
halves = images.Images(torch.where(mask, some.to_floats().pixels, 0.0), some.labels)
images.Images(torch.cat([x.to_floats().pixels[:10] for x in (some, halves, completed)])).plot(
    columns=10
)

# %% [markdown]
# How often does the judge hear the digit that it was? Some halves tell, and of others nobody could
# know: the upper half of a 3 is that of an 8, a 9, or a 2. A completion that is another digit is no
# mistake, as long as it is a digit.

# %%
judge = images.load_judge("digits")


def recognised(these: images.Images, labels: np.ndarray) -> float:
    """The share of the images that the judge takes for what the labels say."""
    return float(these.labelled(label=labels).report(seed=SEED)["accuracy"].value)


for name, these in (("whole", some), ("halves", halves), ("completed", completed)):
    figures[f"accuracy_{name}"] = round(recognised(these, some.labels["label"]), 3)
    print(f"{name:<10}{figures[f'accuracy_{name}']:6.1%} recognised")

# %% [markdown]
# `model.outpaint(images, (2, 2, 2, 2))` continues beyond the edges in the same way.
#
# ## Change
#
# Add noise, but not all of it, and let the model go back as something else. What survives the noise
# stays: how thick the pen was, how the digit leans. `strength` says how far to go, from 0, nothing,
# to 1, a new image. Every digit becomes an eight:

# %%
for percent in (40, 60, 80):
    changed = model.edit(some, percent / 100, given={"label": 8}, seed=SEED)
    eight = recognised(changed, np.full(FEW, "8"))
    distance = float((changed.pixels - some.to_floats().pixels).square().mean().sqrt())
    figures[f"edit_{percent}_percent_accuracy"] = round(eight, 3)
    figures[f"edit_{percent}_percent_distance"] = round(distance, 3)
    print(
        f"strength {percent / 100:.1f}: an eight in {eight:6.1%}, {distance:.3f} from where it began"
    )

# %%
steps = [model.edit(some[:8], s, given={"label": 8}, seed=SEED) for s in (0, 0.4, 0.6, 0.8)]
images.Images(torch.cat([x.pixels for x in steps])).plot(columns=8)

# %% [markdown]
# ## Walk from one to another
#
# A sampler without randomness can be run backwards, from an image to the noise that it is made of.
# Between two such noises lies a path, and every point of it is an image.

# %%
walk = model.interpolate(real[:4], real[4:8], 8)
ends = (walk.pixels[::8] - real[:4].to_floats().pixels).abs().mean()
figures["interpolation_error_at_the_ends"] = round(float(ends), 4)
images.Images(walk.pixels).plot(columns=8)

# %% [markdown]
# ## Steer by edges
#
# The model was trained to be asked by class. Now we want to say *where* the lines are. ControlNet
# adds a copy of the network's first half that sees a hint and speaks to the second half through
# layers that begin at zero: before training, nothing changes at all.

# %%
controlled = model.controlled()
untrained = controlled.sample(10, given={"edges": real[:10]}, seed=SEED)
assert torch.equal(untrained.pixels, model.sample(10, seed=SEED).pixels)

# %% [markdown]
# Training moves the copy alone; the model that it sits on keeps every weight. A recipe is a file of
# settings; overrides change single ones, and a misspelt key is an error that names the right one.

# %%
recipe = images.recipe(
    "fashion-edges",
    [
        "base=digits",
        "data.source=digits:train",
        "data.valid=null",
        f"train.steps={CONTROL_STEPS}",
        "train.warmup=20",
        "train.lr=2e-3",
        "train.ema.value=0.98",
        "train.validate_every=0",
        "train.print_seconds=30",
    ],
)
started = time.process_time()
controlled, state = images.train(recipe, folder / "edges")
assert not state.stopped, f"this run was ended by {state.stopped}"
figures["control_training_cpu_seconds"] = round(time.process_time() - started, 1)
for name, parameter in model.denoiser.named_parameters():
    kept = controlled.denoiser.state_dict()[name.replace("net.", "net.base.", 1)]
    assert torch.equal(parameter, kept), name

# %%
labels = some.labels["label"]
hint = {"label": labels, "edges": some}
followed = controlled.sample(FEW, given=hint, seed=SEED)
free = model.sample(FEW, given={"label": labels}, seed=SEED)
images.Images(torch.cat([x.to_floats().pixels[:10] for x in (some, followed, free)])).plot(
    columns=10
)

# %% [markdown]
# Above the digits whose edges were given, in the middle what was drawn after them, below what the
# model without control makes of the same noise. How near do they come, and are they still digits?
# (A tenth of the images showed no edges in training, another tenth no class: either may be left out.)

# %%
for name, these in (("with_edges", followed), ("without_edges", free)):
    distance = float((these.pixels - some.to_floats().pixels).square().mean().sqrt())
    figures[f"distance_{name}"] = round(distance, 3)
    figures[f"accuracy_{name}"] = round(recognised(these, labels), 3)
    print(f"{name}: {distance:.3f} from the digit, {recognised(these, labels):6.1%} recognised")

# %% [markdown]
# ## Ask in words
#
# Other models are asked by a text. `glyphs`, which ships too, learnt to write: up to four small letters, in five
# colours, at nine places. It reads what stands in quotes letter by letter, so it can write words that it never saw
# (needs `pip install "sciffusion[images,text]"`).

# %%
writer = images.load("glyphs")
said = [
    'the word "moon" in white letters in the middle',
    'the word "sun" in yellow letters at the top right',
    '"leaf" in green letters at the bottom left',
    'red letters that spell "mars" at the bottom right',
]
writer.sample(len(said), given={"text": said}, seed=SEED).plot(columns=4)

# %% [markdown]
# ## Train on pictures of your own
#
# Four shapes, in any colour, at any place. With a folder of pictures of yours, a folder for each
# class in it, `shapes = images.Images.read("pictures")` stands here.

# %%
SHAPES = ("disc", "ring", "square", "cross")
SIDE = 16


def draw(shape: str, rng: np.random.Generator) -> np.ndarray:
    """One picture of a shape, (SIDE, SIDE, 3), 0 to 1."""
    y, x = np.mgrid[:SIDE, :SIDE] - rng.uniform(5, SIDE - 6, (2, 1, 1))
    radius, r = rng.uniform(3, 5), np.hypot(x, y)
    within = {
        "disc": radius - r,
        "ring": 1 - np.abs(radius - r),
        "square": 0.9 * radius - np.maximum(abs(x), abs(y)),
        "cross": np.minimum(1.2 - np.minimum(abs(x), abs(y)), radius - r),
    }
    cover = np.clip(within[shape] + 0.5, 0, 1)[..., None]  # edges are soft
    ink, paper = rng.uniform(0, 0.6, 3), rng.uniform(0.85, 1, 3)
    return cover * ink + (1 - cover) * paper


rng = np.random.default_rng(SEED)
kinds = np.array(SHAPES)[np.arange(200 if helper.QUICK else 2000) % len(SHAPES)]
shapes = images.Images.of(np.stack([draw(kind, rng) for kind in kinds]), {"label": kinds})
unseen = shapes[-len(shapes) // 5 :]
seen = shapes[: -len(unseen)]
print(seen)
seen[:24].plot(columns=8)

# %%
common = ["data.valid=null", "train.validate_every=0", "train.print_seconds=30", "train.warmup=30"]
network = [
    "model.channels=3",
    "model.network.width=96",
    "model.network.depth=4",
    f"train.steps={TRAINING_STEPS}",
    "train.batch_size=32",
    "train.ema.value=0.99",
    *common,
]
started = time.process_time()
pixels, state = images.train(
    images.recipe("digits", [*network, "model.network.patch=4"]), folder / "pixels", seen
)
assert not state.stopped, f"this run was ended by {state.stopped}"
figures["own_training_cpu_seconds_pixels"] = round(time.process_time() - started, 1)

# %%
pixels.sample(24, seed=SEED).plot(columns=8)

# %% [markdown]
# ## In the latent of an autoencoder
#
# Large images have too many pixels for a large network. *Latent diffusion* first learns to squeeze
# them: an autoencoder makes of each square of pixels a few numbers and back, and the diffusion model
# then works on those. Ours keeps a twelfth of the numbers; of photographs one keeps about a
# fiftieth.

# %%
started = time.process_time()
squeeze, _ = images.train(
    images.recipe(
        "fashion-autoencoder",
        [*common, "model.channels=3", f"train.steps={CODEC_STEPS}", "train.ema.value=0.98"],
    ),
    folder / "autoencoder",
    seen,
)
figures["own_training_cpu_seconds_autoencoder"] = round(time.process_time() - started, 1)
with torch.no_grad():
    original = unseen.to_floats().pixels
    latent = squeeze.encode(original)
    error = float((squeeze.decode(latent) - original).square().mean().sqrt())
print(f"{tuple(original.shape[1:])} become {tuple(latent.shape[1:])}, error {error:.3f} of 1")
figures["autoencoder_error"] = round(error, 4)

# %%
started = time.process_time()
latents, state = images.train(
    images.recipe(
        "digits",
        [
            *network,
            "model.network.patch=1",
            f"autoencoder={folder / 'autoencoder' / 'model.safetensors'}",
        ],
    ),
    folder / "latent",
    seen,
)
assert not state.stopped, f"this run was ended by {state.stopped}"
figures["own_training_cpu_seconds_latent"] = round(time.process_time() - started, 1)
latents.sample(24, seed=SEED).plot(columns=8)

# %% [markdown]
# Which is better? A judge of our own decides: a classifier that is trained on the real shapes. All
# that was said of judges holds: it may err, and real pictures beside it say how much.

# %%
classifier, _ = images.train(
    images.recipe("digits-classifier", [*common, f"train.steps={CODEC_STEPS}", "model.channels=3"]),
    folder / "judge",
    seen,
)
for name, own in (("pixels", pixels), ("latent", latents)):
    judged = images.evaluate(
        own.sample(len(unseen) // 2, seed=SEED), unseen, classifier=classifier, seed=SEED
    )
    for metric in ("accuracy", "frechet", "recall"):
        figures[f"own_{metric}_{name}"] = round(judged[metric].value, 3)
        figures[f"own_{metric}_real"] = round(judged.ceiling[metric].value, 3)
    print(name, judged)

# %% [markdown]
# Both networks have the same width and depth, see as many tokens, and took as many steps. To the one
# a token is a square of raw pixels, to the other a few numbers that the autoencoder chose so that
# they say what matters; but that had to be trained first, and what it loses, nobody brings back.
#
# ## Your own files

# %%
drawn[:12].save(folder / "grid.png")  # one picture
drawn.save(folder / "drawn.npz")  # pixels and labels as they are
drawn[:12].save(folder / "pictures")  # a folder for each class
back = images.Images.read(folder / "drawn.npz")
assert torch.equal(back.pixels, drawn.pixels)
print(images.Images.read(folder / "pictures"))

# %% [markdown]
# Bytes run from 0 to 255, floats from 0 to 1, and which of both never changes silently. What cannot
# be an image is refused, and the error says what to do.

# %%
for wrong in (
    lambda: images.Images.of(255 * np.random.default_rng(0).random((4, 8, 8))),
    lambda: model.inpaint(some, torch.ones(8, 8)),
    lambda: model.sample(1, given={"label": "seven"}),
    lambda: model.edit(seen[:1], given={"label": 8}),
):
    try:
        wrong()
    except ValueError as error:
        print(error)

# %% [markdown]
# Where next: `images.load("fashion")`, a larger model of clothes that ships too and has the same verbs;
# `sciffusion --help` for all of this on the command line; `domains/images/README.md` for what the
# models can and cannot do.

# %%
for name, value in figures.items():
    print(f"{name:<44} {value:g}")
