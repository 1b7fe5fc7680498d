"""How a model reads what it is asked in words: which encoder makes tokens of texts, and how it is found again."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import final

import torch
from torch import Tensor

from sciffusion.text import TextEncoder, TransformersEncoder, wordllama

from .spelling import SpellingEncoder

__all__ = ["TextConfig", "told"]


@final
@dataclass(frozen=True)
class TextConfig:
    """The encoder of a model's texts: ``wordllama``, or a folder with a language model of ``transformers``.

    With ``spelled`` the letters of what stands in double quotes are told one by one (:class:`.SpellingEncoder`).
    ``longest`` is the largest number of tokens of a text. ``width``, that of a token, and ``fingerprint``, of the
    encoder's weights, are found when training begins, and stored: a model reads no text through other weights.
    """

    encoder: str = "wordllama"
    spelled: bool = False
    longest: int = 64
    width: int = 0
    fingerprint: str = ""

    def settled(self) -> TextConfig:
        """The same with the width and the fingerprint of the encoder that is there. For errors see :meth:`read`."""
        reader = self.reader()
        return replace(self, width=reader.width, fingerprint=reader.fingerprint)

    def reader(self) -> TextEncoder:
        """The encoder; loaded once and kept.

        Raises ``MissingExtra`` without its package, ``FileNotFoundError`` for a folder that is not there, and
        ``ValueError`` for one with other weights than the model was trained with.
        """
        found = _reader(self.encoder, self.spelled, self.longest)
        if self.fingerprint not in ("", found.fingerprint):
            raise ValueError(
                f"the model was trained with another encoder of texts than {self.encoder} is here (fingerprint "
                f"{self.fingerprint}, here {found.fingerprint}): give model.config.text.encoder the right folder"
            )
        return found

    def condition(self, texts: object, n: int) -> dict[str, Tensor]:
        """The entries ``text`` (N, L, width) and ``text_mask`` (N, L) for n images.

        One text for all, or one for each; None says nothing. Raises ``ValueError`` for something else, texts of another
        number, that are empty, or too long; for the other errors see :meth:`reader`.
        """
        rows = told(texts, n)
        at = [i for i, row in enumerate(rows) if row]
        if not at:
            return {"text": torch.zeros(n, 1, self.width), "text_mask": torch.zeros(n, 1).bool()}
        # equal texts are read once
        different = list(dict.fromkeys(row for row in rows if row))
        tokens, mask = self.reader().encode(different)
        text = tokens.new_zeros(n, *tokens.shape[1:])
        text_mask = mask.new_zeros(n, mask.shape[1])
        which = torch.tensor([different.index(rows[i]) for i in at])
        text[at], text_mask[at] = tokens[which], mask[which]
        return {"text": text, "text_mask": text_mask}


def told(texts: object, n: int) -> list[str]:
    """One text for each of n images, "" where none is told. For the errors see :meth:`TextConfig.condition`."""
    if texts is None or isinstance(texts, str):
        rows: list[object] = [texts] * n
    elif isinstance(texts, Iterable):
        rows = list(texts)
    else:
        raise ValueError(f"text must be a text, or one for each image, got {texts!r}")
    if len(rows) != n:
        raise ValueError(f"text has {len(rows)} values for {n} images")
    for row in rows:
        if row is not None and not (isinstance(row, str) and row.strip()):
            raise ValueError(f"text must hold words, got {row!r}; None says nothing")
    return [str(row or "") for row in rows]


@lru_cache(maxsize=4)
def _reader(encoder: str, spelled: bool, longest: int) -> TextEncoder:
    words: TextEncoder
    words = wordllama(longest) if encoder == "wordllama" else TransformersEncoder(encoder, longest)
    return SpellingEncoder(words) if spelled else words
