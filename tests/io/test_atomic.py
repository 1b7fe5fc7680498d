"""A file is there whole, or not there."""

import hashlib
import os
from pathlib import Path

import numpy as np
import pytest

from sciffusion.io import atomic_write, sha256


def test_the_file_appears_under_its_name_only_when_the_block_ends(tmp_path: Path) -> None:
    target = tmp_path / "new" / "folder" / "a.txt"
    with atomic_write(target) as part:
        part.write_text("whole")
        assert not target.exists()
        assert part.parent == target.parent  # one file system, else the rename is a copy
    assert target.read_text() == "whole"
    assert os.listdir(target.parent) == ["a.txt"]


@pytest.mark.parametrize("stop", [RuntimeError, KeyboardInterrupt])
def test_a_block_that_raises_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, stop: type[BaseException]
) -> None:
    target = tmp_path / "a.txt"
    target.write_text("old")
    with pytest.raises(stop), atomic_write(target) as part:
        part.write_text("half of the n")
        raise stop
    assert target.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_the_old_file_is_replaced_and_readers_that_hold_it_keep_it(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    target.write_text("old")
    with open(target) as reader, atomic_write(target) as part:
        part.write_text("new")
        assert reader.read() == "old"
    assert target.read_text() == "new"


def test_two_writers_of_one_target_do_not_share_a_temporary_file(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    with atomic_write(target) as first, atomic_write(target) as second:
        first.write_text("first")
        second.write_text("second")
    assert target.read_text() == "first"  # the outer block ends last


def test_a_writer_that_looks_at_the_suffix_writes_the_path_it_was_given(tmp_path: Path) -> None:
    with atomic_write(tmp_path / "a.npz") as part:
        np.savez(part, x=np.arange(3))  # numpy appends .npz to any other name
    np.testing.assert_array_equal(np.load(tmp_path / "a.npz")["x"], [0, 1, 2])


def test_a_block_that_writes_nothing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nothing was written for .*a.txt"):
        with atomic_write(tmp_path / "a.txt"):
            pass


def test_a_folder_is_not_overwritten(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError, match=str(tmp_path)):
        with atomic_write(tmp_path):
            pass


def test_new_files_have_the_permissions_of_ordinary_ones(tmp_path: Path) -> None:
    (tmp_path / "ordinary").write_text("")
    with atomic_write(tmp_path / "atomic") as part:
        part.write_text("")
    modes = [(tmp_path / name).stat().st_mode for name in ("ordinary", "atomic")]
    assert modes[0] == modes[1]


def test_sha256_is_that_of_the_bytes(tmp_path: Path) -> None:
    content = os.urandom(3_000_001)  # longer than any buffer of one read
    (tmp_path / "a").write_bytes(content)
    assert sha256(tmp_path / "a") == hashlib.sha256(content).hexdigest()
