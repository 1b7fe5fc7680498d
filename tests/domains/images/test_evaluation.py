"""Judging images: what a report says beside real data, and the commands of the command line."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from sciffusion.bootstrap import Bootstrap
from sciffusion.cli import main
from sciffusion.domains import images as domain
from sciffusion.domains.images import Classifier, ClassifierConfig, Images, evaluate, train
from sciffusion.domains.images.classifier_task import ClassifierTraining
from sciffusion.metrics import frechet
from sciffusion.training import TrainConfig

from .small import bars

FEW = Bootstrap(40)


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory) -> Classifier:
    short = TrainConfig(steps=80, batch_size=16, lr=1e-2, warmup=5, log_every=20)
    config = ClassifierTraining(model=ClassifierConfig(widths=(8, 16), features=8), train=short)
    made, _ = train(config, tmp_path_factory.mktemp("judge"), bars(96), bars(40, seed=1))
    assert isinstance(made, Classifier)
    return made


def test_real_images_are_as_far_as_their_other_half_and_noise_is_farther(judge: Classifier) -> None:
    real = bars(200, seed=5)
    same = evaluate(bars(100, seed=6), real, classifier=judge, bootstrap=FEW)
    assert same["accuracy"].value > 0.9
    assert same["frechet"].value < 3 * same.ceiling["frechet"].value
    noise = torch.randint(0, 256, (100, 1, 6, 6), generator=torch.Generator().manual_seed(0))
    wrong = Images(noise.to(torch.uint8), {"label": np.array(["down"] * 100)})
    found = evaluate(wrong, real, classifier=judge, bootstrap=FEW)
    assert found["frechet"].value > 10 * found.ceiling["frechet"].value
    assert found["coverage"].value < 0.5 < found.ceiling["coverage"].value
    assert found["accuracy"].value < 0.95
    assert found.ceiling == same.ceiling  # the floor is one of the real images alone


def test_the_figures_are_those_of_the_judge_s_features(judge: Classifier) -> None:
    real, made = bars(60, seed=5), bars(30, seed=6)
    report = evaluate(made, real, classifier=judge, seed=3, bootstrap=replace(FEW, level=0.5))
    assert report.level == 0.5
    order = np.random.default_rng(3).permutation(60)
    near = judge.features(real[order[:30]])
    assert report["frechet"].value == pytest.approx(frechet(near, judge.features(made)))
    floor = frechet(near, judge.features(real[order[30:]]))
    assert report.ceiling["frechet"].value == pytest.approx(floor)
    told = judge.probabilities(made).argmax(1)
    right = np.array([judge.config.classes[i] for i in told.tolist()]) == made.labels["label"]
    assert report["accuracy"].value == pytest.approx(right.mean())
    assert report.about["compared"] == 30


def test_images_without_labels_or_of_unknown_classes_have_no_accuracy(judge: Classifier) -> None:
    plain = Images(bars(20).pixels)
    assert not evaluate(plain, classifier=judge).metrics
    odd = plain.labelled(label=["slanted"] * 20)
    assert not evaluate(odd, classifier=judge).metrics


def test_what_cannot_be_judged_is_refused(judge: Classifier) -> None:
    with pytest.raises(ValueError, match="no judge ships for Images"):
        evaluate(bars(4))
    with pytest.raises(ValueError, match="more than k = 5 images of each kind, got 3 and 60"):
        evaluate(bars(3), bars(60), classifier=judge)
    with pytest.raises(FileNotFoundError, match="no judge 'digit'.*Did you mean 'digits'"):
        domain.load_judge("digit")
    with pytest.raises(ValueError, match="images have no further checks, got n_x"):
        bars(4).report(n_x=3)


@pytest.fixture
def run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str]]:
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> tuple[int, str]:
        code = main(list(arguments))
        said = capsys.readouterr()
        return code, said.out + said.err

    return call


def test_the_shipped_digits_are_sampled_judged_and_shown_by_commands(
    run: Callable[..., tuple[int, str]], tmp_path: Path
) -> None:
    code, said = run("sample", "images", "--label", "7", "-n", "20", "--out", "sevens.npz")
    assert code == 0 and "20 samples in sevens.npz" in said
    made = Images.read(tmp_path / "sevens.npz")
    assert made.labels["label"].tolist() == ["7"] * 20
    code, said = run(
        "evaluate", "images", "sevens.npz", "--reference", "digits:test", "--out", "r.json"
    )
    assert code == 0 and "digits (" in said
    report = json.loads((tmp_path / "r.json").read_text())
    assert report["metrics"]["accuracy"]["value"] >= 0.9
    assert report["ceiling"]["accuracy"]["value"] >= 0.9
    code, said = run("sample", "images", "-n", "4", "--steps", "3", "--out", "grid.png")
    assert code == 0 and (tmp_path / "grid.png").is_file()
    code, said = run("sample", "images", "--label", "11", "--out", "x.png")
    assert code == 2 and "label must be one of 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, got 11" in said
    code, said = run("sample", "images", "--out", "x.docx")
    assert code == 2 and "end it with .png (a grid)" in said
    code, said = run("evaluate", "images", "grid.png")
    assert code == 2 and "no judge ships for" in said
    code, said = run("data", "get", "digits")
    assert code == 0 and "1797 of 8 x 8" in said
    code, said = run("demo", "images")
    assert code == 0
    assert {p.name for p in (tmp_path / "out" / "demo").iterdir()} == {
        "digits.npz",
        "digits.png",
        "report.json",
    }
