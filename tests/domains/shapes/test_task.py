"""Training shapes, their data sets, and the command line."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from sciffusion.cli import main
from sciffusion.domains.shapes import (
    Shapes,
    ShapeTask,
    load,
    proteins,
    recipe,
    superquadrics,
    train,
)
from sciffusion.domains.shapes.data import DATASETS
from sciffusion.domains.shapes.data import load as read
from sciffusion.io import ChecksumError
from sciffusion.report import Report
from tests.domains.shapes.small import settings


def test_training_learns_and_leaves_a_model(tmp_path: Path) -> None:
    shapes = superquadrics(20, points=12)
    task = ShapeTask(settings(points=8), shapes, shapes)
    torch.manual_seed(0)
    before = task.validate(task.model(), 0)["loss"]
    model, state = train(settings(40, points=8), tmp_path, shapes, shapes)
    assert state.step == 40
    assert task.validate(model.denoiser, 0)["loss"] < 0.9 * before
    back = load(tmp_path / "model.safetensors")
    assert back.config == model.config and set(back.sample(2, steps=2).sizes) == {8}


def test_batches_are_centred_of_unit_size_and_told_by_their_key() -> None:
    task = ShapeTask(settings(points=8, turn=True), superquadrics(20, points=12))
    rows, cpu = np.arange(20), torch.device("cpu")
    (x, cond), (again, _), (other, _) = (task.batch(rows, key, cpu) for key in (1, 1, 2))
    assert (x["points"] == again["points"]).all() and not (x["points"] == other["points"]).all()
    assert x["points"].shape == (20, 8, 3)
    assert float(x["points"].mean(1).abs().max()) < 1e-6
    assert float(x["points"].square().mean()) == pytest.approx(1, abs=0.2)
    assert cond["label"].tolist() == [0, 1, 2, 3, 4] * 4


def test_turning_keeps_distances_within_a_shape() -> None:
    shapes = superquadrics(3, points=6)
    plain, turned = (
        ShapeTask(settings(turn=turn), shapes).batch(np.arange(3), 5, torch.device("cpu"))[0][
            "points"
        ]
        for turn in (False, True)
    )
    assert float((plain - turned).abs().max()) > 0.1
    torch.testing.assert_close(
        torch.cdist(plain, plain), torch.cdist(turned, turned), atol=1e-4, rtol=1e-4
    )


def test_the_recipe_is_one_and_wrong_data_are_told() -> None:
    config = recipe("superquadrics", ["train.steps=3"])
    assert config.train.steps == 3 and config.data.points == 64
    with pytest.raises(
        ValueError, match="model.attributes names 'label'; labels of the data: none"
    ):
        ShapeTask(settings(), Shapes.of(np.zeros((2, 4, 3))))
    with pytest.raises(ValueError, match="at least 2 points"):
        ShapeTask(settings(points=1), superquadrics(5))
    with pytest.raises(FileNotFoundError, match="no recipe 'superquadric'.*Did you mean"):
        recipe("superquadric")


def test_data_are_found_by_name() -> None:
    assert len(read("superquadrics:test", limit=3)) == 3
    assert not (read("primitives:test", limit=3).points == read("primitives", limit=3).points).any()
    assert len(DATASETS["primitives"](None)[0]) == 1000
    with pytest.raises(ValueError, match="has the parts|have the parts"):
        read("superquadrics:valid")
    with pytest.raises(ValueError, match="are generated: leave path out"):
        read("superquadrics", "here")
    with pytest.raises(FileNotFoundError, match="Did you mean 'superquadrics'"):
        read("superquadric")


def test_another_file_of_proteins_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCIFFUSION_CACHE", str(tmp_path))
    with pytest.raises(ValueError, match="is not fetched: name its local file"):
        read("protein-backbones:test")
    (tmp_path / "a.npz").write_bytes(b"other")
    with pytest.raises(ChecksumError, match="datasets/protein-backbones/README.md"):
        proteins(tmp_path / "a.npz")


def test_proteins_have_the_bond_of_their_backbone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shared_data: Callable[[str], Path]
) -> None:
    path = shared_data("proteins/pdb_backbones_128.npz")
    monkeypatch.setenv("SCIFFUSION_CACHE", str(tmp_path))
    kept = DATASETS["protein-backbones"](path)[1]
    assert kept.is_relative_to(tmp_path)
    chains = read("protein-backbones:test")
    assert len(chains) == 274 and 40 <= chains.sizes.min() <= chains.sizes.max() <= 128
    steps = torch.cat([x.diff(dim=0).norm(dim=1) for x in chains.parts()])
    assert float(steps.median()) == pytest.approx(3.8, abs=0.02)  # angstrom, C-alpha to C-alpha
    assert max(float(x.mean(0).abs().max()) for x in chains.parts()) < 1e-4


def test_the_command_line_samples_the_shipped_model_and_judges_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, out = tmp_path / "made.npz", tmp_path / "report.json"
    real = superquadrics(40, seed=1, points=64).save(tmp_path / "real.npz")
    assert not main(["sample", "shapes", "-n", "20", "--steps", "12", "--out", str(file)])
    assert not main(["evaluate", "shapes", str(file), "--reference", str(real), "--out", str(out)])
    assert "1nna emd" in capsys.readouterr().out
    report = Report.load(out)
    # shapes that anyone can tell from real ones have 1, and those that nobody can 0.5 +- 0.08
    assert report["1nna_emd"].value < 0.8
    assert report["radius"].value == pytest.approx(report.ceiling["radius"].value, rel=0.2)
