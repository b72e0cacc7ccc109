"""Backbone and heads as one module: what export captures and what fp32 figures are taken from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from mtl_edge.batches.planning import Tokens, in_batches
from mtl_edge.bundle import DOMAIN
from mtl_edge.errors import BackboneError
from mtl_edge.training.domain.gate import DomainGate
from mtl_edge.training.heads import Head, LayerMix, MixingHead

__all__ = ["MultiTaskModel", "layers_of", "logits_of", "means_of", "states_of"]


class MultiTaskModel(nn.Module):
    """One pass of the encoder, every task's logits."""

    def __init__(
        self,
        encoder: PreTrainedModel,
        heads: Mapping[str, Head],
        gate: DomainGate | None = None,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        # A list, not a ModuleDict: a task may have any name, and a submodule may not.
        self.heads = nn.ModuleList(heads.values())
        self.tasks = tuple(heads)
        self.gate = gate
        self.outputs = self.tasks if gate is None else (*self.tasks, DOMAIN)
        self.layer_mix = LayerMix()

    def states(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, ...]:
        """One `[batch, tokens, width]` for the embeddings and each layer."""
        return states_of(self.encoder, input_ids, attention_mask)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, ...]:
        """Logits `[batch, labels]` in the order of `outputs`, for inputs `[batch, tokens]`."""
        states = self.states(input_ids, attention_mask)
        mixing = [head for head in self.heads if isinstance(head, MixingHead)]
        tokens = iter(self.layer_mix([head.mix for head in mixing], states) if mixing else ())
        logits = tuple(
            head(states, attention_mask, input_ids, next(tokens))
            if isinstance(head, MixingHead)
            else head(states, attention_mask, input_ids)
            for head in self.heads
        )
        return self.with_domain(logits, states, attention_mask)

    def with_domain(
        self, logits: tuple[Tensor, ...], states: Sequence[Tensor], mask: Tensor
    ) -> tuple[Tensor, ...]:
        """The tasks' logits and, if there is a gate, those of their domains."""
        return logits if self.gate is None else (*logits, self.gate(states, mask, logits))


def states_of(
    encoder: PreTrainedModel, input_ids: Tensor, attention_mask: Tensor
) -> tuple[Tensor, ...]:
    """One `[batch, tokens, width]` for the embeddings and each layer."""
    output = encoder(input_ids=input_ids, attention_mask=attention_mask, output_hidden_states=True)
    # Without any layer, the embeddings are the last state and there is none before it.
    states: tuple[Tensor, ...] = output.hidden_states or (output.last_hidden_state,)
    return states


def layers_of(encoder: PreTrainedModel) -> nn.ModuleList:
    """The encoder's transformer layers.

    Raises:
        BackboneError: it keeps them in a way that is not known here.
    """
    count: int = encoder.config.num_hidden_layers
    for module in encoder.modules():
        if isinstance(module, nn.ModuleList) and len(module) == count:
            return module
    raise BackboneError(f"{type(encoder).__name__} has no list of {count} layers; use all layers")


@torch.inference_mode()
def logits_of(model: MultiTaskModel, ids: Sequence[Tokens]) -> dict[str, npt.NDArray[np.float32]]:
    """Logits `[n, labels]` per task, for texts given as token ids."""
    model.eval()
    place = next(model.parameters()).device

    def run(
        input_ids: npt.NDArray[np.int64], mask: npt.NDArray[np.int64]
    ) -> dict[str, npt.NDArray[np.float32]]:
        outputs = model(torch.from_numpy(input_ids).to(place), torch.from_numpy(mask).to(place))
        return {t: out.cpu().numpy() for t, out in zip(model.outputs, outputs, strict=True)}

    return in_batches(run, ids)


@torch.inference_mode()
def means_of(encoder: PreTrainedModel, ids: Sequence[Tokens]) -> npt.NDArray[np.float32]:
    """The last layer's mean over tokens, `[n, width]`, for texts given as token ids."""
    place = next(encoder.parameters()).device

    def run(
        input_ids: npt.NDArray[np.int64], mask: npt.NDArray[np.int64]
    ) -> dict[str, npt.NDArray[np.float32]]:
        real = torch.from_numpy(mask).to(place)
        last = states_of(encoder, torch.from_numpy(input_ids).to(place), real)[-1]
        sums = (last * real.unsqueeze(-1)).sum(1)
        return {"means": (sums / real.sum(1, keepdim=True)).cpu().numpy()}

    return in_batches(run, ids)["means"]
