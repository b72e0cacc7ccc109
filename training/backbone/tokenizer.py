"""A backbone's tokenizer: read, and compared with the encoder that it is for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from torch import nn
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerFast

from mtl_edge.errors import BackboneError, BundleError, one_line
from mtl_edge.tokens.tokenizer_file import encoded
from mtl_edge.training.backbone.reading import read_json

__all__ = ["padding_of", "read_tokenizer", "require_tokenizer"]

RARE = "\ua66e"  # a letter that few vocabularies have


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
            f"{folder} has no tokenizer that transformers can load: {one_line(error)}"
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
    content = read_json(file) if file.is_file() else {}
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
