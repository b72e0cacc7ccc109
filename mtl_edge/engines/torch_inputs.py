"""What goes into a graph and what comes out of it, checked on the host."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mtl_edge.engines import Logits
from mtl_edge.errors import EngineError, OutOfMemoryError, RunError

__all__ = ["Ids", "Limits", "failure", "finite"]

Ids = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Limits:
    """What a graph takes. On a GPU, a row that a table does not have ends the process's use of it.

    Attributes:
        max_tokens: in a text; none: any number.
        vocabulary: token ids are below it; none: any.
    """

    max_tokens: int | None
    vocabulary: int | None

    def check(self, input_ids: Ids, attention_mask: Ids) -> None:
        """
        Raises:
            EngineError: inputs are of different shapes, empty, too long, or of unknown tokens.
        """
        shape = input_ids.shape
        if len(shape) != 2 or 0 in shape or attention_mask.shape != shape:
            raise EngineError(
                "expected ids and mask of one shape, [batch, tokens], and not empty; got "
                f"{shape} and {attention_mask.shape}"
            )
        if self.max_tokens is not None and shape[1] > self.max_tokens:
            raise EngineError(
                f"expected at most {self.max_tokens} tokens, got {shape[1]}: cut the text off"
            )
        if self.vocabulary is not None:
            least, most = int(input_ids.min()), int(input_ids.max())
            if least < 0 or most >= self.vocabulary:
                raise EngineError(
                    f"expected token ids from 0 to {self.vocabulary - 1}, got "
                    f"{least if least < 0 else most}: use the bundle's own tokenizer"
                )


def finite(logits: Logits) -> Logits:
    """The same logits.

    Raises:
        EngineError: some are not numbers, as where float16 overflows.
    """
    for name, values in logits.items():
        if not np.isfinite(values).all():
            raise EngineError(
                f"task {name!r} got logits that are not finite: a text without tokens, or numbers "
                "that float16 cannot hold; run the bundle's onnx-fp32 graph"
            )
    return logits


def failure(error: RuntimeError, shape: tuple[int, ...]) -> RunError:
    """What to raise in the place of torch's error: it has a class for a GPU's memory alone."""
    kind = OutOfMemoryError if "memory" in str(error).lower() else RunError
    return kind(f"torch failed on {shape}: {error}")
