"""Whether a folder is a model at all, and its architecture an encoder that is known here."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from optimum.utils import NormalizedConfigManager
from transformers import PretrainedConfig
from transformers.models.auto import modeling_auto as auto

from mtl_edge.errors import BackboneError
from mtl_edge.training.backbone.reading import read_json

__all__ = ["require_encoder", "require_supported"]

# Architectures by what transformers has them do. Encoders fill in masked words, or at least point
# at answers; what also continues texts or translates has a decoder, unless it is told to have none.
_CAUSAL = set(auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
_MASKED = set(auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES)
_SEQ2SEQ = set(auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES)
_ANSWERS = set(auto.MODEL_FOR_QUESTION_ANSWERING_MAPPING_NAMES)
_IMAGES_AND_SOUNDS = {
    *auto.MODEL_FOR_IMAGE_MAPPING_NAMES,
    *auto.MODEL_FOR_AUDIO_CLASSIFICATION_MAPPING_NAMES,
}
_DECODERS = _CAUSAL - _MASKED
_ENCODERS = ((_MASKED | _ANSWERS) - _DECODERS - _SEQ2SEQ) & set(NormalizedConfigManager._conf)

# By what a configuration may have that is not supported: why, and what to do.
_UNSUPPORTED: Mapping[str, str] = {
    "auto_map": "comes with code of its own (auto_map), which is never run; take a model whose "
    "architecture transformers has itself",
    "quantization_config": "has quantized weights (quantization_config); take the weights from "
    "before, in float32, float16 or bfloat16: export quantizes",
}


def require_supported(name: str, folder: Path) -> None:
    """
    Raises:
        BackboneError: it is no folder of a model, or its configuration asks for what is never done.
    """
    if (folder / "adapter_config.json").is_file():
        raise BackboneError(
            f"backbone {name!r} is an adapter (adapter_config.json), not a whole model; merge it "
            "into its model with peft's `merge_and_unload()`, then `save_pretrained(FOLDER)`"
        )
    if not (folder / "config.json").is_file():
        raise BackboneError(f"{folder} has no config.json; {_inner_folder(folder)}")
    for file in (folder / "config.json", folder / "tokenizer_config.json"):
        claimed = read_json(file) if file.is_file() else {}
        for key, why in _UNSUPPORTED.items():
            if claimed.get(key):
                raise BackboneError(f"backbone {name!r} {why}")


def _inner_folder(folder: Path) -> str:
    """Where the encoder of a folder of sentence-transformers is, if it is one."""
    try:
        parts = [part["path"] for part in json.loads((folder / "modules.json").read_bytes())]
    except (OSError, ValueError, TypeError, KeyError):
        return "expected a transformers model folder"
    inner = str(parts[0]) if parts else ""
    return (
        f"sentence-transformers keeps its encoder in {inner!r} there: get that folder, too, and "
        f"pass --backbone {folder / inner}"
    )


def require_encoder(name: str, config: PretrainedConfig) -> None:
    """
    Raises:
        BackboneError: its architecture is no encoder of texts, or not one that is known here.
    """
    kind = config.model_type
    if getattr(config, "is_encoder_decoder", False) or kind in _SEQ2SEQ:
        why = ": an encoder with a decoder"
    elif getattr(config, "is_decoder", False) or kind in _DECODERS:
        why = ": a decoder, whose states of a token know nothing of what follows it"
    elif kind in _ENCODERS:
        return
    elif kind in _IMAGES_AND_SOUNDS:
        why = ": it reads images or sounds"
    else:
        why = ""
    raise BackboneError(
        f"backbone {name!r} is of the architecture {kind!r}, which is not supported{why}; "
        "expected an encoder such as bert, distilbert, roberta or electra"
    )
