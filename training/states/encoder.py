"""What computes states: a backbone in torch, or anything else that encodes tokens."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch

from mtl_edge.batches.planning import Tokens, pad
from mtl_edge.training.backbone import Backbone
from mtl_edge.training.device import device
from mtl_edge.training.model import states_of

__all__ = ["DIGEST_BYTES", "Encoder", "Kind", "TorchEncoder", "Values", "digest"]

Values = npt.NDArray[np.float16] | npt.NDArray[np.float32]
Kind = type[np.float16] | type[np.float32]

DIGEST_BYTES = 16


class Encoder(Protocol):
    """What computes states.

    Attributes:
        space: digest of everything besides the tokens that decides them.
        states: number of states a token: the embeddings' and one per layer.
        width: of a state.
        kind: of its numbers; the cache sets it.
    """

    space: str
    states: int
    width: int
    kind: Kind

    def encode(self, texts: Sequence[Tokens]) -> Values:
        """States `[batch, tokens, states, width]`, infinite where their kind is too small.

        Those of padding may be anything.
        """
        ...


class TorchEncoder:
    """A backbone in torch."""

    kind: Kind = np.float16

    def __init__(self, backbone: Backbone) -> None:
        self._encoder = backbone.encoder
        self._precision = _precision()
        self.states = backbone.depth + 1
        self.width = backbone.width
        options = backbone.encoder.config.to_dict()
        for name in ("transformers_version", "_name_or_path"):  # of no consequence for the states
            options.pop(name, None)
        options_text = json.dumps(options, sort_keys=True, default=str)
        self.space = digest(backbone.info.sha256, options_text, str(self._precision))

    @torch.inference_mode()
    def encode(self, texts: Sequence[Tokens]) -> Values:
        input_ids, mask = (torch.from_numpy(array).to(device()) for array in pad(texts))
        encoder = self._encoder.to(device())  # type: ignore[arg-type]
        precise = self._precision == torch.float32
        with torch.autocast(device().type, self._precision, enabled=not precise):
            states = states_of(encoder, input_ids, mask)
        to = torch.float16 if self.kind is np.float16 else torch.float32
        result: Values = torch.stack([s.to(to) for s in states], 2).cpu().numpy()
        return result


def digest(*parts: str) -> str:
    """A name for a space; `finite`, as earlier releases kept infinities under other names."""
    text = "\0".join(("finite", *parts))
    return hashlib.blake2b(text.encode(), digest_size=DIGEST_BYTES).hexdigest()


def _precision() -> torch.dtype:
    """bfloat16 where the hardware multiplies it; emulation would be slower than float32."""
    if device().type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    fast = torch.cpu.get_capabilities().get("avx512_bf16", False)
    return torch.bfloat16 if fast else torch.float32
