"""Two stages or one: does a text's image come nearer to what was meant through an embedding? (DALL-E 2.)

    python benchmarks/images_two_stage.py --runs runs/two-stage

Scenes of two shapes are asked by detailed texts, of held-out scenes, from a model in one stage (the recipe ``scenes``)
and from two: ``scenes-prior`` makes an embedding of the text, ``scenes-decoder`` an image of it (Ramesh et al. 2022).
Prior and decoder are meant to train for as many CPU seconds together as the one stage does; the page tells how many.
The embedder, which DALL-E 2 found ready made, takes more. ``text as image`` gives the decoder the embedding of the text
in place of the prior's, ``image`` that of the real scene: its variations, and the most that a prior could reach.

``cosine`` is that of the embeddings of the image made and of the real scene whose text was asked. ``own`` is the
embedder that the two stages use; ``other`` one of another seed that nothing was trained on, so it alone compares
fairly. The attributes are read by arithmetic on pixels, as in ``images_text_detail.py``. ``spread`` is the mean
difference between two images of one request, over that of two real scenes.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from images_text_detail import draw, shares, trained
from measure import environment, write

from sciffusion.domains.images import Embedder, ImageModel, Images, Prior, TwoStage
from sciffusion.domains.images.captions import SceneCaptions
from sciffusion.domains.images.datasets import split
from sciffusion.domains.images.datasets.scenes import read_scenes

RESULTS = Path(__file__).parent / "results"


class Runs:
    """Recipes trained in a folder, with the CPU seconds of each."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.seconds, self.steps = folder, dict[str, float](), dict[str, int]()

    def train(self, name: str, recipe: str, steps: int, *more: str) -> Any:
        """What a recipe makes after so many steps."""
        said = [f"train.steps={steps}", *more]
        made, self.seconds[name] = trained(recipe, said, self.folder / name)
        self.steps[name] = steps
        return made


def main() -> None:
    """Train, ask, print and store."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=Path, required=True, help="where to train")
    parser.add_argument("--steps", type=int, default=2000, help="of the one stage")
    parser.add_argument("--decoder-steps", type=int, default=1600)
    parser.add_argument("--prior-steps", type=int, default=800)
    parser.add_argument("--embedder-steps", type=int, default=800)
    parser.add_argument("--other-steps", type=int, default=400, help="of the embedder that judges")
    parser.add_argument("--n", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(1)
    runs = Runs(args.runs)
    embedder = runs.train("embedder", "scenes-embedder", args.embedder_steps)
    other = runs.train("other", "scenes-embedder", args.other_steps, "train.seed=1")
    file = f"embedder={args.runs / 'embedder' / 'model.safetensors'}"
    prior = runs.train("prior", "scenes-prior", args.prior_steps, file)
    decoder = runs.train("decoder", "scenes-decoder", args.decoder_steps, file)
    one = runs.train("one", "scenes", args.steps)
    assert isinstance(embedder, Embedder) and isinstance(other, Embedder)
    assert isinstance(prior, Prior) and isinstance(decoder, ImageModel)
    two = TwoStage(embedder, prior, decoder)
    test = split("scenes:test")[: args.n]
    texts = SceneCaptions().texts(test, args.seed, 1.0)
    real = {"own": embedder.embed(test), "other": other.embed(test)}
    vectors = {
        "prior": prior.sample(args.n, texts, seed=args.seed),
        "text as image": embedder.references(embedder.embed_texts(texts)),
        "image": embedder.references(real["own"]),
    }

    def made(name: str, seed: int) -> Images:
        if name == "one stage":
            return one.sample(args.n, given={"text": texts}, seed=seed, progress=False)
        return two.decode(vectors[name], seed=seed)

    def cosines(images: Images) -> dict[str, float]:
        seen = {"own": embedder.embed(images), "other": other.embed(images)}
        return {k: float((seen[k] * real[k]).sum(1).mean()) for k in seen}

    apart = float((test.to_floats().pixels - test.to_floats().pixels.roll(1, 0)).abs().mean())
    rows: dict[str, dict[str, float]] = {
        "real scenes": {**cosines(test), "spread": 1.0, **shares(read_scenes(test), test.labels)},
        "other real scenes": {k: float((v * v.roll(1, 0)).sum(1).mean()) for k, v in real.items()},
    }
    shown = [test]
    for name in ("one stage", *vectors):
        first, second = made(name, args.seed), made(name, args.seed + 7)
        spread = float((first.pixels - second.pixels).abs().mean()) / apart
        found = shares(read_scenes(first), test.labels)
        rows[name] = {**cosines(first), "spread": spread, **found}
        shown.append(first)
    draw(shown, RESULTS / "images_two_stage.png")
    unit = embedder.vectors(vectors["prior"])
    told = {
        "prior": float((unit * real["own"]).sum(1).mean()),
        "text": float((embedder.embed_texts(texts) * real["own"]).sum(1).mean()),
    }
    columns = ("own", "other", "spread", "shapes", "colours", "sizes", "place", "everything")
    seconds = {k: round(v) for k, v in runs.seconds.items()}
    lines = [
        "# Two stages or one",
        "",
        f"Written by `python benchmarks/{Path(__file__).name} --runs runs/two-stage`, one thread of a "
        f"{environment()['cpu']}, {args.n} texts, seed {args.seed}, guidance 2 (prior: 1).",
        f"CPU seconds of training: one stage {seconds['one']}; prior {seconds['prior']} and decoder "
        f"{seconds['decoder']}; embedder {seconds['embedder']} more. Held-out images that find their text among 256: "
        f"{100 * embedder.info['accuracy']:.0f} % (the other embedder {100 * other.info['accuracy']:.0f} %).",
        "",
        "| | cosine, own | cosine, other | " + " | ".join(columns[2:]) + " |",
        "|---|" + "---|" * len(columns),
    ]
    for name, row in rows.items():
        cells = [
            "" if k not in row else f"{row[k]:.3f}" if i < 3 else f"{100 * row[k]:.1f} %"
            for i, k in enumerate(columns)
        ]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    lines += [
        "",
        f"Before any image is made, the prior's vector has the cosine {told['prior']:.3f} with that of the real scene, "
        f"the text's own {told['text']:.3f}.",
        "",
        "![Real scenes, one stage, prior, text as image, variations](images_two_stage.png)",
        "",
        "Rows of eight: real scenes; one stage; prior and decoder; text as image; variations of the real scenes.",
    ]
    print("\n".join(lines))
    (RESULTS / "images_two_stage.md").write_text("\n".join(lines) + "\n")
    settings = {"steps": runs.steps, "cpu_seconds": runs.seconds, "n": args.n, "seed": args.seed}
    write(RESULTS / "images_two_stage.json", settings, rows | {"vectors": told})


if __name__ == "__main__":
    main()
