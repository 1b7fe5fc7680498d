"""Texts as tokens that networks attend to: what a domain needs to be asked in words.

>>> encoder = wordllama()                                                     # doctest: +SKIP
>>> tokens, mask = encoder.encode(["a low voice says seven", "nine"])         # doctest: +SKIP
>>> tokens.shape, mask.sum(1)                                                 # doctest: +SKIP
(torch.Size([2, 5, 256]), tensor([5, 1]))
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import final

import torch
from torch import Tensor

from sciffusion.errors import MissingExtra, require
from sciffusion.mended import mend_torchaudio

__all__ = ["StaticEncoder", "TextEncoder", "TransformersEncoder", "wordllama"]


class TextEncoder(ABC):
    """Texts to tokens: fixed, deterministic, and each text by itself.

    ``width`` is the number of features of a token, ``longest`` the largest number of tokens of a text.
    """

    def __init__(self, name: str, width: int, longest: int) -> None:
        self.name, self.width, self.longest = name, width, longest

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """A short text that differs between encoders with different weights."""

    @abstractmethod
    def _tokens(self, text: str) -> Tensor:
        """The tokens of one text, (L, D) float32; at most one more than ``longest`` need be right."""

    def encode(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Tokens (B, L, D), float32, zero where a text has ended, and which of them count, (B, L).

        A text's tokens do not depend on the other texts.

        Raises ``ValueError`` for no texts, something that is no text, one that is empty, or one with too many tokens.
        """
        if isinstance(texts, str):
            raise ValueError("texts must be a list of texts, got a single one: put it in a list")
        if not len(texts):
            raise ValueError("texts is empty: give at least one text")
        rows = []
        for i, text in enumerate(texts):
            if not isinstance(text, str):
                raise ValueError(f"texts[{i}] must be a text, got {type(text).__name__}")
            if not text.strip():
                raise ValueError(f"texts[{i}] is empty; leave the text out to ask for anything")
            row = self._tokens(text)
            if not 0 < len(row) <= self.longest:
                raise ValueError(
                    f"texts[{i}] has {len(row)} tokens, but {self.name} takes 1 to {self.longest}: "
                    f"{text[:40]!r}"
                )
            rows.append(row)
        tokens = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
        sizes = torch.tensor([len(row) for row in rows])
        return tokens, torch.arange(tokens.shape[1]) < sizes[:, None]

    def condition(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """The entries ``text`` and ``text_mask`` of a condition; for the errors see :meth:`encode`."""
        tokens, mask = self.encode(texts)
        return {"text": tokens, "text_mask": mask}


@final
class StaticEncoder(TextEncoder):
    """A vector for every entry of a vocabulary, whatever stands beside it: a bag of words to a network.

    Args:
        table: vectors (V, D); they are scaled to a mean square of 1 over the whole table.
        split: the numbers of a text's entries in the vocabulary.
        name: what errors call it.
        longest: the largest number of tokens of a text.

    Raises ``ValueError`` for a table that is not two-dimensional, or is zero.
    """

    def __init__(
        self, table: Tensor, split: Callable[[str], list[int]], name: str, longest: int = 64
    ) -> None:
        if table.ndim != 2 or not bool(table.any()):
            raise ValueError(f"table must be (V, D) and not zero, got {tuple(table.shape)}")
        super().__init__(name, table.shape[1], longest)
        table = table.float()
        self.table, self.split = table / table.square().mean().sqrt(), split

    @property
    def fingerprint(self) -> str:
        """Of the table; the tokenizer is not seen."""
        return hashlib.sha256(self.table.numpy().tobytes()).hexdigest()[:16]

    def _tokens(self, text: str) -> Tensor:
        return self.table[torch.tensor(self.split(text), dtype=torch.long)]


def wordllama(longest: int = 64) -> StaticEncoder:
    """The 32,000 vectors of 256 features inside the package ``wordllama`` (Miller, 2024), read without a network.

    The package is under the MIT licence; its table was made of the token embeddings of language models, LLaMA 2 among
    them. Texts are put in lower case.

    Raises ``MissingExtra`` if ``wordllama`` or ``tokenizers`` is not installed.
    """
    # the files alone are read: importing the package would bring what it needs for other things
    spec = find_spec("wordllama")
    if spec is None or spec.origin is None:
        raise MissingExtra(
            'the package wordllama is not installed. Install it with: pip install "sciffusion[text]"',
            name="wordllama",
        )
    from safetensors.torch import load_file

    home = Path(spec.origin).parent
    tokenizers = require("tokenizers", extra="text")
    tokenizer = tokenizers.Tokenizer.from_file(
        str(home / "tokenizers" / "l2_supercat_tokenizer_config.json")
    )
    tokenizer.no_padding()
    tokenizer.no_truncation()

    def split(text: str) -> list[int]:
        found: list[int] = tokenizer.encode(text.lower(), add_special_tokens=False).ids
        return found

    table = load_file(home / "weights" / "l2_supercat_256.safetensors")["embedding.weight"]
    return StaticEncoder(table, split, "wordllama", longest)


@final
class TransformersEncoder(TextEncoder):
    """A language model in a folder, as ``transformers`` saves it, with its tokenizer: tokens in their context.

    Texts are encoded one at a time, so that padding cannot act on them.

    Raises ``MissingExtra`` without ``transformers``, and ``FileNotFoundError`` for a folder that is not there: nothing
    is fetched.
    """

    def __init__(self, folder: str | Path, longest: int = 64) -> None:
        folder = Path(folder)
        mend_torchaudio()  # which transformers imports if it is there
        transformers = require("transformers", extra="text")
        if not folder.is_dir():
            raise FileNotFoundError(f"there is no folder {folder} with a language model")
        self._split = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
        model = transformers.AutoModel.from_pretrained(folder, local_files_only=True)
        # of a model that also writes, only the half that reads
        self._model = model.get_encoder() if model.config.is_encoder_decoder else model
        self._model.eval().requires_grad_(False)
        super().__init__(folder.name, int(model.config.hidden_size), longest)

    @property
    def fingerprint(self) -> str:
        """Of the weights."""
        digest = hashlib.sha256()
        for name, value in sorted(self._model.state_dict().items()):
            raw = value.cpu().contiguous().flatten().view(torch.uint8)  # numpy knows no bfloat16
            digest.update(name.encode() + raw.numpy().tobytes())
        return digest.hexdigest()[:16]

    def _tokens(self, text: str) -> Tensor:
        ids = self._split(text, return_tensors="pt", truncation=True, max_length=self.longest + 1)
        with torch.no_grad():
            found: Tensor = self._model(**ids).last_hidden_state[0].float()
        return found
