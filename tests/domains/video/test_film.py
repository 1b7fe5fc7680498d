"""Laws of films: what files bring back, and what is refused."""

from pathlib import Path

import numpy as np
import pytest
import torch

from sciffusion.domains.video import Film, Films

RANDOM = torch.Generator().manual_seed(1)
GREY = torch.randint(0, 256, (5, 1, 18, 22), generator=RANDOM, dtype=torch.uint8)


def test_a_gif_keeps_a_grey_film_with_its_rate_and_frames_that_repeat(tmp_path: Path) -> None:
    film = Film(torch.cat((GREY, GREY[-1:], GREY[-1:], GREY[:1])), 10)
    again = Film.read(film.save(tmp_path / "film.gif"))
    assert torch.equal(again.frames, film.frames)
    assert again.rate == 10


def test_a_gif_shows_every_pixel_as_a_square_of_the_scale(tmp_path: Path) -> None:
    again = Film.read(Film(GREY).save(tmp_path / "film.gif", scale=3))
    assert torch.equal(again.frames[..., 1::3, 1::3], GREY)


def test_an_mp4_keeps_number_rate_and_look_of_the_frames(tmp_path: Path) -> None:
    smooth = torch.linspace(0, 255, 24).expand(6, 1, 21, 24).round().to(torch.uint8)
    film = Film(
        smooth * torch.tensor([0, 1, 1, 1, 1, 1])[:, None, None, None].to(torch.uint8), 12.5
    )
    again = Film.read(film.save(tmp_path / "film.mp4", scale=2))
    assert again.rate == 12.5
    assert again.frames.shape == (6, 1, 42, 48)
    shown = again.frames[..., ::2, ::2].float()
    assert float((shown - film.frames.float()).abs().mean()) < 4


def test_arrays_keep_films_of_different_shapes_with_their_labels(tmp_path: Path) -> None:
    films = Films([Film(GREY, 5), Film(GREY[:2, :, :7], 30)], {"digit": np.array([3, 8])})
    again = Films.read(films.save(tmp_path / "films.npz"))
    for a, b in zip(films, again, strict=True):
        assert torch.equal(a.frames, b.frames)
        assert a.rate == b.rate
    assert again.labels["digit"].tolist() == [3, 8]
    floats = Films([films[0].floats()])
    assert torch.equal(Films.read(floats.save(tmp_path / "f.npz"))[0].frames, floats[0].frames)


def test_bytes_come_back_from_floats() -> None:
    film = Film(torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16))
    assert torch.equal(film.floats().bytes().frames, film.frames)


def test_a_folder_of_clips_names_the_classes(tmp_path: Path) -> None:
    films = Films([Film(GREY), Film(GREY.flip(0)), Film(GREY)], {"digit": np.array([1, 1, 4])})
    again = Films.read(films.save(tmp_path / "clips"))
    assert again.labels["label"].tolist() == ["1", "1", "4"]
    assert all(torch.equal(a.frames, b.frames) for a, b in zip(films, again, strict=True))
    Film(GREY).save(tmp_path / "clips" / "loose.gif")
    with pytest.raises(ValueError, match="clips beside folders, such as loose.gif"):
        Films.read(tmp_path / "clips")


def test_colours_become_grey_only_when_asked(tmp_path: Path) -> None:
    red = torch.zeros(2, 3, 16, 16, dtype=torch.uint8)
    red[1:, 0] = 255
    path = Film(red).save(tmp_path / "red.gif")
    assert torch.equal(Film.read(path).frames, red)
    assert Film.read(path, grey=True).frames[1].unique().tolist() == [76]
    assert Film.read(Film(GREY).save(tmp_path / "g.gif"), grey=False).channels == 3


def test_films_of_one_shape_lie_on_a_grid() -> None:
    grid = Films([Film(GREY), Film(GREY.flip(0)), Film(GREY)]).grid(gap=2)
    assert grid.frames.shape == (5, 1, 2 * 18 + 2, 2 * 22 + 2)
    assert torch.equal(grid.frames[..., :18, 24:], GREY.flip(0))
    with pytest.raises(ValueError, match="one shape"):
        Films([Film(GREY), Film(GREY[:2])]).grid()


def test_a_film_shows_itself() -> None:
    films = Films([Film(GREY), Film(GREY[:3])], {"digit": np.array([1, 2])})
    assert "data:image/gif;base64," in films[0]._repr_html_()
    assert "digit 2" in films._repr_html_()
    assert len(films.plot().axes) == 2 * 5
    assert repr(Films(films[:1].films)) == "Films(1 film, 5 frames)"
    assert repr(films[0]) == "Film(5 frames of 18 x 22, grey, 8 a second, uint8)"


@pytest.mark.parametrize(
    ("frames", "rate", "message"),
    [
        (GREY.float(), 8, "these look like bytes"),
        (GREY.float() / 127.5 - 1, 8, "run from -1 to 1"),
        (torch.full((2, 1, 4, 4), torch.nan), 8, "NaN or infinity"),
        (GREY.long(), 8, "uint8 .0 to 255. or float32"),
        (GREY[0], 8, r"\(T, C, H, W\)"),
        (GREY[:0], 8, "at least one frame"),
        (GREY.permute(0, 2, 3, 1), 8, r"permute\(0, 3, 1, 2\)"),
        (GREY, 0, "rate must be positive"),
    ],
)
def test_frames_that_are_none_are_refused(frames: torch.Tensor, rate: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Film(frames, rate)


def test_arrays_of_other_libraries_become_films() -> None:
    array = GREY[:, 0].numpy()
    assert torch.equal(Film.of(array).frames, GREY)
    colours = np.stack([array] * 3, -1)
    assert torch.equal(Film.of(colours).frames, GREY.expand(-1, 3, -1, -1))
    with pytest.raises(ValueError, match="cast them to uint8"):
        Film.of(array.astype(np.int64))


@pytest.mark.parametrize("name", ["broken.gif", "broken.mp4", "broken.npz"])
def test_corrupt_files_are_named(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(b"no film at all")
    with pytest.raises(ValueError, match=f"{name} is not a readable"):
        Films.read(path)


def test_files_that_are_missing_or_of_another_kind_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no file or folder"):
        Films.read(tmp_path / "none.gif")
    with pytest.raises(ValueError, match="end it with one of .gif, .mp4, .npz"):
        Film(GREY).save(tmp_path / "film.txt")
    with pytest.raises(ValueError, match="holds no clips"):
        Films.read(tmp_path)
    np.savez(tmp_path / "other.npz", x=np.zeros(3))
    with pytest.raises(ValueError, match="has no array"):
        Films.read(tmp_path / "other.npz")
    with pytest.raises(ValueError, match="label digit has 1 values for 2 films"):
        Films([Film(GREY), Film(GREY)], {"digit": np.array([1])})
    with pytest.raises(ValueError, match="scale must be at least 1"):
        Film(GREY).save(tmp_path / "film.gif", scale=0)
    assert [p.name for p in tmp_path.iterdir()] == ["other.npz"]  # nothing half written
