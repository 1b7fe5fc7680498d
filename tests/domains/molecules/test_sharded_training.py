"""Molecular networks speak in states; sharded training has to see through them."""

import subprocess
import sys
from pathlib import Path

SCRIPT = """
import sys, torch
torch.set_num_threads(1)
from sciffusion.domains import molecules
from sciffusion.training import TrainConfig, train

water = [[0.0, 0.0, 0.12], [0.0, 0.76, -0.48], [0.0, -0.76, -0.48]]
mols = molecules.MoleculeSet.from_arrays([8, 1, 1] * 16, water * 16, range(0, 49, 3))
network = molecules.TransformerConfig(d_model=16, layers=1, heads=2)
settings = TrainConfig(steps=3, batch_size=4, warmup=1, parallel=sys.argv[1], log_every=1)
config = molecules.MoleculeTraining(molecules.ModelConfig(network), train=settings)
train(molecules.MoleculeTask(config, mols.chain_ordered()), settings, sys.argv[2])
"""


def losses(parallel: str, folder: Path) -> list[float]:
    (folder / "script.py").write_text(SCRIPT)
    launch = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
    ]
    run = subprocess.run(
        [*launch, str(folder / "script.py"), parallel, str(folder / parallel)],
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert run.returncode == 0, run.stderr  # all of it: torchrun's own report comes last
    header, *rows = (folder / parallel / "log.csv").read_text().splitlines()
    return [float(row.split(",")[header.split(",").index("loss")]) for row in rows]


def test_sharded_training_of_molecules_equals_replicated_training(tmp_path: Path) -> None:
    replicated, sharded = losses("ddp", tmp_path), losses("fsdp", tmp_path)
    assert len(replicated) == 3
    assert all(abs(a - b) < 1e-5 for a, b in zip(replicated, sharded, strict=True))
