"""Image files: pictures, grids, folders of pictures with a folder for each class, and arrays with their labels."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from sciffusion.errors import require
from sciffusion.io import atomic_write, read_npz

from .container import Images

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["PICTURES", "picture", "read", "write"]

PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp")
_DEEP = ("I", "F")  # how the modes of 16- and 32-bit pixels begin; Pillow cuts these off at 255


def read(path: str | Path, *, grey: bool | None = None) -> Images:
    """Images of a picture, of a folder of pictures, or of an ``.npz``.

    In a folder with folders, these name the classes (label ``label``); all pictures must have one size, and come in the
    order of their names, with their file (label ``file``). ``grey`` makes pictures grey, or not; None: grey if all are.

    Raises:
        FileNotFoundError: nothing is there.
        ValueError: no picture, one that cannot be read, sizes that differ, pixels of more than 8 bits, or an ``.npz``
            of something else.
    """
    path = Path(path)
    if path.is_dir():
        return _folder(path, grey)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file or folder {path}")
    if path.suffix == ".npz":
        return _arrays(path)
    pixels = _stack([path], grey)
    return Images(pixels, {"file": np.array([path.name])})


def write(images: Images, path: str | Path) -> Path:
    """Write images as :meth:`Images.save` says."""
    path = Path(path)
    if not path.suffix:
        return _spread(images, path)
    if path.suffix == ".npz":
        arrays = {f"label.{k}": np.asarray(v) for k, v in images.labels.items()}
        with atomic_write(path) as part, open(part, "wb") as file:
            np.savez_compressed(file, pixels=images.pixels.numpy(), **arrays)  # type: ignore[arg-type]
        return path
    if path.suffix.lower() not in PICTURES:
        raise ValueError(
            f"{path}: end it with .png or another picture's suffix, with .npz, or with none for a folder"
        )
    with atomic_write(path) as part:
        picture(images.grid()).save(part)
    return path


def picture(pixels: Tensor) -> Image:
    """A Pillow image of bytes (C, H, W)."""
    pillow = require("PIL.Image", extra="images")
    array = pixels.permute(1, 2, 0).numpy()
    made: Image = pillow.fromarray(array[..., 0] if array.shape[-1] == 1 else array)
    return made


def _spread(images: Images, folder: Path) -> Path:
    """Numbered pictures in a folder, each class in its own."""
    width = len(str(len(images) - 1))
    classes = images.labels.get("label")
    for i, pixels in enumerate(images.to_bytes().pixels):
        inner = folder if classes is None else folder / _name(str(classes[i]))
        inner.mkdir(parents=True, exist_ok=True)
        with atomic_write(inner / f"{i:0{width}d}.png") as part:
            picture(pixels).save(part)
    return folder


def _name(label: str) -> str:
    """A class as a folder's name."""
    return label.replace("/", "-").strip() or "none"


def _arrays(path: Path) -> Images:
    found = read_npz(path)
    if "pixels" not in found:
        raise ValueError(
            f"{path} has no array 'pixels', but {', '.join(found) or 'nothing'}; save images with Images.save"
        )
    labels = {k.removeprefix("label."): v for k, v in found.items() if k.startswith("label.")}
    try:
        return Images(torch.from_numpy(found["pixels"]), labels)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path}: {error}") from error


def _folder(folder: Path, grey: bool | None) -> Images:
    files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in PICTURES and p.is_file())
    if not files:
        raise ValueError(f"{folder} holds no pictures ({', '.join(PICTURES)})")
    inner = [p.relative_to(folder) for p in files]
    labels: dict[str, Any] = {"file": np.array([str(p) for p in inner])}
    if all(len(p.parts) > 1 for p in inner):
        labels["label"] = np.array([p.parts[0] for p in inner])
    elif any(len(p.parts) > 1 for p in inner):
        loose = next(p for p in inner if len(p.parts) == 1)
        raise ValueError(
            f"{folder} holds pictures beside folders, such as {loose}: put each into the folder of its class, or all "
            "beside each other"
        )
    return Images(_stack(files, grey), labels)


def _stack(files: list[Path], grey: bool | None) -> Tensor:
    """The bytes of pictures of one size, (N, C, H, W)."""
    pillow = require("PIL.Image", extra="images")
    found = []
    for path in files:
        try:
            with pillow.open(path) as opened:
                opened.load()
                plain = opened.mode in ("1", "L")
                deep = opened.mode if opened.mode.startswith(_DEEP) else None
                found.append((plain, np.array(opened.convert("L" if plain else "RGB"))))
        except (OSError, ValueError, SyntaxError, pillow.DecompressionBombError) as error:
            raise ValueError(f"{path} is not a readable picture: {error}") from error
        if deep is not None:
            raise ValueError(
                f"{path} has more than 8 bits a pixel (Pillow's mode {deep}), whose scale nobody can know: read it as "
                "an array, scale it to 0 to 1, and give it to Images.of"
            )
    sizes = {image.shape[:2] for _, image in found}
    if len(sizes) > 1:
        first = next(
            p
            for p, (_, x) in zip(files, found, strict=True)
            if x.shape[:2] != found[0][1].shape[:2]
        )
        raise ValueError(
            f"pictures must have one size, got {len(sizes)} different ones (the first that differs is {first}); resize "
            "or crop them"
        )
    as_grey = all(plain for plain, _ in found) if grey is None else grey
    out = []
    for plain, image in found:
        if as_grey and not plain:
            image = np.array(pillow.fromarray(image).convert("L"))
        if not as_grey and plain:
            image = np.repeat(image[..., None], 3, axis=2)
        out.append(image[..., None] if image.ndim == 2 else image)
    return torch.from_numpy(np.stack(out)).permute(0, 3, 1, 2).contiguous()
