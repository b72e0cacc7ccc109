"""Heads that are joined at export answer as they do one by one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mtl_edge.export.graphs.heads import JoinedHeads, SharedHeads
from mtl_edge.training.checkpoint import Checkpoint, load_checkpoint
from mtl_edge.training.heads import HeadConfig, build_head, head_config, packed

STATES, WIDTH = 3, 64


def drawn(kind: str, labels: int, seed: int, **options: int) -> torch.nn.Module:
    return drawn_from(HeadConfig(STATES, WIDTH, labels, kind=kind, **options), seed)  # type: ignore[arg-type]


def drawn_from(config: HeadConfig, seed: int = 0) -> torch.nn.Module:
    torch.manual_seed(seed)
    head = build_head(config)
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
        "g": drawn("attention", 150, 6, buckets=2**17, rank=16),
        "h": drawn("attention", 9, 7, buckets=2**17, rank=16),
    }
    return replace(start, heads=heads)


def test_joined_heads_equal_single_ones(many: Checkpoint) -> None:
    model = many.model()
    joined = JoinedHeads(list(many.heads.values())).eval()
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(1000, 30000, (5, 17), generator=generator)
    mask = torch.ones_like(ids)
    mask[1, 3:] = 0
    mask[4, 1:] = 0
    with torch.inference_mode():
        expected = model(ids, mask)
        got = joined(model.states(ids, mask), mask, ids)
    assert [g.shape[1] for g in got] == [2, 3, 5, 2, 2, 4, 150, 9]
    for one, other in zip(expected, got, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


def test_heads_that_never_learned_are_joined_as_exactly(many: Checkpoint) -> None:
    """Their weights have not been rounded to a byte each, so they must not be now."""
    torch.manual_seed(0)
    head = build_head(HeadConfig(STATES, WIDTH, 3)).eval()
    states = [torch.randn(2, 7, WIDTH) for _ in range(STATES)]
    ids, mask = torch.randint(1000, 30000, (2, 7)), torch.ones(2, 7)
    with torch.inference_mode():
        (got,) = JoinedHeads([head])(states, mask, ids)
        torch.testing.assert_close(got, head(states, mask, ids), atol=1e-6, rtol=1e-6)


def test_only_heads_of_one_shape_are_joined(many: Checkpoint) -> None:
    joined = JoinedHeads(list(many.heads.values()))
    groups = [m for m in joined.modules() if isinstance(m, SharedHeads)]
    assert [len(g.outputs) for g in groups] == [5, 1]


def test_heads_of_few_and_of_many_labels_share_their_operators(many: Checkpoint) -> None:
    """One hash serves tables of differing sizes; those of one size are one table."""
    joined = JoinedHeads(list(many.heads.values()))
    first = next(m for m in joined.modules() if isinstance(m, SharedHeads))
    assert [tuple(table.codes.shape) for table in first.ngrams.tables] == [
        (2**19, 1 + 4),
        (2**17, 16 + 16),
    ]


@pytest.mark.parametrize(("labels", "megabytes"), [(77, 3), (150, 4), (1000, 12)])
def test_what_ships_of_a_head_does_not_grow_with_its_labels(labels: int, megabytes: int) -> None:
    config = head_config("attention", states=7, width=384, labels=labels)
    joined = JoinedHeads([drawn_from(config)])
    size = sum(p.numel() * p.element_size() for p in joined.parameters())
    assert size < megabytes * 10**6


def test_what_a_head_learned_fits_in_a_byte_a_number_and_says_the_same() -> None:
    torch.manual_seed(7)
    head = build_head(HeadConfig(STATES, WIDTH, 3)).eval()
    torch.nn.init.normal_(head.ngrams.weight, std=0.1)  # type: ignore[union-attr, arg-type]
    states = [torch.randn(2, 7, WIDTH) for _ in range(STATES)]
    inputs = states, torch.ones(2, 7), torch.randint(1000, 30000, (2, 7))
    with torch.inference_mode():
        before = torch.softmax(head(*inputs), 1)
        head.finish()
        after = torch.softmax(head(*inputs), 1)
    torch.testing.assert_close(before, after, atol=2e-3, rtol=0)
    table = head.ngrams.weight.detach()  # type: ignore[union-attr]
    assert (table[:, -1] == 0).all(), "relative to the last label"
    for weight, dim in ((table, 0), (head.hidden, 1)):  # type: ignore[union-attr]
        codes, scale = packed(weight, dim)  # type: ignore[arg-type]
        assert codes.dtype == torch.int8
        torch.testing.assert_close(codes * scale, weight, rtol=1e-6, atol=1e-9)
    with torch.inference_mode():
        head.finish()
        torch.testing.assert_close(torch.softmax(head(*inputs), 1), after, atol=1e-6, rtol=0)
