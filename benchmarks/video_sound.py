"""Do film and sound of a joint model belong together? Digits that say their name, against two independent models.

    python benchmarks/video_sound.py --model runs/talking/model.safetensors --data fsdd.npz

Held-out digits and held-out recordings of the Free Spoken Digit Dataset (``--data``; None: the cache) make the real
scenes. Two judges that know nothing of each other look and listen: a reader of digits, and a judge of spoken digits.
Agreement of what they find, and whether picture and sound begin together, for

* real scenes, which is the ceiling, and real films with the sounds of other real scenes, which is chance;
* scenes of the joint model, as it is sampled by itself, and without guidance;
* film and sound of the same model each by itself, which are two models that know nothing of each other;
* sounds that the model makes to real films, and films that it makes to real sounds. Here the label of the real half is
  also known: ``right`` is how often the judge of the made half finds it.

And CPU time of a scene on one thread.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measure import environment, write

from sciffusion.domains import audiovisual
from sciffusion.domains.audiovisual import Scenes, TalkingDigits
from sciffusion.domains.audiovisual.evaluation import heard, seen

RESULTS = Path(__file__).parent / "results"

NAMES = {
    "real": "real scenes",
    "shuffled": "real films with sounds of other scenes",
    "joint": "joint model",
    "unguided": "joint model without guidance",
    "apart": "two independent models",
    "sound_of": "sounds made to real films",
    "film_of": "films made to real sounds",
}


def figures(scenes: Scenes, seed: int) -> dict[str, Any]:
    """What the judges find."""
    return {name: asdict(metric) for name, metric in scenes.report(seed=seed).metrics.items()}


def page(results: dict[str, Any], settings: dict[str, Any]) -> str:
    """The table."""

    def cell(metric: dict[str, Any]) -> str:
        scale, unit = (100, " %") if metric["unit"] == "fraction" else (1, " s")
        value, low, high = (scale * metric[k] for k in ("value", "low", "high"))
        return f"{value:.3g}{unit} ({low:.3g} to {high:.3g})"

    lines = [
        "# Digits that say their name",
        "",
        f"{results['parameters']:,} parameters, trained for {results['info'].get('steps')} steps; "
        f"{results['seconds_a_scene']:.2f} s of CPU time a scene on one thread. {settings['n']} scenes each, "
        f"seed {settings['seed']}, 95 % intervals.",
        "",
        "| | seen digit = heard digit | lag, median | begin within 0.19 s |",
        "|---|---|---|---|",
    ]
    for name, title in NAMES.items():
        row = results[name]
        lines.append(
            f"| {title} | {cell(row['agreement'])} | {cell(row['lag'])} | {cell(row['together'])} |"
        )
    lines += [
        "",
        f"Of sounds made to real films {100 * results['right']['sound_of']:.1f} % are heard as the film's label, of "
        f"films made to real sounds {100 * results['right']['film_of']:.1f} % are read as the sound's; of real sounds "
        f"and films {100 * results['right']['sounds']:.1f} % and {100 * results['right']['films']:.1f} %.",
        "",
        ", ".join(f"{k} {v}" for k, v in environment().items()),
        "",
    ]
    return "\n".join(lines)


def main() -> None:
    """Measure, print and store."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", type=Path, default=None)
    parser.add_argument("--n", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=RESULTS / "video_sound.json")
    args = parser.parse_args()
    torch.set_num_threads(1)
    model, n, seed = audiovisual.load(args.model), args.n, args.seed
    t, *size = model.config.shape
    source = TalkingDigits.of("test", args.data)
    real = source.scenes(n, frames=t, size=(size[0], size[1]), seed=seed + 1)
    # a shift by one digit in the order of digits would never agree: any other scene
    other = np.random.default_rng(seed).permutation(n)
    start = time.process_time()
    joint = model.sample(n, seed=seed, progress=False)
    spent = time.process_time() - start
    made = {
        "real": real,
        "shuffled": Scenes(real.films, real.sounds[other]),
        "joint": joint,
        "unguided": model.sample(n, guidance=1.0, seed=seed, progress=False),
        "apart": model.sample(n, apart=True, seed=seed, progress=False),
        "sound_of": model.sound_of(real.films, seed=seed),
        "film_of": model.film_of(real.sounds, seed=seed),
    }
    digit = np.asarray(real.labels["digit"])
    results: dict[str, Any] = {name: figures(scenes, seed) for name, scenes in made.items()}
    results |= {
        "parameters": sum(p.numel() for p in model.denoiser.parameters()),
        "seconds_a_scene": spent / n,
        "right": {
            "sound_of": float((heard(made["sound_of"].sounds) == digit).mean()),
            "film_of": float((seen(made["film_of"].films) == digit).mean()),
            "sounds": float((heard(real.sounds) == digit).mean()),
            "films": float((seen(real.films) == digit).mean()),
        },
        "info": dict(model.info or {}),
    }
    settings = {"n": n, "seed": seed, "sampling": asdict(model.sampling)}
    write(args.out, settings, results)
    text = page(results, settings)
    print(text)
    args.out.with_suffix(".md").write_text(text)


if __name__ == "__main__":
    main()
