"""What a backbone's folder claims, compared with itself before anything runs.

Configuration, weights and tokenizer are files that anyone may exchange or change one by one. What
does not fit together would show as a crash in the middle of a run, or as answers of random numbers.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from optimum.utils import NormalizedConfigManager
from tokenizers import Tokenizer
from torch import nn
from transformers import AutoTokenizer, PretrainedConfig, PreTrainedModel, PreTrainedTokenizerFast
from transformers.models.auto import modeling_auto as auto

from mtl_edge.errors import BackboneError, BundleError
from mtl_edge.io.folders import sha256_of
from mtl_edge.tokens.tokenizer_file import encoded

__all__ = [
    "WEIGHTS",
    "checksum_of",
    "read_tokenizer",
    "require_encoder",
    "require_supported",
    "require_tokenizer",
    "require_weights",
    "said",
    "weights_of",
]

WEIGHTS = "model.safetensors"
INDEX = f"{WEIGHTS}.index.json"

# Architectures by what transformers has them do. Encoders fill in masked words, or at least point
# at answers; what also continues texts or translates has a decoder, unless it is told to have none.
_CAUSAL = set(auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
_MASKED = set(auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES)
_SEQ2SEQ = set(auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES)
_ANSWERS = set(auto.MODEL_FOR_QUESTION_ANSWERING_MAPPING_NAMES)
_SENSES = {*auto.MODEL_FOR_IMAGE_MAPPING_NAMES, *auto.MODEL_FOR_AUDIO_CLASSIFICATION_MAPPING_NAMES}
_DECODERS = _CAUSAL - _MASKED
_ENCODERS = ((_MASKED | _ANSWERS) - _DECODERS - _SEQ2SEQ) & set(NormalizedConfigManager._conf)

# By what a configuration may have that is not supported: why, and what to do.
_UNSUPPORTED: Mapping[str, str] = {
    "auto_map": "comes with code of its own (auto_map), which is never run; take a model whose "
    "architecture transformers has itself",
    "quantization_config": "has quantized weights (quantization_config); take the weights from "
    "before, in float32, float16 or bfloat16: export quantizes",
}

# Of no consequence: constants that earlier versions of transformers saved with the weights.
_CONSTANTS = ("position_ids", "token_type_ids", "inv_freq")
RARE = "\ua66e"  # a letter that few vocabularies have


def said(error: BaseException) -> str:
    """A library's error in one line."""
    return " ".join(str(error).split())[:300] or type(error).__name__


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
        raise BackboneError(f"{folder} has no config.json; {_elsewhere(folder)}")
    for file in (folder / "config.json", folder / "tokenizer_config.json"):
        claimed = _json(file) if file.is_file() else {}
        for key, why in _UNSUPPORTED.items():
            if claimed.get(key):
                raise BackboneError(f"backbone {name!r} {why}")


def _json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_bytes())
    except ValueError as error:
        raise BackboneError(f"{file} is not JSON ({error}); fetch the backbone again") from None
    if not isinstance(content, dict):
        raise BackboneError(f"{file} is not a JSON object; fetch the backbone again")
    return content


def _elsewhere(folder: Path) -> str:
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
    elif kind in _SENSES:
        why = ": it reads images or sounds"
    else:
        why = ""
    raise BackboneError(
        f"backbone {name!r} is of the architecture {kind!r}, which is not supported{why}; "
        "expected an encoder such as bert, distilbert, roberta or electra"
    )


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
        raise BackboneError(f"{index} is no index of weights ({said(error)})") from None
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


def read_tokenizer(folder: Path, **options: Any) -> PreTrainedTokenizerFast:
    """The folder's tokenizer, as training, export and a bundle have it.

    Raises:
        BackboneError: there is none that is fast.
    """
    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(
            str(folder), trust_remote_code=False, **options
        )
        if not tokenizer.is_fast:
            raise BackboneError(
                f"{folder} has no fast tokenizer (tokenizer.json); convert it first"
            )
        # Without any file, there is a tokenizer all the same, of a handful of special tokens.
        files = {"tokenizer.json", *tokenizer.vocab_files_names.values()}
        if not any((folder / file).is_file() for file in files):
            raise BackboneError(
                f"{folder} has no tokenizer: expected {' or '.join(sorted(files))}; "
                "save it there with `AutoTokenizer.from_pretrained(...).save_pretrained(FOLDER)`"
            )
    except BackboneError:
        raise
    except Exception as error:  # transformers and tokenizers each have their own
        raise BackboneError(
            f"{folder} has no tokenizer that transformers can load: {said(error)}"
        ) from None
    fast: PreTrainedTokenizerFast = tokenizer
    return fast


def require_tokenizer(
    name: str, folder: Path, encoder: PreTrainedModel, rows: int
) -> PreTrainedTokenizerFast:
    """The folder's tokenizer, if it is one for this encoder.

    Args:
        rows: of the encoder's table of words.

    Raises:
        BackboneError: there is none, or its tokens are not those that the encoder knows.
    """
    tokenizer = read_tokenizer(folder)
    backend = tokenizer.backend_tokenizer
    _require_kind(name, folder, backend)
    if tokenizer.truncation_side != "right":
        raise BackboneError(
            f"backbone {name!r} has a tokenizer that cuts long texts at their beginning "
            f"(truncation_side is {tokenizer.truncation_side!r}); here they are cut at their end: "
            "set `tokenizer.truncation_side = 'right'` and save it again"
        )
    backend.no_padding()
    backend.no_truncation()
    try:
        around, word = encoded(backend, ["", f"a {RARE}"])
    except BundleError as error:
        why = str(error).partition("; the bundle")[0]
        raise BackboneError(f"backbone {name!r}: {why}; give it an unknown token") from None
    known = {**backend.get_vocab(), **dict(zip(around.tokens, around.ids, strict=True))}
    if beyond := sorted((n, token) for token, n in known.items() if n >= rows):
        number, token = beyond[0]
        more = f" and {len(beyond) - 1:,} more" if len(beyond) > 1 else ""
        raise BackboneError(
            f"backbone {name!r} has {rows:,} rows in its table of words, and its tokenizer knows a "
            f"token beyond them: {token!r} (id {number}){more}; if tokens were added, call "
            "`model.resize_token_embeddings(len(tokenizer))` and save the model again, otherwise "
            "take the tokenizer that belongs to it"
        )
    if (getattr(encoder.config, "type_vocab_size", 0) or 0) > 1 and any(word.type_ids):
        raise BackboneError(
            f"backbone {name!r} has a tokenizer that gives the tokens of one text types other than "
            "0, which the encoder is not told here; set type_id to 0 in its post_processor"
        )
    padding = padding_of(encoder)
    if padding is not None and _read(padding, tokenizer):
        raise BackboneError(
            f"backbone {name!r} has {padding} for the padding's id (pad_token_id in config.json), "
            f"which is {backend.id_to_token(padding)!r} in its tokenizer; positions would be "
            "counted wrongly: give the configuration the tokenizer's"
        )
    return tokenizer


def _read(token: int, tokenizer: PreTrainedTokenizerFast) -> bool:
    """Whether a text may hold the token, other than as the tokenizer's padding."""
    backend = tokenizer.backend_tokenizer
    alone = backend.decode([token], skip_special_tokens=False)
    return token != tokenizer.pad_token_id and token in backend.encode(alone).ids


def _require_kind(name: str, folder: Path, backend: Tokenizer) -> None:
    """Compare tokenizer.json with the tokenizer that transformers makes of the folder."""
    file = folder / "tokenizer.json"
    made = type(backend.model).__name__
    # Files of early versions of the library do not say.
    content = _json(file) if file.is_file() else {}
    claimed = (content.get("model") or {}).get("type", made)
    if claimed != made:
        raise BackboneError(
            f"backbone {name!r} has a tokenizer.json of the kind {claimed}, and its configuration "
            f"(tokenizer_class) makes one of the kind {made}; save the tokenizer again with its "
            "own class"
        )


def padding_of(encoder: PreTrainedModel) -> int | None:
    """The id whose tokens have no position: RoBERTa and its kin count positions from behind it."""
    table = getattr(getattr(encoder, "embeddings", None), "position_embeddings", None)
    return table.padding_idx if isinstance(table, nn.Embedding) else None
