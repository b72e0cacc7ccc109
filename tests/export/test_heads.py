"""Heads that are joined at export answer as they do one by one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mtl_edge.export.heads import FusedHeads, fused
from mtl_edge.training.checkpoint import Checkpoint, load_checkpoint
from mtl_edge.training.heads import HeadConfig, build_head

STATES, WIDTH = 3, 64


def drawn(kind: str, labels: int, seed: int, **options: int) -> torch.nn.Module:
    torch.manual_seed(seed)
    head = build_head(HeadConfig(STATES, WIDTH, labels, kind=kind, **options))  # type: ignore[arg-type]
    for parameter in head.parameters():  # nothing is zero, as fresh biases and tables are
        torch.nn.init.normal_(parameter, std=0.1)
    head.finish()
    return head.eval()


@pytest.fixture
def many(checkpoint: Path) -> Checkpoint:
    """Heads of every kind, those that can be joined among others that cannot."""
    start = load_checkpoint(checkpoint)
    heads = {
        "a": drawn("attention", 2, 0),
        "b": drawn("linear", 3, 1),
        "c": drawn("attention", 5, 2),
        "d": drawn("convolution", 2, 3),
        "e": drawn("attention", 2, 4, queries=2),
        "f": drawn("attention", 4, 5, buckets=0),
    }
    return replace(start, heads=heads)


def test_joined_heads_equal_single_ones(many: Checkpoint) -> None:
    model = many.model()
    joined = fused(model)
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(1000, 30000, (5, 17), generator=generator)
    mask = torch.ones_like(ids)
    mask[1, 3:] = 0
    mask[4, 1:] = 0
    with torch.inference_mode():
        expected, got = model(ids, mask), joined(ids, mask)
    assert [g.shape for g in got] == [(5, 2), (5, 3), (5, 5), (5, 2), (5, 2), (5, 4)]
    for one, other in zip(expected, got, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


def test_only_heads_of_one_shape_are_joined(many: Checkpoint) -> None:
    joined = fused(many.model())
    groups = [m for m in joined.modules() if isinstance(m, FusedHeads)]
    assert [len(g.outputs) for g in groups] == [2, 1, 1]


def test_a_table_that_was_rounded_loses_nothing_when_packed() -> None:
    head = drawn("attention", 3, 7)
    table = head.ngrams
    codes, scale = table.packed()  # type: ignore[union-attr, operator]
    assert codes.dtype == torch.int8
    torch.testing.assert_close(codes.float() * scale, table.weight.detach(), rtol=1e-6, atol=1e-9)  # type: ignore[union-attr, operator]
