"""Models on the Hugging Face Hub: a folder of one config.json and one model.safetensors, which holds all there is.

A model that a domain saves is one safetensors file with its description inside. :func:`pack` lays it in a folder with
that description beside it, for readers and for the Hub's page; :func:`unpack` gives back the file, for the domain's own
``load``. :func:`push` and :func:`pull` move such folders. Nothing that a folder holds is executed or unpickled, and a
folder with any other kind of file is refused, whoever made it.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from sciffusion.errors import require
from sciffusion.io.atomic import atomic_write, sha256
from sciffusion.training.export import load_weights

__all__ = ["pack", "pull", "push", "unpack"]

_CONFIG, _WEIGHTS, _CARD = "config.json", "model.safetensors", "README.md"
_ALLOWED = (_CONFIG, _WEIGHTS, _CARD, ".gitattributes")


def pack(model: str | Path, folder: str | Path, card: str | None = None) -> Path:
    """Lay a saved model in a folder as the Hub wants it.

    Args:
        model: the safetensors file that a domain's ``save`` wrote.
        folder: made if need be.
        card: the text of README.md, the model's card (what it is, its data, its licence).

    Raises:
        ValueError: if ``model`` is no such file, or the folder holds other files.
    """
    meta = _description(Path(model))
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    _check(folder, complete=False)
    with atomic_write(folder / _WEIGHTS) as part:
        shutil.copyfile(model, part)
    description = {
        "library_name": "sciffusion",
        "weights": sha256(folder / _WEIGHTS),
        "model": meta,
    }
    with atomic_write(folder / _CONFIG) as part:
        part.write_text(json.dumps(description, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    if card is not None:
        with atomic_write(folder / _CARD) as part:
            part.write_text(card, encoding="utf-8")
    return folder


def unpack(folder: str | Path) -> Path:
    """The safetensors file in a folder, after both files were checked against each other.

    Raises ``ValueError`` if a file is missing, broken, of a kind that is not allowed here, or not the one described.
    """
    folder = Path(folder)
    _check(folder, complete=True)
    weights = folder / _WEIGHTS
    try:
        described = json.loads((folder / _CONFIG).read_text(encoding="utf-8"))
        expected, meta = described["weights"], described["model"]
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise ValueError(
            f"{folder / _CONFIG} is not the description that pack writes: {error!r}"
        ) from None
    if sha256(weights) != expected:
        raise ValueError(
            f"{weights} is not the file that {_CONFIG} describes (another sha256); fetch or pack the folder again"
        )
    if _description(weights) != meta:
        raise ValueError(f"{folder / _CONFIG} and {weights} describe different models")
    return weights


def push(
    folder: str | Path, repository: str, *, private: bool = True, message: str = "Upload the model"
) -> str:
    """Upload a packed folder to ``owner/name`` on the Hub, which is made if need be; returns the commit's address.

    The token is the one that ``hf auth login`` stored. Raises ``ValueError`` as :func:`unpack` does, before anything is
    sent.
    """
    unpack(folder)
    hub = require("huggingface_hub", extra="hub")
    api = hub.HfApi(library_name="sciffusion")
    api.create_repo(repository, private=private, exist_ok=True)
    sent = api.upload_folder(
        repo_id=repository,
        folder_path=folder,
        allow_patterns=list(_ALLOWED),
        commit_message=message,
    )
    return str(sent.commit_url)


def pull(repository: str, revision: str | None = None, *, cache: str | Path | None = None) -> Path:
    """Fetch a model from the Hub and return its checked safetensors file; a local folder is taken as it is.

    Only the files of a packed folder are fetched, whatever else the repository holds. For a result that cannot change,
    give a commit's hash as ``revision``.

    Raises:
        ValueError: as :func:`unpack` does.
    """
    if Path(repository).is_dir():
        return unpack(repository)
    hub = require("huggingface_hub", extra="hub")
    folder = hub.snapshot_download(
        repository,
        revision=revision,
        cache_dir=cache,
        allow_patterns=list(_ALLOWED),
        library_name="sciffusion",
    )
    return unpack(folder)


def _check(folder: Path, *, complete: bool) -> None:
    """Raise ``ValueError`` for files that have no place in a model's folder, and for missing ones if ``complete``."""
    if not folder.is_dir():
        raise ValueError(f"{folder} is no folder")
    names = {path.name for path in folder.iterdir() if not path.name.startswith(".cache")}
    if strange := sorted(names - set(_ALLOWED)):
        raise ValueError(
            f"{folder} holds {', '.join(strange)}; a model's folder holds {_CONFIG}, {_WEIGHTS} and {_CARD} alone"
        )
    missing = [name for name in (_CONFIG, _WEIGHTS) if name not in names]
    if complete and missing:
        raise ValueError(f"{folder} lacks {', '.join(missing)}; make the folder with pack")


def _description(path: Path) -> object:
    """What a saved model says of itself."""
    return load_weights(path)[1]
