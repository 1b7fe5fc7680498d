"""Data sets: what their files must hold, and how an archive of archives is read."""

import gzip
import io
import struct
import tarfile
from pathlib import Path

import numpy as np
import pytest

from sciffusion.domains.images.datasets import DATASETS, get_cifar10, get_digits, load, split
from sciffusion.domains.images.datasets import fashion_mnist as fashion
from sciffusion.io import ChecksumError


def idx(array: np.ndarray) -> bytes:
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


def package(arrays: dict[str, np.ndarray]) -> bytes:
    """A Debian package: an ar archive with a tar archive of compressed files."""
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w:xz") as file:
        for key, name in fashion._FILES.items():
            if key in arrays:
                content = gzip.compress(idx(arrays[key]))
                info = tarfile.TarInfo(f"./usr/share/dataset-fashion-mnist/{name}.gz")
                info.size = len(content)
                file.addfile(info, io.BytesIO(content))
    out = b"!<arch>\n"
    for name, content in (("debian-binary", b"2.0"), ("data.tar.xz", tar.getvalue())):
        head = f"{name:<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{len(content):<10}`\n"
        out += head.encode() + content + b"\n" * (len(content) % 2)
    return out


@pytest.fixture
def arrays() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    out = {}
    for part, n in (("train", 12), ("test", 5)):
        out[f"x_{part}"] = rng.integers(0, 256, (n, 28, 28)).astype(np.uint8)
        out[f"y_{part}"] = (np.arange(n) % 10).astype(np.uint8)
    return out


def test_the_digits_are_those_of_scikit_learn_and_need_no_file() -> None:
    images, _ = get_digits()
    assert len(images) == 1797 and images.size == (8, 8)
    assert int(images.pixels.max()) == 255 and int(images.pixels.min()) == 0
    train, test = split("digits:train"), split("digits:test")
    assert len(train) + len(test) == 1797 and len(test) == 359
    assert set(test.labels["label"]) == set("0123456789")
    with pytest.raises(ValueError, match="inside scikit-learn: leave path out"):
        get_digits(Path("digits.npz"))


def test_a_debian_package_holds_the_arrays(tmp_path: Path, arrays: dict[str, np.ndarray]) -> None:
    path = tmp_path / "x.deb"
    path.write_bytes(package(arrays))
    found = fashion.unpack(path)
    assert all(np.array_equal(found[k], v) for k, v in arrays.items())


def test_the_package_is_kept_as_arrays_only_with_its_checksum(
    tmp_path: Path, arrays: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCIFFUSION_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "x.deb"
    path.write_bytes(package(arrays))
    with pytest.raises(ChecksumError):
        fashion.get_fashion_mnist(path)
    from sciffusion.io import sha256

    monkeypatch.setattr(fashion, "SHA256", sha256(path))
    monkeypatch.setattr(fashion, "URL", path.as_uri())
    images, kept = fashion.get_fashion_mnist(None)
    assert len(images) == 17 and images.labels["label"][0] == "T-shirt/top"
    assert [p.name for p in kept.parent.iterdir()] == ["fashion_mnist.npz"]
    again, _ = fashion.get_fashion_mnist(kept)
    assert (again.pixels == images.pixels).all()
    assert (split("fashion-mnist:test").pixels.numpy()[:, 0] == arrays["x_test"]).all()


def test_damaged_packages_and_arrays_are_named(
    tmp_path: Path, arrays: dict[str, np.ndarray]
) -> None:
    path = tmp_path / "x.deb"
    path.write_bytes(b"nonsense")
    with pytest.raises(ValueError, match="is no Debian package"):
        fashion.unpack(path)
    path.write_bytes(package({k: v for k, v in arrays.items() if k != "y_test"}))
    with pytest.raises(ValueError, match="holds no t10k-labels"):
        fashion.unpack(path)
    with pytest.raises(ValueError, match="an IDX file of shape \\(12, 28, 28\\) holds 9407 values"):
        fashion.idx(idx(arrays["x_train"])[:-1])
    np.savez(tmp_path / "short.npz", **{k: v for k, v in arrays.items() if k != "y_test"})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="it lacks y_test"):
        fashion.get_fashion_mnist(tmp_path / "short.npz")
    np.savez(tmp_path / "long.npz", **{**arrays, "x_test": arrays["x_test"].astype(float)})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="x_test must be uint8 \\(5, 28, 28\\)"):
        fashion.get_fashion_mnist(tmp_path / "long.npz")
    np.savez(tmp_path / "class.npz", **{**arrays, "y_test": arrays["y_test"] + np.uint8(9)})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="y_test must lie below 10, got 13"):
        fashion.get_fashion_mnist(tmp_path / "class.npz")
    with pytest.raises(FileNotFoundError, match="no file"):
        fashion.get_fashion_mnist(tmp_path / "none.npz")


def test_a_local_file_is_kept_when_asked_and_then_read_by_name(
    tmp_path: Path, arrays: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCIFFUSION_CACHE", str(tmp_path / "cache"))
    colour = {
        k: np.zeros((len(v), 32, 32, 3), v.dtype) if k[0] == "x" else v for k, v in arrays.items()
    }
    for name, held in (("fashion-mnist", arrays), ("cifar10", colour)):
        path = tmp_path / f"{name}.npz"
        np.savez(path, **held)
        assert len(split(name, path)) == 17
        assert not (tmp_path / "cache" / name).exists()  # reading keeps nothing
        images, kept = DATASETS[name](path)
        path.unlink()
        assert kept.is_relative_to(tmp_path / "cache")
        assert (split(name).pixels == images.pixels).all()
        assert DATASETS[name](kept)[1] == DATASETS[name](None)[1] == kept


def test_data_are_found_by_name_and_what_is_none_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCIFFUSION_CACHE", str(tmp_path))
    with pytest.raises(ValueError, match="Did you mean 'digits:train'"):
        split("digits:trian")
    with pytest.raises(FileNotFoundError, match="neither a file or folder nor a data set"):
        load("fashion")
    with pytest.raises(ValueError, match="no stated licence and is not fetched"):
        get_cifar10(None)
