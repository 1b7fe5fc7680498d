"""Laws of the data: exact physics, films that depend on their number alone, parts that do not meet."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from sciffusion.domains.video import DATASETS, MovingDigits, digits
from sciffusion.domains.video.datasets import load
from sciffusion.domains.video.datasets.moving import Motion, placed
from sciffusion.domains.video.datasets.sprites import compose
from sciffusion.domains.video.motion import centres


def test_boxes_fly_straight_and_bounce_as_small_steps_say() -> None:
    size = (20, 26)
    u = torch.rand(20, 4, generator=torch.Generator().manual_seed(0))
    motion = Motion.drawn(u, size)
    found = motion.at(torch.arange(20), size)
    place, velocity = motion.start.clone(), motion.velocity.clone()
    free, fine = torch.tensor([4.0, 10.0], dtype=torch.float64), 200
    for frame in range(1, 20):
        for _ in range(fine):
            place += velocity / fine
            velocity = torch.where((place < 0) | (place > free), -velocity, velocity)
        assert float((found[:, frame] - place).abs().max()) < 0.2
    assert bool((found >= 0).all() and (found <= free).all())


def test_pictures_between_pixels_keep_their_ink_and_put_its_centre_where_it_should_be() -> None:
    ink = digits("test").ink[:3]
    corners = torch.tensor([[[0.0, 3.25]], [[2.5, 0.6]], [[7.9, 8.0]]], dtype=torch.float64)
    films = placed(ink, corners, (24, 24))[:, :, None]
    still = centres(placed(ink, torch.zeros_like(corners), (24, 24))[:, :, None])
    torch.testing.assert_close(films.sum((1, 2, 3, 4)), ink.sum((1, 2)))
    torch.testing.assert_close(centres(films), still + corners, atol=1e-5, rtol=0)
    whole = placed(ink[:1], torch.tensor([[[3.0, 5.0]]]), (24, 24))[0, 0]
    assert torch.equal(whole[3:19, 5:21], ink[0])


def test_film_i_depends_on_the_seed_and_i_alone() -> None:
    source = MovingDigits(digits())
    many, few = source.films(5, frames=4, seed=3), source.films(2, frames=4, seed=3)
    assert torch.equal(many.stack()[:2], few.stack())
    assert not torch.equal(few.stack(), source.films(2, frames=4, seed=4).stack())


def test_slow_motion_passes_through_the_frames_of_the_film() -> None:
    source = MovingDigits(digits())
    fast, slow = source.films(3, frames=5), source.films(3, frames=9, substeps=2)
    assert torch.equal(slow.stack()[:, ::2], fast.stack())
    assert slow[0].rate == 2 * fast[0].rate


def test_training_and_test_digits_are_different_pictures() -> None:
    train, test = digits("train"), digits("test")
    assert len(train) + len(test) == 1797
    assert (len(train), len(test)) == (1438, 359)
    apart = torch.cdist(train.ink.flatten(1), test.ink.flatten(1))
    assert float(apart.min()) > 0


def test_several_digits_share_a_film() -> None:
    films = MovingDigits(digits(), count=2).films(2, frames=3)
    alone = MovingDigits(digits()).films(2, frames=3)
    assert films.stack().shape == alone.stack().shape
    assert bool(films.stack().float().sum() > alone.stack().float().sum())


def test_mnist_from_a_local_file_is_read(tmp_path: Path) -> None:
    x = np.zeros((4, 28, 28), np.uint8)
    x[:, 10:20, 12:16] = 255
    np.savez(
        tmp_path / "m.npz", x_train=x, y_train=np.arange(4), x_test=x[:1], y_test=np.array([7])
    )
    films = load("moving-digits:test", tmp_path / "m.npz", limit=2)
    assert films.labels["digit"].tolist() == [7, 7]
    np.savez(tmp_path / "bad.npz", x_train=x, y_train=np.arange(3), x_test=x, y_test=np.arange(4))
    with pytest.raises(ValueError, match="y_train"):
        digits("train", tmp_path / "bad.npz")
    with pytest.raises(ValueError, match="is not a readable .npz"):
        digits("train", Path(__file__))


def test_layers_are_laid_over_each_other_by_their_opacity() -> None:
    ground = np.full((1, 1, 4), [200, 100, 0, 255], np.uint8)
    veil = np.full((1, 1, 4), [0, 0, 255, 51], np.uint8)  # a fifth opaque
    assert compose([ground, veil])[0, 0].tolist() == [160, 80, 51]
    assert compose([veil, ground])[0, 0].tolist() == [200, 100, 0]


def test_the_sprites_are_composed(shared_data: Callable[[str], Path]) -> None:
    path = shared_data("video/sprites/sprites_layers.npz")
    films = load("sprites:test", path, limit=1)
    assert films.stack().shape == (9, 8, 3, 64, 64)
    assert set(films.labels["label"]) == {"walk", "slash", "spellcard"}
    other = load("sprites:train", path, limit=2)
    assert set(films.labels["character"]).isdisjoint(other.labels["character"])


def test_the_fruits_are_decoded_and_their_parts_share_no_variety(
    shared_data: Callable[[str], Path],
) -> None:
    path = shared_data("video/fruits360/fruits360_rotation_64.npz")
    train, test = load("fruits360-films:train", path), load("fruits360-films:test", path, limit=2)
    assert len(train) == 117
    assert {len(film) for film in train} <= set(range(21, 42))
    assert set(train.labels["variety"]).isdisjoint(test.labels["variety"])
    assert train[0].size == (64, 64)


def test_data_that_are_not_there_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCIFFUSION_CACHE", str(tmp_path / "cache"))
    with pytest.raises(FileNotFoundError, match="Did you mean 'moving-digits'"):
        load("moving-digit")
    with pytest.raises(ValueError, match="has the parts train, test"):
        load("moving-digits:valid")
    with pytest.raises(ValueError, match="sciffusion data get sprites --path FILE"):
        load("sprites:train")
    (tmp_path / "other.npz").write_bytes(b"x")
    with pytest.raises(ValueError, match="SHA-256|checksum|expected"):
        DATASETS["fruits360-films"](tmp_path / "other.npz")
    with pytest.raises(ValueError, match="larger than a digit"):
        MovingDigits(digits()).films(1, size=(16, 32))
    films, place = DATASETS["moving-digits"](None)
    assert str(films).startswith("the first of its films: Films(1000 films")
    assert str(place) == "scikit-learn"
    with pytest.raises(ValueError, match="moving-digits are drawn anew and not kept: leave path"):
        DATASETS["moving-digits"](tmp_path / "other.npz")


def test_a_local_file_is_kept_and_then_read_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shared_data: Callable[[str], Path]
) -> None:
    path = shared_data("video/fruits360/fruits360_rotation_64.npz")
    monkeypatch.setenv("SCIFFUSION_CACHE", str(tmp_path))
    films, kept = DATASETS["fruits360-films"](path)
    assert str(films).startswith("the first of its films: Films(8 films")
    assert kept.parent.parent == tmp_path
    first = load("fruits360-films", path, limit=1)[0].frames
    assert torch.equal(load("fruits360-films", limit=1)[0].frames, first)
