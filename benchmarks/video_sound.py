"""Do film and sound of a joint model belong together? Digits that say their name, against two independent models.

    python benchmarks/video_sound.py

Held-out digits and held-out recordings of the Free Spoken Digit Dataset (``--data``, or the cache) make the real
scenes. Two judges that know nothing of each other look and listen: a reader of digits, and a judge of spoken digits.
Agreement of what they find, and whether picture and sound begin together, for

* real scenes, which is the ceiling, and real films with the sounds of other real scenes, which is chance;
* scenes of the joint model that are asked for a digit, and film and sound of the same model each by itself, asked for
  the same digit: two models that know nothing of each other can agree on what, but not on when;
* scenes of the joint model with everything left open, with and without guidance, and halves by themselves;
* sounds that the model makes to real films, and films that it makes to real sounds, once told by the model itself what
  the real half is (the default), once with that left open.

Where the digit is known, from what is asked for or from the real half, ``right`` is how often the judges of what was
made find it.

Then what the model, as a classifier, makes of the real halves by themselves, beside the judges, and CPU times of a
scene and of telling one half on one thread.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measure import environment, write

from sciffusion.domains import audiovisual
from sciffusion.domains.audiovisual import Scenes, TalkingDigits
from sciffusion.domains.audiovisual.evaluation import heard, judged, seen

RESULTS = Path(__file__).parent / "results"

NAMES = {
    "real": "real scenes",
    "shuffled": "real films with sounds of other scenes",
    "asked": "joint model, a digit asked for",
    "asked_apart": "two independent models, the same digit asked for",
    "joint": "joint model, nothing asked for",
    "unguided": "joint model, nothing asked for, no guidance",
    "apart": "two independent models, nothing asked for",
    "sound_of": "sounds made to real films, the digit told by the model",
    "film_of": "films made to real sounds, the digit told by the model",
    "sound_open": "sounds made to real films, left open",
    "film_open": "films made to real sounds, left open",
}


MADE = ("sound_of", "film_of", "sound_open", "film_open")


def figures(scenes: Scenes, seed: int) -> dict[str, Any]:
    """What the judges find."""
    return {name: asdict(metric) for name, metric in scenes.report(seed=seed).metrics.items()}


def told(made: dict[str, Scenes], seconds: dict[str, float]) -> dict[str, dict[str, float]]:
    """How often the model, and the judge, tell what a real half is, and the CPU seconds that the model takes for it."""
    real = made["real"]
    said = judged(real.sounds)
    digit = np.asarray(real.labels["digit"]).astype(int)
    judges = {
        "film digit": float((seen(real.films) == digit).mean()),
        "sound digit": float(said.right("digit", real.labels["digit"]).mean()),
        "sound speaker": float(said.right("speaker", real.labels["speaker"]).mean()),
    }
    out = {}
    for name, accuracy in judges.items():
        half, attribute = name.split()
        other = {"film": "sound", "sound": "film"}[half]
        found, known = made[f"{other}_of"].labels[attribute], real.labels[attribute]
        out[name] = {
            "accuracy": float((np.asarray(found) == np.asarray(known).astype(str)).mean()),
            "judge": accuracy,
            "seconds": (seconds[f"{other}_of"] - seconds[f"{other}_open"]) / len(real),
        }
    return out


def right(results: dict[str, Any], name: str, half: str) -> str:
    """How often the judge of a half finds the digit, where it is known."""
    found = results["right"].get(name)
    return "" if found is None else f"{100 * found[half]:.0f} %"


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
        "| | seen digit = heard digit | lag, median | begin within 0.19 s | right digit seen | heard |",
        "|---|---|---|---|---|---|",
    ]
    for name, title in NAMES.items():
        row = results[name]
        lines.append(
            f"| {title} | {cell(row['agreement'])} | {cell(row['lag'])} | {cell(row['together'])} | "
            + " | ".join(right(results, name, half) for half in ("seen", "heard"))
            + " |"
        )
    lines += [
        "",
        "What the model, as a classifier, tells of real halves by themselves (what the other half is made with).",
        "",
        "| | right | the judge of that half | CPU s a half, digit and speaker |",
        "|---|---|---|---|",
    ]
    for name, row in results["told"].items():
        shares = (f"{100 * row[k]:.1f} %" for k in ("accuracy", "judge"))
        half, attribute = name.split()
        lines.append(f"| {attribute} of a {half} | {' | '.join(shares)} | {row['seconds']:.2f} |")
    lines += [
        "",
        ", ".join(f"{k} {v}" for k, v in environment().items()),
        "",
    ]
    return "\n".join(lines)


def main() -> None:
    """Measure, print and store."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="talking-digits")
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
    digit = np.asarray(real.labels["digit"])
    given = {"digit": digit.tolist()}
    open_: dict[str, object] = dict.fromkeys(model.config.attributes)
    make: dict[str, Callable[[], Scenes]] = {
        "joint": lambda: model.sample(n, open_, seed=seed, progress=False),
        "asked": lambda: model.sample(n, given, seed=seed, progress=False),
        "asked_apart": lambda: model.sample(n, given, apart=True, seed=seed, progress=False),
        "unguided": lambda: model.sample(n, open_, guidance=1.0, seed=seed, progress=False),
        "apart": lambda: model.sample(n, open_, apart=True, seed=seed, progress=False),
        "sound_of": lambda: model.sound_of(real.films, seed=seed),
        "film_of": lambda: model.film_of(real.sounds, seed=seed),
        "sound_open": lambda: model.sound_of(real.films, open_, seed=seed),
        "film_open": lambda: model.film_of(real.sounds, open_, seed=seed),
    }
    made = {"real": real, "shuffled": Scenes(real.films, real.sounds[other])}
    seconds: dict[str, float] = {}
    for name, call in make.items():
        start = time.process_time()
        made[name] = call()
        seconds[name] = time.process_time() - start
        print(f"{name}: {seconds[name]:.0f} s", flush=True)
    results: dict[str, Any] = {name: figures(scenes, seed) for name, scenes in made.items()}
    results |= {
        "parameters": sum(p.numel() for p in model.denoiser.parameters()),
        "seconds_a_scene": seconds["joint"] / n,
        "right": {
            name: {
                "seen": float((seen(made[name].films) == digit).mean()),
                "heard": float((heard(made[name].sounds) == digit).mean()),
            }
            for name in ("real", "asked", "asked_apart", *MADE)
        },
        "told": told(made, seconds),
        "info": dict(model.info or {}),
    }
    settings = {"n": n, "seed": seed, "sampling": asdict(model.sampling)}
    write(args.out, settings, results)
    text = page(results, settings)
    print(text)
    args.out.with_suffix(".md").write_text(text)


if __name__ == "__main__":
    main()
