"""Training must run on a machine that has torch, numpy, safetensors, PyYAML, rich and filelock only."""

import subprocess
import sys
import textwrap
from pathlib import Path


def test_training_needs_no_chemistry_and_no_command_line_packages(tmp_path: Path) -> None:
    script = f"""
        import importlib.abc, sys
        absent = {{"rdkit", "scipy", "e3nn", "torch_geometric", "tblite", "ase", "posebusters", "matplotlib",
                  "pydantic", "cyclopts", "tensorboard"}}

        class Absent(importlib.abc.MetaPathFinder):
            def find_spec(self, name, path=None, target=None):
                if name.partition(".")[0] in absent:
                    raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

        sys.meta_path.insert(0, Absent())
        import torch
        torch.set_num_threads(1)
        from sciffusion.domains import molecules
        from sciffusion.training import TrainConfig, train

        water = [[0.0, 0.0, 0.12], [0.0, 0.76, -0.48], [0.0, -0.76, -0.48]]
        mols = molecules.MoleculeSet.from_arrays([8, 1, 1] * 8, water * 8, range(0, 25, 3))
        network = molecules.TransformerConfig(d_model=16, layers=1, heads=2)
        config = molecules.MoleculeTraining(
            molecules.ModelConfig(network), train=TrainConfig(steps=2, batch_size=4, warmup=1)
        )
        task = molecules.MoleculeTask(config, mols.chain_ordered())
        state = train(task, config.train, {str(tmp_path / "run")!r})
        model = molecules.MoleculeModel.from_training(task, state.ema.state_dict())
        model.save({str(tmp_path / "model.safetensors")!r})
        print(molecules.load({str(tmp_path / "model.safetensors")!r}).sample(2, steps=2, progress=False))
    """
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, timeout=120
    )
    assert run.returncode == 0, run.stderr
    assert "Molecules(2 molecules, 3-3 atoms each" in run.stdout
