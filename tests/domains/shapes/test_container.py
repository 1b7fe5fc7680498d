"""Sets of points: what they hold, and their files."""

from pathlib import Path

import numpy as np
import pytest
import torch

from sciffusion.domains.shapes import Shapes, check_output, superquadrics
from sciffusion.domains.shapes.data import load


def ragged() -> Shapes:
    g = torch.Generator().manual_seed(0)
    sets = [torch.randn(n, 3, generator=g) + 5 for n in (4, 1, 6)]
    return Shapes.of(sets, {"label": ["a", "b", "a"]})


def test_rows_keep_their_points_and_labels() -> None:
    shapes = ragged()
    assert repr(shapes) == "Shapes(3 of 1 to 6 points, labels label)"
    assert (shapes[[2, 0]].points == torch.cat([shapes.parts()[2], shapes.parts()[0]])).all()
    assert shapes[np.array([False, True, True])].labels["label"].tolist() == ["b", "a"]
    assert [len(one.points) for one in shapes] == [4, 1, 6]
    joined = Shapes.joined([shapes[:1], shapes[1:]])
    assert (joined.points == shapes.points).all() and list(joined.labels["label"]) == [
        "a",
        "b",
        "a",
    ]


def test_padding_and_back_is_the_identity() -> None:
    shapes = ragged()
    x, mask = shapes.padded()
    assert x.shape == (3, 6, 3) and not x[~mask].any()
    assert (Shapes.from_padded(x, mask).points == shapes.points).all()


def test_centring_moves_every_set_and_keeps_its_distances() -> None:
    shapes = ragged()
    for x, y in zip(shapes.parts(), shapes.centred().parts(), strict=True):
        assert y.mean(0).abs().max() < 1e-6
        torch.testing.assert_close(torch.cdist(x, x), torch.cdist(y, y), atol=1e-5, rtol=1e-4)


def test_thinning_takes_different_points_of_the_set_itself() -> None:
    thin = ragged().thinned(3, seed=1)
    assert thin.sizes.tolist() == [3, 1, 3]
    for x, y in zip(ragged().parts(), thin.parts(), strict=True):
        assert all((x == p).all(1).sum() == 1 for p in y)
        assert len(y.unique(dim=0)) == len(y)
    assert (ragged().thinned(3, seed=1).points == thin.points).all()


def test_npz_and_a_folder_bring_everything_back(tmp_path: Path) -> None:
    shapes = ragged()
    back = Shapes.read(shapes.save(tmp_path / "some.npz"))
    assert (back.points == shapes.points).all() and (back.sizes == shapes.sizes).all()
    assert back.labels["label"].tolist() == ["a", "b", "a"]
    folder = load(str(shapes.save(tmp_path / "folder")))
    assert folder.labels["label"].tolist() == ["a", "a", "b"]
    assert (folder.points == shapes[[0, 2, 1]].points).all()
    assert len(list(tmp_path.rglob(".part*"))) == 0


def test_one_set_is_read_from_every_kind_of_file(tmp_path: Path) -> None:
    one = superquadrics(1, points=5)
    x = one.points.numpy()
    one.save(tmp_path / "a.ply")
    np.save(tmp_path / "b.npy", x.astype(np.float64))
    np.savetxt(tmp_path / "c.xyz", np.concatenate([x, np.ones((5, 1))], 1), header="x y z red")
    text = "ply\nformat ascii 1.0\ncomment made\nelement vertex 5\nproperty uchar red\n"
    text += "property double y\nproperty double x\nproperty double z\nelement face 1\n"
    text += "property list uchar int vertex_indices\nend_header\n"
    text += "".join(f"7 {y} {x_} {z}\n" for x_, y, z in x.tolist()) + "3 0 1 2\n"
    (tmp_path / "d.ply").write_text(text)
    kind = np.dtype([("x", ">f8"), ("y", ">f8"), ("z", ">f8"), ("q", ">i2")])
    big = np.zeros(5, kind)
    for axis, values in zip("xyz", x.T, strict=True):
        big[axis] = values
    head = "ply\nformat binary_big_endian 1.0\nelement vertex 5\nproperty double x\nproperty double y\n"
    head += "property double z\nproperty short q\nend_header\n"
    (tmp_path / "e.ply").write_bytes(head.encode() + big.tobytes())
    found = Shapes.read(tmp_path)
    assert found.labels["file"].tolist() == ["a.ply", "b.npy", "c.xyz", "d.ply", "e.ply"]
    for part in found.parts():
        torch.testing.assert_close(part, one.points, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.ply", b"plymouth", "no header of a PLY file"),
        (
            "a.ply",
            b"ply\nformat ascii 1.0\nelement vertex 3\nproperty float x\nend_header\n",
            "not x, y and z",
        ),
        ("a.xyz", b"1 2\n3 4\n", "not a readable file of points"),
        ("a.npy", b"nothing", "not a readable file of points"),
        ("a.npz", b"nothing", "not a readable .npz"),
        ("a.stl", b"solid", "its suffix is none of"),
    ],
)
def test_damaged_files_are_named(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message) as error:
        Shapes.read(tmp_path / name)
    assert str(tmp_path / name) in str(error.value)


def test_a_file_that_is_cut_off_is_told(tmp_path: Path) -> None:
    path = superquadrics(1, points=5).save(tmp_path / "a.ply")
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match="cut off: 5 vertices"):
        Shapes.read(path)
    with pytest.raises(FileNotFoundError, match="no file or folder"):
        Shapes.read(tmp_path / "none.npz")


def test_wrong_points_and_paths_are_told(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"set 0 must have shape \(n, 3\), got \(4, 2\)"):
        Shapes.of(np.zeros((2, 4, 2)))
    with pytest.raises(ValueError, match="sets is empty"):
        Shapes.of([])
    with pytest.raises(ValueError, match="NaN or infinity"):
        Shapes.of(np.full((1, 2, 3), np.nan))
    with pytest.raises(ValueError, match="label kind has 1 values for 2 sets"):
        Shapes.of(np.zeros((2, 4, 3)), {"kind": ["a"]})
    with pytest.raises(ValueError, match="at least one set"):
        _ = ragged()[:0]
    with pytest.raises(ValueError, match="a .ply holds one set of points, got 3"):
        ragged().save(tmp_path / "a.ply")
    with pytest.raises(ValueError, match="end it with .npz"):
        check_output(Path("a.obj"))


def test_a_plot_has_a_panel_for_each_set() -> None:
    pytest.importorskip("matplotlib")
    figure = ragged().plot()
    assert [panel.get_title() for panel in figure.axes] == ["a", "b", "a", ""]
