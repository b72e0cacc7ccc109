"""A backbone from a name: found, compared with itself, and loaded."""

from __future__ import annotations

from pathlib import Path

import torch
from optimum.utils import NormalizedConfigManager
from transformers import AutoConfig, AutoModel, PretrainedConfig, PreTrainedModel

from mtl_edge import bundle
from mtl_edge.errors import BackboneError, one_line
from mtl_edge.training.backbone.backbone import Backbone
from mtl_edge.training.backbone.configuration import require_encoder, require_supported
from mtl_edge.training.backbone.find import PACKAGED, find_backbone
from mtl_edge.training.backbone.reading import quiet
from mtl_edge.training.backbone.tokenizer import padding_of, require_tokenizer
from mtl_edge.training.backbone.weights import (
    WEIGHTS,
    checksum_of,
    require_weights,
    weights_of,
)
from mtl_edge.training.static import StaticEncoder, load_static

__all__ = ["load_backbone"]


def load_backbone(name: str) -> Backbone:
    """Load an encoder from the Hub, a local folder or a package.

    Raises:
        BackboneError: unknown or unreachable, weights altered, without safetensors weights, an
            architecture that is no encoder or has no fast tokenizer, or files that do not belong
            together.
        MissingPackageError: the package of a packaged backbone is not installed.
    """
    folder, revision = find_backbone(name)
    config = _config(name, folder)
    weights = weights_of(name, folder)
    checksum = checksum_of(weights)
    if name in PACKAGED and checksum != PACKAGED[name].sha256:
        raise BackboneError(
            f"{weights[0]} has sha256 {checksum}, expected {PACKAGED[name].sha256}; "
            f"reinstall the package {PACKAGED[name].package}"
        )
    encoder = _load(name, folder, config)
    sizes = NormalizedConfigManager.get_normalized_config_class(config.model_type)(encoder.config)
    info = bundle.BackboneInfo(
        name=name,
        architecture=config.model_type,
        revision=revision,
        sha256=checksum,
        hidden_size=sizes.hidden_size,
        layers=sizes.num_layers,
        vocabulary=sizes.vocab_size,
    )
    tokenizer = require_tokenizer(name, folder, encoder, info.vocabulary)
    longest = min(_positions(encoder), tokenizer.model_max_length)
    return Backbone(encoder, folder, info, sizes.num_attention_heads, longest)


def _config(name: str, folder: Path) -> PretrainedConfig:
    """The configuration of an encoder that can be loaded here."""
    require_supported(name, folder)
    try:
        config: PretrainedConfig = AutoConfig.from_pretrained(str(folder), trust_remote_code=False)
    except Exception as error:  # transformers checks each architecture's in its own way
        raise BackboneError(f"backbone {name!r}: {one_line(error)}") from None
    require_encoder(name, config)
    return config


def _load(name: str, folder: Path, config: PretrainedConfig) -> PreTrainedModel:
    try:
        if (config.architectures or [""])[0] == StaticEncoder.__name__:
            return load_static(config, folder / WEIGHTS)
        with quiet():
            encoder, loading = AutoModel.from_pretrained(
                str(folder),
                attn_implementation="eager",
                use_safetensors=True,
                ignore_mismatched_sizes=True,  # so that they can be named
                dtype=torch.float32,
                output_loading_info=True,
                trust_remote_code=False,
            )
    except Exception as error:  # safetensors, transformers and torch each have their own
        raise BackboneError(f"backbone {name!r} cannot be loaded: {one_line(error)}") from None
    require_weights(name, encoder, loading)
    frozen: PreTrainedModel = encoder.eval().requires_grad_(False)
    return frozen


def _positions(encoder: PreTrainedModel) -> int:
    """The most tokens that it has positions for."""
    positions: int = getattr(encoder.config, "max_position_embeddings", 512)
    padding = padding_of(encoder)
    return positions if padding is None else positions - (padding + 1)
