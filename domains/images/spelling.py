"""Words that are to be drawn, told letter by letter.

An encoder of texts knows what a word means: "cat" is one token, whose vector stands near that of "dog". How it is
spelled that vector does not say, so a network could draw a word only if it saw that word drawn (Liu et al. 2022, who
find that encoders of characters mend it). Here every text in double quotes is followed by tokens of its letters. Such a
token says which letter it is, and its place counted from the beginning and from the end: tokens of a context have no
places of their own, and a word at the right edge ends where one at the left edge begins.
"""

from __future__ import annotations

import hashlib
import re
import string
from collections.abc import Iterator
from typing import final

import torch
from torch import Tensor

from sciffusion.text import TextEncoder

__all__ = ["ALPHABET", "SpellingEncoder"]

ALPHABET = " " + string.ascii_letters + string.digits + string.punctuation.replace('"', "")
"""What can be spelled: printable ASCII but the quotes."""

QUOTED = re.compile(r'["“]([^"“”]*)["”]')


@final
class SpellingEncoder(TextEncoder):
    """Another encoder's tokens, and after them those of the letters of everything that the text has in double quotes.

    The features of a token are those of ``words``, of the alphabet, and of the places from either end, and only one of
    the first and the two others is not zero: the first linear layer of a network is then one for words and, beside it,
    a learned vector for each letter and each place. Tokens of both kinds have one norm on average.

    Args:
        words: the encoder of the text as a whole.
        places: the longest quoted text, in letters.
    """

    def __init__(self, words: TextEncoder, places: int = 16) -> None:
        if places < 1:
            raise ValueError(f"places must be at least 1, got {places}")
        width = words.width + len(ALPHABET) + 2 * places
        super().__init__(f"{words.name} with spelling", width, words.longest + places)
        self.words, self.places = words, places

    @property
    def fingerprint(self) -> str:
        """Of the other encoder, the alphabet and the places."""
        said = f"{self.words.fingerprint} {ALPHABET} {self.places}"
        return hashlib.sha256(said.encode()).hexdigest()[:16]

    def _tokens(self, text: str) -> Tensor:
        tokens, _ = self.words.encode([text])
        spelled = list(self._letters(text))
        out = tokens.new_zeros(tokens.shape[1] + len(spelled), self.width)
        out[: tokens.shape[1], : self.words.width] = tokens[0]
        size = (self.words.width / 3) ** 0.5  # three features share the square of a word's norm
        for row, features in zip(out[tokens.shape[1] :], spelled, strict=True):
            row[self.words.width + torch.tensor(features)] = size
        return out

    def _letters(self, text: str) -> Iterator[tuple[int, int, int]]:
        """Of every quoted letter the features that are not zero, counted from the first letter of the alphabet."""
        for quoted in QUOTED.findall(text):
            if len(quoted) > self.places:
                raise ValueError(
                    f"a text in quotes can have up to {self.places} letters, got {len(quoted)}: {quoted[:40]!r}"
                )
            for i, letter in enumerate(quoted):
                if letter not in ALPHABET:
                    raise ValueError(
                        f"the letter {letter!r} of {quoted!r} cannot be spelled: use ASCII"
                    )
                first, last = len(ALPHABET) + i, len(ALPHABET) + self.places + len(quoted) - 1 - i
                yield ALPHABET.index(letter), first, last
