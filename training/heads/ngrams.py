"""A table of logits by n-gram of tokens, and its numbers in a byte each."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["FACTORS", "LONGEST_NGRAM", "NgramTable", "hashes_of", "packed", "rounded"]

LONGEST_NGRAM = 3
# Multipliers of the hash. OpenVINO computes integers in float32, so with ids below 2 ** 18 every
# intermediate value has to stay below 2 ** 24, and the number of buckets is a power of two.
FACTORS = (13, 31)


class NgramTable(nn.Module):
    """One row of logits for each n-gram of tokens, looked up by the n-gram's hash.

    The wide part beside the deep one (Cheng et al. 2016, arXiv:1606.07792), with the bigrams that
    carried naive Bayes so far (Wang & Manning 2012): it knows the words that a frozen encoder has
    smoothed away. Hashing is that of Weinberger et al. 2009 (arXiv:0902.2206).

    With a `rank` a row holds that many numbers, and `projection` `[rank, labels]` makes logits of
    them: a table that does not grow with the labels (Joulin et al. 2016, arXiv:1607.01759).
    """

    def __init__(
        self, buckets: int, labels: int, dropout: float, *, rank: int = 0, relative: bool = True
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(buckets, rank or labels))
        # So drawn, a step changes logits by as much as one of a table of logits does.
        self.projection = nn.Parameter(torch.randn(rank, labels) / rank) if rank else None
        self.dropout = dropout
        self.relative = relative

    def forward(self, ids: Tensor, real: Tensor) -> Tensor:
        """Sum over the n-grams of each text, divided by the root of their number."""
        sums = []
        hashes, present = hashes_of(ids, real, len(self.weight))
        for buckets, mask in zip(hashes, present, strict=True):
            kept = mask
            if self.training and self.dropout:
                kept = mask * (torch.rand_like(mask) >= self.dropout) / (1 - self.dropout)
            rows = nn.functional.embedding(buckets, self.weight)
            sums.append((kept.unsqueeze(1) @ rows).squeeze(1))
        total = torch.stack(sums).sum(0) / torch.cat(present, 1).sum(1, keepdim=True).sqrt()
        return total if self.projection is None else total @ self.projection

    @torch.no_grad()
    def finish(self) -> None:
        """Round to a byte each, relative to the last label's logits where that changes nothing."""
        relative = self.relative and self.projection is None
        weight = self.weight - self.weight[:, -1:] if relative else self.weight
        self.weight.copy_(rounded(weight, 0))


def hashes_of(ids: Tensor, real: Tensor, buckets: int) -> tuple[list[Tensor], list[Tensor]]:
    """For n-grams of 1, 2, ... tokens, one ending at each token: its bucket, and 1 if it is there.

    Returns:
        int64 and float32 `[batch, tokens]`, one a length.
    """
    hashes, present = [ids % buckets], [real]
    for length in range(2, LONGEST_NGRAM + 1):
        # It continues the one that ended a token before, and is there if that one was.
        hashes.append((_previous(hashes[-1]) * FACTORS[0] + ids * FACTORS[1] + length) % buckets)
        present.append(_previous(present[-1]) * real)
    return hashes, present


def _previous(values: Tensor) -> Tensor:
    """Each token's predecessor; 0 before the first."""
    # Not by padding: ONNX Runtime pads int64 on the CPU alone, which keeps CUDA from recording.
    return torch.cat([torch.zeros_like(values[:, :1]), values[:, :-1]], 1)


def packed(weight: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """int8 codes and what to multiply them by, one scale for all along `dim`.

    Exact where the numbers are `rounded` already.
    """
    scale = weight.detach().abs().amax(dim, keepdim=True).clamp(min=1e-8) / 127
    return (weight.detach() / scale).round().to(torch.int8), scale


def rounded(weight: Tensor, dim: int) -> Tensor:
    """The nearest numbers that a byte each can hold, with one scale for all along `dim`."""
    codes, scale = packed(weight, dim)
    return codes * scale
