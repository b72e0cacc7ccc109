"""Each step of an answer by itself, and the whole.

pytest benchmarks/micro --bundle bundle --benchmark-autosave
pytest benchmarks/micro --bundle bundle --benchmark-compare
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer

from mtl_edge.batches.planning import pad, plan
from mtl_edge.bundle import TOKENIZER, open_bundle
from mtl_edge.classifier import EdgeClassifier
from mtl_edge.tokens.encoder import TextEncoder

TEXT = "The battery of this phone died after two days, and nobody answered when I called."

Benchmark = Any  # pytest-benchmark's fixture, which has no types


def test_tokenize_one(benchmark: Benchmark, encoder: TextEncoder) -> None:
    (ids,) = benchmark(encoder, [TEXT])
    assert 10 < len(ids) < 40


def test_tokenize_many(benchmark: Benchmark, encoder: TextEncoder, texts: list[str]) -> None:
    """Texts whose words are kept already."""
    assert len(benchmark(encoder, texts)) == len(texts)


def test_tokenize_many_new(
    benchmark: Benchmark, new_encoder: Callable[[], TextEncoder], texts: list[str]
) -> None:
    """Texts of which no word is kept."""

    def anew() -> tuple[tuple[TextEncoder, list[str]], dict[str, Any]]:
        return (new_encoder(), texts), {}

    ids = benchmark.pedantic(lambda fresh, some: fresh(some), setup=anew, rounds=15)
    assert len(ids) == len(texts)


def test_tokenize_many_by_the_library(
    benchmark: Benchmark, bundle: Path, encoder: TextEncoder, texts: list[str]
) -> None:
    """What keeping words is compared with."""
    library = Tokenizer.from_file(str(open_bundle(bundle, verify="size").file(TOKENIZER)))
    library.no_padding()
    library.enable_truncation(encoder.max_tokens)
    ids = benchmark(lambda: [encoding.ids for encoding in library.encode_batch_fast(texts)])
    assert ids == encoder(texts)


def test_plan_many(benchmark: Benchmark, encoder: TextEncoder, texts: list[str]) -> None:
    lengths = [len(ids) for ids in encoder(texts)]
    batches = benchmark(lambda: list(plan(lengths, 1024, 16)))
    assert sorted(place for batch in batches for place in batch) == list(range(len(texts)))


def test_pad_a_batch(benchmark: Benchmark, encoder: TextEncoder, texts: list[str]) -> None:
    ids = encoder(texts[:32])
    _, mask = benchmark(pad, ids, 16)
    assert mask.sum() == sum(map(len, ids))


@pytest.mark.parametrize("batch", [1, 32])
def test_engine_call(benchmark: Benchmark, classifier: EdgeClassifier, batch: int) -> None:
    loaded = classifier._running()
    words = loaded.bundle.manifest.backbone.vocabulary
    ids = np.random.default_rng(0).integers(0, words, (batch, 32))
    logits = benchmark(loaded.engine.run, ids, np.ones_like(ids))
    assert {len(values) for values in logits.values()} == {batch}


def test_predict_one(benchmark: Benchmark, classifier: EdgeClassifier) -> None:
    prediction = benchmark(classifier.predict, TEXT)
    assert {*prediction} == {task.name for task in classifier.tasks}


def test_predict_many(benchmark: Benchmark, classifier: EdgeClassifier, texts: list[str]) -> None:
    assert len(benchmark(classifier.predict, texts)) == len(texts)
