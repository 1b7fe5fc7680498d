"""Images as values: bytes and floats, files and folders, and what is refused with which words."""

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sciffusion.domains.images import Images

from .small import bars


def test_every_byte_survives_floats() -> None:
    every = Images(torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16))
    assert torch.equal(every.to_floats().to_bytes().pixels, every.pixels)
    assert every.to_floats().pixels.max() == 1
    assert (
        every.to_bytes().pixels is every.pixels
        and every.to_floats().to_floats().pixels.dtype == torch.float32
    )


def test_arrays_come_with_channels_first_or_last_and_are_copied() -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (5, 4, 6, 3)).astype(np.uint8)
    last, first = Images.of(rgb), Images.of(np.moveaxis(rgb, 3, 1))
    assert torch.equal(last.pixels, first.pixels)
    assert last.size == (4, 6) and last.channels == 3
    rgb[:] = 0
    assert int(last.pixels.max()) > 0
    assert Images.of(np.zeros((4, 6), np.uint8)).pixels.shape == (1, 1, 4, 6)
    assert Images.of(np.zeros((2, 4, 6))).pixels.dtype == torch.float32


def test_bytes_and_floats_are_never_mixed_up() -> None:
    ok = np.ones((2, 1, 4, 4))
    with pytest.raises(ValueError, match="look like bytes: cast them to uint8, or divide by 255"):
        Images.of(ok * 255)
    with pytest.raises(ValueError, match=r"run from -1 to 1: take \(x \+ 1\) / 2"):
        Images.of(ok * -0.5)
    with pytest.raises(ValueError, match="0 to 1, got 1.2 to 1.2; clamp or scale"):
        Images.of(ok * 1.2)
    with pytest.raises(ValueError, match="got torch.int64; cast them to uint8"):
        Images.of(ok.astype(np.int64))
    with pytest.raises(ValueError, match="pixels hold NaN"):
        Images.of(ok * np.nan)
    with pytest.raises(ValueError, match="got torch.float64; Images.of converts"):
        Images(torch.ones(1, 1, 2, 2, dtype=torch.float64))


def test_shapes_that_are_no_images_are_refused() -> None:
    with pytest.raises(ValueError, match="got 4 in .*drop the others"):
        Images.of(np.zeros((2, 4, 9, 9), np.uint8))
    with pytest.raises(ValueError, match="channels come second: permute"):
        Images(torch.zeros(2, 9, 9, 3, dtype=torch.uint8))
    with pytest.raises(ValueError, match="with at least one image"):
        Images(torch.zeros(0, 1, 9, 9, dtype=torch.uint8))
    with pytest.raises(ValueError, match="label label has 2 values for 3 images"):
        Images.of(np.zeros((3, 4, 4), np.uint8), {"label": ["a", "b"]})


def test_a_selection_takes_its_labels_along() -> None:
    images = bars(10)
    down = images[images.labels["label"] == "down"]
    assert len(down) == 5 and set(down.labels["label"]) == {"down"}
    assert torch.equal(images[3].pixels, images.pixels[3:4])
    assert torch.equal(images[-1].pixels, images.pixels[-1:])
    assert torch.equal(images[[4, 2]].pixels, images.pixels[[4, 2]])
    assert [len(one) for one in images] == [1] * 10
    with pytest.raises(IndexError):
        images[10]


@pytest.mark.parametrize("channels", [1, 3])
def test_files_bring_pixels_and_labels_back(tmp_path: Path, channels: int) -> None:
    images = bars(11, channels=channels)
    same = Images.read(images.save(tmp_path / "a.npz"))
    assert torch.equal(same.pixels, images.pixels)
    assert same.labels["label"].tolist() == images.labels["label"].tolist()
    floats = Images.read(images.to_floats().save(tmp_path / "b.npz"))
    assert torch.equal(floats.pixels, images.to_floats().pixels)
    folder = Images.read(images.save(tmp_path / "folder"))
    assert folder.channels == channels
    assert set(folder.labels["label"]) == {"across", "down"}
    order = [int(Path(f).stem) for f in folder.labels["file"]]
    assert torch.equal(folder.pixels, images.pixels[order])
    assert folder.labels["label"].tolist() == images.labels["label"][order].tolist()
    one = Images.read(images[2].save(tmp_path / "one.png"))
    assert torch.equal(one.pixels, images.pixels[2:3])


def test_a_picture_of_many_is_a_grid(tmp_path: Path) -> None:
    images = bars(5, size=6)
    grid = np.array(Image.open(images.save(tmp_path / "grid.png")))
    assert grid.shape == (13, 20)
    assert np.array_equal(grid[7:13, 7:13], images.pixels[4, 0].numpy())
    assert (grid[6] == 255).all()


def test_grey_and_colour_are_read_as_asked(tmp_path: Path) -> None:
    bars(1).save(tmp_path / "mixed" / "a" / "x.png")
    bars(1, channels=3).save(tmp_path / "mixed" / "a" / "y.png")
    assert Images.read(tmp_path / "mixed").channels == 3
    grey = Images.read(tmp_path / "mixed", grey=True)
    assert grey.channels == 1
    assert torch.equal(grey.pixels[:1], bars(1).pixels)


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    bars(1, size=6).save(tmp_path / "sizes" / "a.png")
    bars(1, size=7).save(tmp_path / "sizes" / "b.png")
    with pytest.raises(ValueError, match=r"one size, got 2 different .*b\.png"):
        Images.read(tmp_path / "sizes")
    whole = (tmp_path / "sizes" / "a.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"cut\.png is not a readable picture"):
        Images.read(tmp_path / "cut.png")
    (tmp_path / "text.jpg").write_text("no picture")
    with pytest.raises(ValueError, match="not a readable picture"):
        Images.read(tmp_path / "text.jpg")
    (tmp_path / "cut.npz").write_bytes(b"PK nonsense")
    with pytest.raises(ValueError, match="not a readable .npz"):
        Images.read(tmp_path / "cut.npz")
    np.savez(tmp_path / "other.npz", x=np.zeros(3))
    with pytest.raises(ValueError, match="has no array 'pixels', but x"):
        Images.read(tmp_path / "other.npz")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="holds no pictures"):
        Images.read(tmp_path / "empty")
    with pytest.raises(FileNotFoundError, match="no file or folder"):
        Images.read(tmp_path / "nowhere")
    bars(1).save(tmp_path / "loose" / "x.png")
    bars(1).save(tmp_path / "loose" / "a" / "y.png")
    with pytest.raises(ValueError, match=r"such as x\.png: put each into the folder"):
        Images.read(tmp_path / "loose")
    with pytest.raises(ValueError, match="end it with .png"):
        bars(1).save(tmp_path / "x.docx")
    assert not (tmp_path / "x.docx").exists()


def test_a_notebook_shows_images_and_a_figure_their_classes() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        images = bars(70)
        assert images._repr_png_()[:8] == b"\x89PNG\r\n\x1a\n"
        assert "70 of 6 x 6, grey, uint8, labels label" in images._repr_html_()
        figure = images[:5].plot()
    titles = [panel.get_title() for panel in figure.axes]
    assert titles[:5] == ["across", "down"] * 2 + ["across"]
    in_rows = bars(6).plot(columns=2)
    specs = [panel.get_subplotspec() for panel in in_rows.axes]
    assert [s.get_geometry()[:2] for s in specs if s is not None] == [(3, 2)] * 6
    with pytest.raises(ValueError, match="columns must be at least 1, got 0"):
        bars(1).plot(columns=0)


@pytest.mark.parametrize(("name", "kind"), [("deep.png", "uint16"), ("deep.tif", "float32")])
def test_deep_pixels_are_refused_and_not_cut_off(tmp_path: Path, name: str, kind: str) -> None:
    Image.fromarray(np.array([[0, 40000]], kind)).save(tmp_path / name)
    with pytest.raises(ValueError, match=f"{name} has more than 8 bits a pixel.*Images.of"):
        Images.read(tmp_path / name)
