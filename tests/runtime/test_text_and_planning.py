"""Tokens and batches."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from transformers import AutoTokenizer

from mtl_edge.batches.planning import pad, plan
from mtl_edge.errors import BundleError
from mtl_edge.io.in_memory import valid_texts
from mtl_edge.tokens.encoder import TextEncoder


def test_tokens_are_those_of_transformers(tiny_backbone: Path) -> None:
    texts = ["It's a test.", "Ünïcode — and 中文!", "", "x" * 500, "a " * 300]
    reference = AutoTokenizer.from_pretrained(str(tiny_backbone))
    expected = reference(texts, truncation=True, max_length=64)["input_ids"]
    encoder = TextEncoder.from_file(tiny_backbone / "tokenizer.json", 64)
    assert encoder(texts) == expected
    assert encoder.ids_and_truncated(texts) == (expected, 1)


def test_surrogate_pairs_are_joined_and_lone_ones_replaced() -> None:
    assert valid_texts(["\ud83d\ude00", "\udc00x", "fine"]) == ["😀", "�x", "fine"]


def test_a_malformed_tokenizer_is_refused(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text('{"version": "1.0"}')
    with pytest.raises(BundleError, match="not a tokenizer"):
        TextEncoder.from_file(tmp_path / "tokenizer.json", 8)


def test_every_text_is_in_one_batch_within_the_budget() -> None:
    lengths = [3, 128, 7, 7, 64, 1, 500, 12] * 20
    batches = list(plan(lengths, 256))
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    for batch in batches:
        padded = len(batch) * max(lengths[i] for i in batch)
        assert padded <= 256 or len(batch) == 1
    assert [max(lengths[i] for i in b) for b in batches] == sorted(
        (max(lengths[i] for i in b) for b in batches), reverse=True
    )


def test_where_shapes_are_dear_batches_in_a_row_have_one() -> None:
    lengths = [*range(1, 33)] * 16
    batches = list(plan(lengths, 256, multiple=16))
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    shapes = [(len(b), max(-(-lengths[i] // 16) * 16 for i in b)) for b in batches]
    assert shapes == [(8, 32)] * 32 + [(16, 16)] * 16
    assert all(count * tokens <= 256 for count, tokens in shapes)


def test_few_texts_of_different_lengths_share_a_batch_all_the_same() -> None:
    assert list(plan([5, 20, 40], 256, multiple=16)) == [[2, 1, 0]]


def test_no_texts_make_no_batches() -> None:
    assert list(plan([])) == []


def test_padding_is_masked() -> None:
    ids, mask = pad([[5, 6, 7], [8]])
    np.testing.assert_array_equal(ids, [[5, 6, 7], [8, 0, 0]])
    np.testing.assert_array_equal(mask, [[1, 1, 1], [1, 0, 0]])
