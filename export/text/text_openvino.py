"""A tokenizer as a graph of OpenVINO's, by openvino-tokenizers' own converter.

The converter's normalizer differs from `tokenizers` where Unicode versions do (polytonic Greek,
Bopomofo, private use) and its limit of a word's length counts bytes, so it is given a tokenizer
whose normalizer is a table of characters (`mtl_edge.export.text.text_table`).
"""

from __future__ import annotations

import base64
import json
from typing import Any

import openvino as ov
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from mtl_edge.export.text.charsmap import charsmap
from mtl_edge.export.text.text_table import UNKNOWN, WordPiece, class_of, treated

__all__ = ["tokenizer_model"]

MOST_BYTES = 1 << 20  # of a word


def tokenizer_model(tokenizer: Tokenizer, parts: WordPiece, max_tokens: int, text: str) -> ov.Model:
    """Strings `[batch]` to `input_ids` and `attention_mask`.

    Args:
        parts: of the tokenizer.
        text: name of the input.
    """
    import openvino_tokenizers

    padding = next((token for token, n in parts.special.items() if n == 0), parts.unknown)
    wrap: Any = PreTrainedTokenizerFast  # it has no types
    wrapped = wrap(tokenizer_object=_in_table_form(tokenizer, parts), pad_token=padding)
    model = openvino_tokenizers.convert_tokenizer(wrapped, truncation=True, max_length=max_tokens)
    for n, node in enumerate(model.get_ordered_ops()):
        # Its own name counts the nodes that this process has made so far.
        node.set_friendly_name(f"{node.get_type_name()}_{n}")
        if node.get_type_name() == "WordpieceTokenizer":
            # It counts bytes, not characters; words that are too long do not come so far.
            node.set_attribute("max_bytes_per_word", MOST_BYTES)
    model.inputs[0].set_names({text})
    return model


def _in_table_form(tokenizer: Tokenizer, parts: WordPiece) -> Tokenizer:
    """The tokenizer with replacements of characters for its normalizer: made to be converted."""
    form = json.loads(tokenizer.to_str())
    # Keys of a map have no zero byte.
    table = {key: words for key, words in parts.replaced.items() if key != "\0"}
    patterns = [("\\x00", parts.replaced.get("\0", "\0"))]
    patterns += [(class_of(runs), by) for runs, by in treated(parts, " $0 ")]
    replacements = [_replace(pattern, by) for pattern, by in patterns if by != "\0"]
    replacements += [
        {
            "type": "Precompiled",
            "precompiled_charsmap": base64.b64encode(charsmap(table)).decode(),
        },
        _replace(f"[^ ]{{{parts.longest + 1},}}", UNKNOWN),
    ]
    form["normalizer"] = {"type": "Sequence", "normalizers": replacements}
    form["pre_tokenizer"] = {
        "type": "Split",
        "pattern": {"Regex": " +"},
        "behavior": "Removed",
        "invert": False,
    }
    form["truncation"] = None
    return Tokenizer.from_str(json.dumps(form))


def _replace(pattern: str, by: str) -> dict[str, Any]:
    return {"type": "Replace", "pattern": {"Regex": pattern}, "content": by}
