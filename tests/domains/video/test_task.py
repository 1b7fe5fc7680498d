"""Laws of training: batches are those of their key, shown frames cost nothing, and it learns."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from sciffusion.domains.video import (
    DataConfig,
    Film,
    Films,
    MovingDigits,
    VideoModel,
    VideoTask,
    digits,
    recipe,
    train,
)
from sciffusion.domains.video.lessons import Crops, Endless, shown

from .small import SHAPE, answering, films, settings

CPU = torch.device("cpu")


def endless() -> Endless:
    return Endless(MovingDigits(digits()))


def test_the_data_have_zero_mean_and_unit_variance() -> None:
    task = VideoTask(settings(), endless())
    x = torch.cat([task.batch(np.arange(i, 1438, 12), i, CPU).x for i in range(2)])
    assert abs(float(x.mean())) < 0.05
    assert abs(float(x.std()) - 1) < 0.05


def test_a_batch_depends_on_its_rows_and_key_alone() -> None:
    task, rows = VideoTask(settings(), endless()), np.arange(4)
    a, b = task.batch(rows, 3, CPU), VideoTask(settings(), endless()).batch(rows, 3, CPU)
    assert torch.equal(a.x, b.x)
    assert torch.equal(a.shown, b.shown)
    assert not torch.equal(a.x, task.batch(rows, 4, CPU).x)


def test_every_batch_has_one_of_the_shapes() -> None:
    shapes = ((3, 24, 24), (6, 24, 32))
    config = replace(settings(), data=DataConfig(shapes=shapes))
    task = VideoTask(config, endless())
    seen = {tuple(task.batch(np.arange(2), key, CPU).x.shape) for key in range(12)}
    assert seen == {(2, t, 1, h, w) for t, h, w in shapes}


def test_endless_films_show_the_digit_of_their_row() -> None:
    lessons = endless()
    rows = np.array([0, 500, 1437])
    x = lessons.draw(rows, torch.zeros(3, 4), (1, 20, 20))
    assert torch.equal(x[:, 0, 0, :16, :16], (lessons.source.digits.ink[rows] * 255).round().byte())
    assert len(lessons.labels["digit"]) == len(lessons)


def test_crops_are_parts_of_the_films() -> None:
    films = Films([Film(torch.arange(200 * 9, dtype=torch.float32).view(9, 1, 20, 10) / 2000)])
    lessons = Crops(films, ((4, 8, 8),))
    for number in (0.0, 0.5, 0.999):
        part = lessons.draw(np.array([0]), torch.full((1, 4), number), (4, 8, 8))[0]
        t, y, x = int(number * 6), int(number * 13), int(number * 3)
        assert torch.equal(part, films[0].frames[t : t + 4, :, y : y + 8, x : x + 8])
    with pytest.raises(ValueError, match=r"film 0 is \(9, 20, 10\).*smaller than \(4, 8, 12\)"):
        Crops(films, ((4, 8, 12),))
    with pytest.raises(ValueError, match="all be uint8 or all float32"):
        Crops(Films([films[0], films[0].bytes()]), ((4, 8, 8),))


def test_the_share_of_films_with_shown_frames_is_the_one_asked_for() -> None:
    u = torch.rand(4000, 2 + 8, generator=torch.Generator().manual_seed(0))
    found = shown(u, 8, 0.5)
    assert abs(float(found.any(1).double().mean()) - 0.47) < 0.05  # some coins show none, or all
    assert not bool(found.all(1).any())
    first = found & (found.sum(1, keepdim=True) == 1)
    assert float(first[:, 0].double().mean()) > 0.05  # a picture to animate
    assert bool((found[:, [0, 7]].all(1) & (found.sum(1) == 2)).any())  # both ends
    assert bool((found[:, ::2].all(1) & (found.sum(1) == 4)).any())  # every second
    assert not bool(shown(u[:, :3], 1, 1.0).any())  # the only frame is never shown


def test_shown_frames_cost_nothing_but_act_on_the_others() -> None:
    task = VideoTask(settings(), endless())
    model, batch = answering().denoiser, task.batch(np.arange(4), 3, CPU)
    none, some = torch.zeros_like(batch.shown), torch.zeros_like(batch.shown)
    some[:, 0] = True
    moved = batch.x.clone()
    moved[:, 0] += 1
    with torch.no_grad():
        a, b, c, d = (
            float(task.loss(model, one, 5).mean)
            for one in (
                replace(batch, shown=none),
                replace(batch, shown=some),
                replace(batch, shown=some, x=moved),
                replace(batch, shown=~none),
            )
        )
    assert b < a
    assert c != b
    assert d == 0


def test_training_learns_goes_on_and_leaves_a_model(tmp_path: Path) -> None:
    config = settings()
    longer = replace(config, train=replace(config.train, steps=40, lr=3e-3, validate_every=20))
    task = VideoTask(longer, endless(), endless())
    before = task.validate(task.model().eval(), 0)["loss"]
    model, state = train(
        replace(longer, data=replace(longer.data, valid="moving-digits:test")), tmp_path
    )
    assert isinstance(model, VideoModel)
    after = task.validate(model.denoiser, 0)["loss"]
    assert after < 0.95 * before
    assert state.step == 40
    assert (tmp_path / "model.safetensors").is_file()
    assert model.sample(2, {"digit": 3}, steps=2).stack().shape == (2, *SHAPE[:1], 1, *SHAPE[1:])


def test_films_of_ones_own_are_learnt_with_their_rate(tmp_path: Path) -> None:
    own = Films([film.at(25) for film in films(4, frames=7)], films(4).labels)
    config = settings(attributes=())
    model, _ = train(config, tmp_path, own)
    assert isinstance(model, VideoModel)
    assert model.rate == 25
    assert model.sample(1, steps=1)[0].rate == 25
    assert model.attributes == ()


def test_settings_that_do_not_fit_the_data_are_refused(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match="model.attributes names 'label'; labels of the data: digit"
    ):
        VideoTask(settings(attributes=("label",)), endless())
    with pytest.raises(ValueError, match="model.channels is 3, but the films have 1"):
        VideoTask(settings(channels=3), endless())
    with pytest.raises(FileNotFoundError, match="no recipe"):
        recipe("moving-digit")
    assert recipe("moving-digits", ["train.steps=7"]).train.steps == 7
