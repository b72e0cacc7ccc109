"""A torch model as two plain fp32 ONNX graphs: the encoder, and the heads on its states.

They age differently: the encoder is frozen, and heads are taught again. Apart, each can be
quantized, replaced and compared by itself; `onnx_graph.join` makes one graph of them.

    encoder   input_ids, attention_mask                              -> state.0, state.1, ...
    heads     state.0, state.1, ..., attention_mask, input_ids       -> one output per task,
                                                                     and `domain`

`state.0` is the embeddings', or of no layers a table's (`mtl_edge.training.static`), `state.N` that
of layer N, all float32 `[batch, tokens, width]`.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import torch
from optimum.utils import DummyTextInputGenerator, NormalizedConfigManager
from torch import Tensor, nn

from mtl_edge.errors import ExportError
from mtl_edge.export.graphs.heads import JoinedHeads
from mtl_edge.training.checkpoint import Checkpoint
from mtl_edge.training.heads import Head
from mtl_edge.training.model import MultiTaskModel

__all__ = ["INPUTS", "capture_encoder", "capture_heads", "state_names"]

INPUTS = ("input_ids", "attention_mask")
OPSET = 17
MOST_BYTES = 2 * 10**9


def state_names(depth: int) -> list[str]:
    """Names of the encoder's outputs, the embeddings' first."""
    return [f"state.{layer}" for layer in range(depth + 1)]


def capture_encoder(checkpoint: Checkpoint, file: Path) -> None:
    """Write the encoder as an ONNX graph, batch and length dynamic.

    The TorchScript exporter and eager attention give the form that ONNX Runtime's optimizer fuses
    and that OpenVINO runs fastest; the newer exporter's graphs keep Q, K and V apart.

    Raises:
        ExportError: it is too large for a graph in one file.
    """
    size = sum(4 * p.numel() for p in checkpoint.backbone.encoder.parameters())
    if size > MOST_BYTES:
        raise ExportError(
            f"the encoder takes {size / 1e9:.1f} GB in float32, and a graph to quantize from may "
            f"take {MOST_BYTES / 1e9:.1f} GB (protobuf's limit); use fewer layers with --depth, or "
            "a smaller backbone"
        )
    ids, mask = _example(checkpoint)
    names = state_names(checkpoint.depth)
    _export(_Encoder(checkpoint.model()), (ids, mask), file, list(INPUTS), names, per_token=names)


def capture_heads(checkpoint: Checkpoint, file: Path, joined: bool = True) -> None:
    """Write all heads as one ONNX graph, batch and length dynamic.

    Args:
        joined: whether those of one kind share operators; else they follow one another.
    """
    ids, mask = _example(checkpoint)
    whole = checkpoint.model()
    with torch.inference_mode():
        states = whole.states(ids, mask)
    names = state_names(checkpoint.depth)
    inputs = [*names, "attention_mask", "input_ids"]
    # Unfolded: weights of a byte a number stay so on disk.
    _export(
        _Heads(whole, joined), (*states, mask, ids), file, inputs, list(whole.outputs), fold=False
    )


class _Encoder(nn.Module):
    def __init__(self, model: MultiTaskModel) -> None:
        super().__init__()
        self.encoder = model.encoder
        self._states = model.states

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, ...]:
        return self._states(input_ids, attention_mask)


class _Heads(nn.Module):
    def __init__(self, model: MultiTaskModel, joined: bool) -> None:
        super().__init__()
        heads: list[Head] = list(model.heads)  # type: ignore[arg-type]
        groups = [heads] if joined else [[head] for head in heads]
        self.gate, self._with_domain = model.gate, model.with_domain
        self.heads = nn.ModuleList(JoinedHeads(group) for group in groups)

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        *states, mask, ids = inputs
        logits = tuple(one for heads in self.heads for one in heads(states, mask, ids))
        return self._with_domain(logits, states, mask)


def _example(checkpoint: Checkpoint) -> tuple[Tensor, Tensor]:
    """Two texts, one of them padded, so that no mask is folded away as all ones."""
    config = checkpoint.backbone.encoder.config
    sizes = NormalizedConfigManager.get_normalized_config_class(config.model_type)(config)
    generator = DummyTextInputGenerator(
        "feature-extraction", sizes, batch_size=2, sequence_length=min(16, checkpoint.max_tokens)
    )
    ids = generator.generate("input_ids", framework="pt")
    mask = torch.ones_like(ids)
    mask[1, mask.shape[1] // 2 :] = 0
    return ids, mask


def _export(
    module: nn.Module,
    example: Sequence[Tensor],
    file: Path,
    inputs: Sequence[str],
    outputs: Sequence[str],
    per_token: Sequence[str] = (),
    fold: bool = True,
) -> None:
    axes = {name: {0: "batch", 1: "tokens"} for name in (*inputs, *per_token)}
    axes |= {name: {0: "batch"} for name in outputs if name not in per_token}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about the exporter's age and constants of the trace
        torch.onnx.export(
            module.eval(),
            tuple(example),
            str(file),
            input_names=list(inputs),
            output_names=list(outputs),
            dynamic_axes=axes,
            opset_version=OPSET,
            do_constant_folding=fold,
            dynamo=False,
        )
