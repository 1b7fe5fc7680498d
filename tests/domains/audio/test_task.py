"""Laws of training: nothing beyond a clip's end acts, batches are those of their key, and it learns."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from sciffusion.domains.audio import AudioModel, AudioTask, train
from sciffusion.domains.audio.adapter import mel_state
from sciffusion.noise import Noise
from sciffusion.sampling import SamplingConfig
from sciffusion.state import State

from .small import settings, tones

CPU = torch.device("cpu")


def test_the_data_have_zero_mean_and_unit_variance_in_every_bin() -> None:
    frames = torch.cat(AudioTask(settings(), tones()).frames[0])
    assert float(frames.mean(0).abs().max()) < 1e-3
    torch.testing.assert_close(frames.std(0, correction=0), torch.ones(8), rtol=1e-3, atol=1e-3)


def test_the_loss_has_no_gradient_beyond_the_end_of_a_clip() -> None:
    task = AudioTask(settings(), tones())
    model, (state, cond) = task.model(), task.batch(np.arange(6), 3, CPU)
    mel = state["mel"].clone().requires_grad_()
    task.loss(model, (state.replace({"mel": mel}), cond), 3).mean.backward()
    inside = state.layout("mel").points(mel)
    assert mel.grad is not None
    for grad, n in zip(mel.grad, inside.tolist(), strict=True):
        assert bool((grad[:n] != 0).any())
        assert not bool(grad[n:].any())


def test_the_loss_of_a_batch_is_the_mean_of_its_clips() -> None:
    task = AudioTask(settings(), tones())
    model, (state, cond) = task.model(), task.batch(np.arange(4), 5, CPU)
    objective = replace(task.objective, drop=0.0)
    # noise that is the same for a clip alone: a stream of its own
    whole = objective(model, state, cond, noise=Noise([1, 2, 3, 4])).per_sample
    sizes = state.layout("mel").points(state["mel"]).tolist()
    for i, n in enumerate(sizes):
        one = mel_state([state["mel"][i, :n]])
        mine = {k: v[i : i + 1] for k, v in cond.items()}
        alone = objective(model, one, mine, noise=Noise([i + 1])).per_sample
        torch.testing.assert_close(whole[i : i + 1], alone, rtol=1e-4, atol=1e-5)


def test_a_batch_depends_on_its_key_alone_and_attributes_are_dropped_as_often_as_asked() -> None:
    config = settings()
    config = replace(config, objective=replace(config.objective, drop_each=0.3))
    task, rows = AudioTask(config, tones(400)), np.arange(400)
    one, two, other = (task.batch(rows, key, CPU) for key in (1, 1, 2))
    assert torch.equal(one[0]["mel"], two[0]["mel"])
    assert all(torch.equal(one[1][k], two[1][k]) for k in one[1])
    assert not torch.equal(one[1]["pitch"], other[1]["pitch"])
    for name in ("pitch", "attack"):
        dropped = one[1][name] == 2
        assert abs(float(dropped.float().mean()) - 0.3) < 0.08
        assert torch.equal(one[1][name][~dropped], task.rows[name][~dropped])


def test_a_clip_begun_a_fraction_of_a_hop_later_is_another_view_of_it() -> None:
    task = AudioTask(settings(), tones())
    first, second = (view[0] for view in task.frames)
    assert len(second) - len(first) in (0, 1)
    assert 0.01 < float((first - second[: len(first)]).square().mean()) < 1.0


def test_training_lowers_the_loss_and_leaves_a_model(tmp_path: Path) -> None:
    config = replace(settings(steps=150, every=50), sampling=SamplingConfig(steps=5, scale=3.0))
    task = AudioTask(config, tones(48), tones(16, seed=1))
    before = task.validate(task.model(), 0)["loss"]
    model, state = train(config, tmp_path, tones(48), tones(16, seed=1))
    assert isinstance(model, AudioModel)
    after = task.validate(model.denoiser, 0)["loss"]
    assert after < 0.8 * before
    assert model.sampling == config.sampling
    assert state.step == 150
    assert (tmp_path / "model.safetensors").is_file()


def test_labels_that_the_clips_lack_are_refused() -> None:
    config = settings()
    config = replace(config, model=replace(config.model, attributes=("digit",)))
    with pytest.raises(ValueError, match="names 'digit'; labels of the data: pitch, attack"):
        AudioTask(config, tones())


def test_a_state_is_what_is_learned() -> None:
    state, cond = AudioTask(settings(), tones()).batch(np.arange(3), 0, CPU)
    assert isinstance(state, State)
    assert {k: tuple(v.shape) for k, v in cond.items()} == {"pitch": (3,), "attack": (3,)}
