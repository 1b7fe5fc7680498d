"""Arrays come back, and a file that holds none is named without advice to trust it."""

from pathlib import Path

import numpy as np
import pytest

from sciffusion.io import read_npz


def test_arrays_come_back_by_name(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.arange(3), name=np.array(["one"]))
    found = read_npz(tmp_path / "a.npz")
    assert found["x"].tolist() == [0, 1, 2] and found["name"].tolist() == ["one"]


def test_what_is_no_file_of_arrays_is_named(tmp_path: Path) -> None:
    np.savez(tmp_path / "whole.npz", x=np.arange(1000))
    whole = (tmp_path / "whole.npz").read_bytes()
    (tmp_path / "text.npz").write_text("no arrays")
    (tmp_path / "cut.npz").write_bytes(whole[: len(whole) // 2])
    middle = len(whole) // 2
    (tmp_path / "bad.npz").write_bytes(whole[:middle] + b"damaged" + whole[middle + 7 :])
    np.savez(tmp_path / "objects.npz", x=np.array([{}], dtype=object))
    for name in ("text", "cut", "bad", "objects"):
        with pytest.raises(ValueError, match=rf"{name}\.npz is not a readable \.npz") as refused:
            read_npz(tmp_path / f"{name}.npz")
        assert "pickle" not in str(refused.value)
    with pytest.raises(FileNotFoundError, match=r"there is no file .*absent\.npz"):
        read_npz(tmp_path / "absent.npz")


def test_only_what_is_named_is_read_and_what_lacks_is_told(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, x=np.arange(3), y=np.arange(2), z=np.array([{}], dtype=object))
    assert list(read_npz(path, "y", "x")) == ["y", "x"]
    with pytest.raises(
        ValueError, match=r"a\.npz is another \.npz file: it lacks u, v and holds x, y, z"
    ):
        read_npz(path, "u", "x", "v")
