"""Images in two stages (DALL-E 2, Ramesh et al. 2022): a prior makes a vector of a text, a decoder an image of it.

>>> model = TwoStage(embedder, prior, decoder)                                # doctest: +SKIP
>>> made = model.sample(16, "a large red square left of a small blue circle") # doctest: +SKIP
>>> model.variations(made[0], 8)                                              # doctest: +SKIP
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from torch import Tensor

from sciffusion.sampling import Guidance

from .container import Images
from .embedder import Embedder
from .model import ImageModel
from .prior import Prior

__all__ = ["TwoStage"]


@final
@dataclass(frozen=True, eq=False)
class TwoStage:
    """An embedder of images and texts, a prior of its vectors, and a decoder: a model of images that is told a vector.

    Raises ``ValueError`` for parts with vectors of different widths.
    """

    embedder: Embedder
    prior: Prior
    decoder: ImageModel

    def __post_init__(self) -> None:
        widths = {
            "embedder": self.embedder.config.features,
            "prior": self.prior.config.features,
            "decoder": self.decoder.config.reference,
        }
        if len(set(widths.values())) > 1:
            said = ", ".join(f"{k} {v}" for k, v in widths.items())
            raise ValueError(f"the vectors of all parts must have one width, got {said}")

    def sample(
        self,
        n: int = 16,
        text: object = None,
        *,
        guidance: Guidance | None = None,
        seed: int = 0,
        steps: int | None = None,
    ) -> Images:
        """Images of one text for all, or one for each; ``guidance`` and ``steps`` are those of the decoder.

        Image i depends on the seed, i and its text alone. For the errors see :meth:`.Prior.sample`.
        """
        vectors = self.prior.sample(n, text, seed=seed)
        return self.decode(vectors, guidance=guidance, seed=seed + 1, steps=steps)

    def decode(
        self,
        references: Tensor,
        *,
        guidance: Guidance | None = None,
        seed: int = 0,
        steps: int | None = None,
    ) -> Images:
        """One image of each reference (N, E)."""
        given = {"reference": references}
        return self.decoder.sample(
            len(references), given=given, guidance=guidance, seed=seed, steps=steps
        )

    def variations(
        self,
        images: Images,
        n: int = 4,
        *,
        guidance: Guidance | None = None,
        seed: int = 0,
        steps: int | None = None,
    ) -> Images:
        """``n`` images with the vector of each of these, one after the other: alike in what the embedder sees.

        Raises ``ValueError`` for n below 1, and images that the embedder does not know.
        """
        if n < 1:
            raise ValueError(f"n must be at least 1, got {n}")
        found = self.embedder.references(self.embedder.embed(images)).repeat_interleave(n, 0)
        return self.decode(found, guidance=guidance, seed=seed, steps=steps)
