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
# # Molecules from noise
#
# Take a molecule and shake it: move every atom a little at random, swap a few elements, then again,
# harder, until nothing is left but a cloud of anonymous points. Each single shake is easy to undo
# for somebody who knows chemistry. A diffusion model learns exactly that, and nothing else. Started
# from a cloud that never was a molecule, it still undoes shakes that nobody made, and ends on a
# molecule that nobody drew.
#
# In this lesson you sample such molecules, look at them, find out how good they are (and how one
# can fool oneself about that), watch one form, and train a model on molecules of your own. All of
# it runs on a laptop without GPU. It needs `pip install "sciffusion[molecules]"`.

# %% tags=["parameters"]
import tempfile
import time

import helper
import numpy as np
import torch

from sciffusion.domains import molecules

SEED = 0
N = 8 if helper.QUICK else 500  # molecules to sample
STEPS = [2, 4] if helper.QUICK else [10, 20, 50, 100]  # denoising steps to compare
TRAINING_STEPS = 3 if helper.QUICK else 2000  # of a model of our own

figures: dict[str, float] = {}

# %% [markdown]
# The figures of the last full run, with the hardware and the command that made them. No figure
# stands in the prose, so none can grow stale there.

# %%
helper.published("01_molecules")

# %% [markdown]
# ## Load and sample
#
# One model ships with the library. It was trained on QM9: small organic molecules of up to nine
# heavy atoms (C, N, O, F) with all their hydrogens, at geometries from density functional theory.
# It never saw a bond. What it knows are elements and positions, and bonds are drawn afterwards from
# distances, by the table that the field uses.

# %%
model = molecules.load("qm9")
print({key: value for key, value in (model.info or {}).items() if key != "recipe"})

# %%
started = time.process_time()
mols = model.sample(N, seed=SEED)
figures["seconds_per_molecule"] = round((time.process_time() - started) / N, 4)
mols[:24]

# %% [markdown]
# In a notebook you can turn them: click a structure, then drag. Molecule number seven depends on
# the seed and on the number seven alone. Ask for ten or for ten thousand, in batches of any size:
# it stays the same molecule, so you can write `(seed 0, molecule 7)` in a lab book and find it
# again.

# %%
assert np.allclose(model.sample(3, seed=SEED).positions, mols[:3].positions, atol=1e-3)

# %% [markdown]
# A molecule is at home in the tools that you know: `mols[0].rdkit()`, `mols[0].ase()`,
# `mols.to_pyg()`, `mols.save("mols.sdf")`. A boolean array selects.

# %%
print(mols[0])
good = mols[mols.stable & mols.connected]
print(f"{len(good)} of {len(mols)} are stable and in one piece")

# %%
mols[:24].plot(columns=8)

# %% [markdown]
# Pink rings mark atoms whose valence is not allowed. What is wrong with the others?

# %%
for mol in mols[~mols.valid][:5]:
    print(f"{mol.formula:<12} {mol.problem}")

# %% [markdown]
# ## Judge
#
# Three questions, in this order:
#
# * **Is it chemistry?** *Stability*: every atom has an allowed valence. *Validity*: RDKit accepts
#   the molecule. *Connectedness*: it is one piece. The second is easier to satisfy than the first,
#   and a model may buy validity with fragments.
# * **Is it new?** *Uniqueness* among the samples; *novelty*: not in the reference, which is QM9's
#   test set here. Mind what that means. QM9 lists nearly all molecules within its own rules, so a
#   perfect model of it makes hardly any that are in none of its parts. Novelty is no praise there.
# * **Is the geometry right?** Bond lengths, angles and torsions beside those of real molecules.
#
# The column *real data* is the one that counts. Real molecules do not score 100 % either, because
# the table of distances errs, and a model can at best be as good as they are. Every figure has an
# interval: with a hundred molecules, a difference of a few per cent means nothing.

# %%
real = helper.real_molecules()
report = mols.report(real, seed=SEED)
print(report)
for name in ("molecule_stability", "validity", "valid_and_connected", "uniqueness"):
    figures[name] = round(report[name].value, 4)
    figures[f"{name}_of_real_molecules"] = round(report.ceiling[name].value, 4)

# %% [markdown]
# Distances can be right one by one while the molecule as a whole is under strain. Quantum
# chemistry tells: GFN2-xTB relaxes some of the molecules, and the energy that they give up is the
# strain that the model left in them.

# %%
few = 2 if helper.QUICK else 50
strained = mols.report(n_xtb=few, seed=SEED)
relaxed = real[: 100 if helper.QUICK else 2000].report(n_xtb=few, seed=SEED)
for name, judged in (("samples", strained), ("real molecules", relaxed)):
    strain = judged["strain_median"]
    print(f"{name:<15} {strain.value:.1f} kcal/mol  (95 %: {strain.low:.1f} to {strain.high:.1f})")
    figures[f"strain_of_{name.replace(' ', '_')}_kcal_mol"] = round(strain.value, 2)

# %% [markdown]
# ## How many steps?
#
# A step is one look of the network at all atoms. With fewer steps sampling is faster, and the noise
# level falls in larger leaps. Where does a further step stop paying?

# %%
for steps in STEPS:
    quick = model.sample(min(N, 200), seed=SEED, steps=steps, progress=False)
    stable = float(quick.stable.mean())
    figures[f"molecule_stability_at_{steps}_steps"] = round(stable, 4)
    print(f"{steps:>4} steps: {stable:6.1%} stable")

# %% [markdown]
# ## Watch one form
#
# `model.sample` is a thin layer over the core, which knows no molecules. Underneath is a *denoiser*
# (what would the clean molecule be, given this noisy one?) under a *process* (how noise is added),
# and a *sampler* walks from time 1, pure noise, to time 0. Here we walk ourselves and keep the path.

# %%
from sciffusion import Noise
from sciffusion.domains.molecules.adapter import atom_classes, molecule_state

atoms = 18
blank = molecule_state(
    model.config, torch.zeros(1, atoms, 3), torch.zeros(1, atoms, dtype=torch.long)
)
noise = Noise([SEED])
start = model.denoiser.process.prior(blank, noise)
path = model.sampling.sampler()(model.denoiser, start, noise, path=True).path
print(f"{len(path)} states from noise to molecule, {start}")

# %%
moments = np.linspace(0, len(path) - 1, 8).round().astype(int)
frames = [
    molecules.Molecules.from_padded(
        path[i]["pos"] * model.config.scale,
        model.config.vocabulary.decode(atom_classes(path[i]["atom"])),
        np.ones((1, atoms)),
    )
    for i in moments
]
molecules.Molecules.concatenate(frames).plot(columns=8)

# %% [markdown]
# Each frame is drawn with the bonds that its distances suggest, so the first ones are a tangle: in
# a cloud of noise any two points may be near each other. Try other seeds and other numbers of
# atoms, and see when a cloud makes up its mind. Or hand `path` another sampler of the core: they
# all take the same denoiser.

# %% [markdown]
# ## Train on molecules of your own
#
# Suppose that you have some molecules with geometries and want more like them. We take some sixty
# small ones, and let RDKit make twenty conformers of each. Any arrays do: atomic numbers,
# positions, and where each molecule begins (`MoleculeSet.from_arrays`). `chain_ordered` puts every
# hydrogen after its heavy atom, which the network can make use of.

# %%
own = helper.conformers(helper.SMALL, 2 if helper.QUICK else 20).chain_ordered()
print(own)

# %% [markdown]
# A recipe is a file of settings; overrides change single ones, and a misspelt key is an error that
# names the right one. We make the network small.

# %%
recipe = molecules.recipe(
    "qm9",
    [
        "model.network.d_model=64",
        "model.network.layers=3",
        "model.network.heads=4",
        f"train.steps={TRAINING_STEPS}",
        "train.batch_size=64",
        "train.warmup=50",
        "train.precision=fp32",
        "train.ema.value=0.995",
        "train.validate_every=0",
        "train.print_seconds=30",
    ],
)
task = molecules.MoleculeTask(recipe, own)
for title, denoiser in (("ours", task.model()), ("shipped", model.denoiser)):
    print(f"{title}: {sum(p.numel() for p in denoiser.parameters()):,} parameters")

# %% [markdown]
# The run lives in a folder. Interrupt it, call it again, and it goes on with the very numbers that
# it would have had without the interruption; `state.stopped` says whether it was interrupted. (To
# train on QM9 itself, one line does all of this:
# `molecules.train(molecules.recipe("qm9"), "runs/qm9")`.)

# %%
from sciffusion.training import train

started = time.process_time()
with tempfile.TemporaryDirectory() as folder:
    state = train(task, recipe.train, folder)
assert not state.stopped, f"this run was ended by {state.stopped}"
figures["own_training_cpu_seconds"] = round(time.process_time() - started, 1)
small = molecules.MoleculeModel.from_training(task, state.ema.state_dict())

# %%
ours = small.sample(8 if helper.QUICK else 200, seed=SEED)
seen = helper.as_molecules(own)
report = ours.report(seen, seed=SEED)
print(report)
for name in ("molecule_stability", "validity", "valid_and_connected", "valid_unique_novel"):
    figures[f"own_{name}"] = round(report[name].value, 4)
ours[ours.valid & ours.connected][:24] if (ours.valid & ours.connected).any() else ours

# %% [markdown]
# This network has only ever seen some sixty molecules, for a minute or two. Look at *novelty*: has
# it learnt them by heart, or what carbon, nitrogen and oxygen may do? More steps, more molecules, a
# wider network: the rest is patience.
#
# Where next: `sciffusion --help` for all of this on the command line; `domains/molecules/README.md`
# for what the shipped model can and cannot do; `model.sample(given=...)` for models that were
# trained with properties.

# %%
for name, value in figures.items():
    print(f"{name:<44} {value:g}")
