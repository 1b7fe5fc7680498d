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
# # Shapes: sets of points in space
#
# A shape is a set of points: of a scanned surface, of the atoms of a molecule's backbone, of anything
# that has places. A set has no first point, and two sets may differ in size; the model's network
# is a transformer that knows no order, so it takes any number of points.
#
# In this lesson you draw shapes by class, judge them beside real ones, complete a half, walk from
# one shape to another, and train a model of your own. It needs `pip install "sciffusion[shapes]"`.

# %% tags=["parameters"]
import tempfile
from pathlib import Path

import helper
import numpy as np
import torch

from sciffusion.domains import shapes

SEED = 0
N = 20 if helper.QUICK else 200  # shapes that are judged
FEW = 4 if helper.QUICK else 20  # shapes that are completed
POINTS = 24 if helper.QUICK else 64  # of a shape
TRAINING_STEPS = 3 if helper.QUICK else 250  # of our own model

figures: dict[str, float] = {}
folder = Path(tempfile.mkdtemp())

# %% [markdown]
# The figures of the last full run, with the hardware and the command that made them. No figure
# stands in the prose, so none can grow stale there.

# %%
helper.published("06_shapes")

# %% [markdown]
# ## Draw
#
# Superquadrics are surfaces with an equation: boxes, cylinders, double cones, ellipsoids and
# octahedra, of any proportions. Real ones are made from a seed, as many as you like.

# %%
model = shapes.load("superquadrics")
real = shapes.superquadrics(2 * N, seed=1)
drawn = model.sample(N, points=POINTS, seed=SEED)  # the classes in turn
drawn[:10].plot()

# %% [markdown]
# Shape number three depends on the seed and the number three alone, however many are drawn, and
# you ask for a class, or for another number of points:

# %%
box = model.sample(1, given={"label": "box"}, points=3 * POINTS, seed=SEED)
box.plot()

# %% [markdown]
# ## Judge
#
# Distances between sets are taken over assignments: every point goes to one of the other set (earth
# mover's distance), or to the nearest (Chamfer). From them:
#
# * **1-NNA**: how often is the nearest neighbour of a shape of its own kind, real or drawn? Half the
#   time is best.
# * **Coverage**: how many real shapes are the nearest one of some drawn one?
# * **MMD**: how far is the nearest drawn shape from a real one?
#
# As the equations are known, two more ask each shape alone: is it nearest to a surface of the class
# that was asked for, and how far beside it do the points lie? In the column *real data* other real
# shapes take the place of the drawn ones; nothing can be better than that but by chance.

# %%
report = drawn.report(real, seed=SEED)
for name in ("1nna_emd", "coverage_emd", "mmd_emd", "as_asked", "off_surface"):
    figures[name] = round(report[name].value, 4)
    figures[f"{name}_of_real_shapes"] = round(report.ceiling[name].value, 4)
report

# %% [markdown]
# ## Complete
#
# A scanner sees one side. Of some real shapes we keep the points above the middle and let the model add
# as many again. What was known stays, bit by bit. The class is told by the labels that the shapes
# carry; with `given={"label": None}` the model has to guess.

# %%
whole = real[:FEW].thinned(2 * POINTS, seed=SEED)
upper = [x[x[:, 2].argsort(descending=True)[:POINTS]] for x in whole.parts()]
halves = shapes.Shapes.of(upper, whole.labels)
completed = model.complete(halves, 2 * POINTS, seed=SEED)
assert torch.equal(completed.parts()[0][:POINTS], halves.parts()[0])
shapes.Shapes.joined([x[:4] for x in (whole, halves, completed)]).plot()

# %% [markdown]
# How far beside a surface of the right class do the points lie, over their distance from the
# centre? And are the lower halves there: how low do the completed shapes reach, beside the real ones?

# %%
judged = completed.report(seed=SEED)
figures["completed_as_asked"] = round(judged["as_asked"].value, 3)
figures["completed_off_surface"] = round(judged["off_surface"].value, 4)
lowest = [
    np.array([float(x[:, 2].min()) for x in these.parts()]) for these in (whole, halves, completed)
]
figures["depth_of_halves"] = round(float(lowest[1].mean() / lowest[0].mean()), 3)
figures["depth_of_completed"] = round(float(lowest[2].mean() / lowest[0].mean()), 3)
print({name: figures[name] for name in figures if "depth" in name or "completed" in name})

# %% [markdown]
# ## Walk from one to another
#
# Without randomness a sampler can be run backwards, from a shape to the noise that it is made of.
# Points of two shapes are matched so that their noise is as near as it can be, and between the two
# noises lies a path.

# %%
a, b = (real[[i]].thinned(POINTS, seed=SEED) for i in (0, 3))
model.interpolate(a, b, 4).plot()

# %% [markdown]
# ## Train a model of your own
#
# A recipe is a file of settings. Here a model learns spheres, tori and other primitives for a
# moment, too short to be good; on your own points, `shapes.Shapes.read("folder")` takes the place
# of `shapes.primitives`.

# %%
settings = shapes.recipe(
    "superquadrics", ["data.valid=null", f"train.steps={TRAINING_STEPS}", "train.warmup=20"]
)
mine, state = shapes.train(settings, folder / "mine", shapes.primitives(500, seed=0))
own = mine.sample(N, points=POINTS, seed=SEED)
learnt = own.report(shapes.primitives(2 * N, seed=1), seed=SEED)
for name in ("1nna_emd", "as_asked", "off_surface"):
    figures[f"own_{name}"] = round(learnt[name].value, 4)
own[:10].plot()

# %% [markdown]
# Trained for longer, the same model ships: `shapes.load("primitives")`. `model.save(file)` keeps yours,
# and from the command line it is `sciffusion train shapes --config superquadrics --out runs/mine`.
