"""A backbone's weights: their files, their checksum, and whether they fit the configuration."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from mtl_edge.errors import BackboneError, one_line
from mtl_edge.io.folders import sha256_of

__all__ = ["WEIGHTS", "checksum_of", "require_weights", "weights_of"]

WEIGHTS = "model.safetensors"
INDEX = f"{WEIGHTS}.index.json"

# Of no consequence: constants that earlier versions of transformers saved with the weights.
_CONSTANTS = ("position_ids", "token_type_ids", "inv_freq")


def weights_of(name: str, folder: Path) -> list[Path]:
    """The files of its weights: one, or the shards that an index names.

    Raises:
        BackboneError: there are none in safetensors, or a shard is missing.
    """
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    index = folder / INDEX
    if not index.is_file():
        raise BackboneError(
            f"backbone {name!r} has no {WEIGHTS} in {folder}; pickled weights are never loaded: "
            "convert them with `AutoModel.from_pretrained(...).save_pretrained(FOLDER)`"
        )
    try:
        shards = sorted(set(json.loads(index.read_bytes())["weight_map"].values()))
        wrong = [s for s in shards if Path(s).name != s or not s.endswith(".safetensors")]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BackboneError(f"{index} is no index of weights ({one_line(error)})") from None
    if wrong or not shards:
        raise BackboneError(f"{index} names {wrong or 'nothing'}, expected files beside it")
    if missing := [shard for shard in shards if not (folder / shard).is_file()]:
        raise BackboneError(
            f"{folder} lacks {missing[0]}, one of {len(shards)} files of weights that {INDEX} "
            "names; fetch the backbone again"
        )
    return [folder / shard for shard in shards]


def checksum_of(weights: Sequence[Path]) -> str:
    """sha256 of a file, or of the names and digests of several."""
    if len(weights) == 1:
        return sha256_of(weights[0])
    lines = "".join(f"{sha256_of(file)}  {file.name}\n" for file in weights)
    return hashlib.sha256(lines.encode()).hexdigest()


def require_weights(name: str, encoder: PreTrainedModel, loading: Mapping[str, Any]) -> None:
    """
    Args:
        loading: what `from_pretrained` says of how configuration and weights fit.

    Raises:
        BackboneError: weights are missing, of another size, of no use in this encoder, or no
            numbers.
    """
    # A pooler is not used here; anything else that is missing would be random numbers.
    if missing := sorted(k for k in loading["missing_keys"] if "pooler" not in k):
        raise BackboneError(
            f"backbone {name!r} lacks weights: {missing[0]} and {len(missing) - 1} more; "
            "its configuration and its weights do not belong together"
        )
    for key, came, expected in sorted(loading["mismatched_keys"]):
        raise BackboneError(
            f"backbone {name!r} has weights of another size than its configuration says: {key} is "
            f"{tuple(came)}, expected {tuple(expected)}; they do not belong together"
        )
    # Heads of other tasks are left behind; parts of the encoder are not.
    own = {part for part, _ in encoder.named_children() if "pooler" not in part}
    prefix = f"{encoder.base_model_prefix}."
    unused = sorted(
        key
        for key in loading["unexpected_keys"]
        if key.removeprefix(prefix).partition(".")[0] in own and not key.endswith(_CONSTANTS)
    )
    if unused:
        raise BackboneError(
            f"backbone {name!r} has weights that its configuration has no place for: {unused[0]} "
            f"and {len(unused) - 1} more; its configuration and its weights do not belong together"
        )
    for key, value in encoder.named_parameters():
        if not torch.isfinite(value).all():
            raise BackboneError(
                f"backbone {name!r} has weights that are no numbers (NaN or infinite): {key}; "
                "fetch or train it again"
            )
