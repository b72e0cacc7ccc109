"""Smaller word tables: exact where they say so, within half a step where not."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
import openvino as ov
import pytest
from onnx import numpy_helper

from mtl_edge.batches.planning import pad
from mtl_edge.engines.onnxruntime import session_options
from mtl_edge.errors import ExportError, OptionError
from mtl_edge.export.graphs import onnx_graph, openvino_graph
from mtl_edge.export.graphs.capture import capture_heads
from mtl_edge.export.graphs.source import Source, captured
from mtl_edge.export.int8 import int8_onnx, int8_openvino
from mtl_edge.export.int8.word_table import (
    PLAIN,
    WordTable,
    in_4_bits,
    share_kept,
    used_tokens,
)
from mtl_edge.export.int8.word_table_openvino import with_word_table
from mtl_edge.training.checkpoint import load_checkpoint

VOCABULARY, WIDTH, DEPTH = 30522, 64, 2
PADDING, UNKNOWN, START, END = 0, 100, 101, 102
SPECIAL = (PADDING, UNKNOWN, START, END, 103)
RARE = 29999
CORPUS = [[START, 2023, 2003, END], [START, 5000, 2023, 7, 9000, END], [START, 25000, END]]
KEPT = used_tokens(CORPUS, SPECIAL)
TRIMMED = WordTable(KEPT, UNKNOWN)
FOUR_BITS = WordTable(four_bits=True)
BOTH = WordTable(KEPT, UNKNOWN, four_bits=True)
OTHER = [[START, RARE, 2003, RARE + 1, END]]
OTHER_UNKNOWN = [[START, UNKNOWN, 2003, UNKNOWN, END]]

Array = npt.NDArray[np.float32]
OnnxWith = Callable[[WordTable], onnx.ModelProto]


@pytest.fixture(scope="module")
def source(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Source:
    return captured(load_checkpoint(checkpoint), tmp_path_factory.mktemp("smaller"))


@pytest.fixture(scope="module")
def onnx_with(source: Source) -> OnnxWith:
    """An encoder in int8 whose word table is stored so, each made once."""
    prepared = source.prepared()

    @cache
    def made(table: WordTable) -> onnx.ModelProto:
        return int8_onnx.quantize(prepared, WIDTH, source.calibration, table=table)

    return made


@pytest.fixture(scope="module")
def encoder(onnx_with: OnnxWith) -> onnx.ModelProto:
    return onnx_with(PLAIN)


@pytest.fixture(scope="module")
def openvino_encoder(source: Source) -> ov.Model:
    return int8_openvino.quantize(source)


def states(model: Any, texts: Sequence[Sequence[int]]) -> list[Array]:
    """All states of a batch, the embeddings' first."""
    form = onnx_graph if isinstance(model, onnx.ModelProto) else openvino_graph
    return list(form.states_of(model, DEPTH)(*pad(texts)).values())


def constants(model: onnx.ModelProto) -> dict[str, npt.NDArray[Any]]:
    return {c.name: numpy_helper.to_array(c) for c in model.graph.initializer}


def stored_rows(model: onnx.ModelProto) -> tuple[Array, Array]:
    """The word table's codes of four bits as they read, `[tokens, width]`, and their scales."""
    stored = constants(model)
    codes, scales = stored["/word_rows_4bit"], stored["/word_rows_4bit_scale"]
    assert codes.dtype == np.uint8
    assert scales.dtype == np.float16
    levels = np.stack([codes & 15, codes >> 4], -1).reshape(len(codes), -1).astype(np.float32) - 8
    return levels, scales.astype(np.float32)


def require_same(some: Sequence[Array], others: Sequence[Array]) -> None:
    for one, other in zip(some, others, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_corpus_uses_its_tokens_and_those_it_always_needs() -> None:
    assert used_tokens([[5, 7, 5], np.array([9], np.int32)], always=[0]) == {0, 5, 7, 9}
    assert used_tokens([]) == frozenset()


def test_the_share_of_kept_tokens_counts_every_occurrence() -> None:
    assert share_kept(CORPUS, KEPT) == 1
    assert share_kept([[5, 5, 7], [8]], [5]) == 0.5
    assert share_kept([], KEPT) == 1


def test_texts_of_the_corpus_answer_to_the_bit_as_before(
    encoder: onnx.ModelProto, onnx_with: OnnxWith
) -> None:
    require_same(states(onnx_with(TRIMMED), CORPUS), states(encoder, CORPUS))


def test_other_tokens_answer_as_the_unknown_does(
    encoder: onnx.ModelProto, onnx_with: OnnxWith
) -> None:
    require_same(states(onnx_with(TRIMMED), OTHER), states(encoder, OTHER_UNKNOWN))
    assert np.any(states(encoder, OTHER)[0] != states(encoder, OTHER_UNKNOWN)[0])


def test_a_trimmed_table_takes_the_rows_it_keeps_and_a_map(
    encoder: onnx.ModelProto, onnx_with: OnnxWith
) -> None:
    a_row = WIDTH + 4  # int8 numbers and a float32 scale
    gone = (VOCABULARY - len(KEPT)) * a_row - 2 * VOCABULARY
    saved = encoder.ByteSize() - onnx_with(TRIMMED).ByteSize()
    assert saved == pytest.approx(gone, abs=1000), "and some names of the map"


def test_a_vocabulary_kept_whole_answers_as_before(
    encoder: onnx.ModelProto, onnx_with: OnnxWith
) -> None:
    whole = onnx_with(WordTable(frozenset(range(VOCABULARY)), UNKNOWN))
    require_same(states(whole, [*CORPUS, *OTHER]), states(encoder, [*CORPUS, *OTHER]))


@pytest.mark.parametrize("block", [16, 32, 64])
def test_4_bit_rows_are_within_half_a_step(block: int) -> None:
    before = np.random.default_rng(0).normal(size=(400, WIDTH)).astype(np.float32)
    codes, scales = in_4_bits(before, block)
    steps = np.repeat(scales.astype(np.float32), block, 1)
    error = np.abs(codes * steps - before)
    uncut = (codes > -8) & (codes < 7)
    assert np.all(error[uncut] <= 0.501 * np.abs(steps[uncut]))
    assert np.all(error[~uncut] <= 2 * np.abs(steps[~uncut])), "cut off: all others gain by it"
    plain = np.repeat(np.abs(before.reshape(-1, block)).max(1) / 7, block).reshape(before.shape)
    rounded = np.rint(before / plain) * plain
    assert np.square(error).mean() < 0.9 * np.square(rounded - before).mean()


def test_the_graph_reads_the_4_bit_rows_that_are_stored(
    encoder: onnx.ModelProto, onnx_with: OnnxWith
) -> None:
    stored = constants(encoder)
    in_int8 = stored["/word_rows_int8"] * stored["/word_rows_scale"]
    codes, scales = in_4_bits(in_int8)
    levels, read = stored_rows(onnx_with(FOUR_BITS))
    np.testing.assert_array_equal(levels, codes)
    np.testing.assert_array_equal(read, scales.astype(np.float32))
    ids = list(range(400, 500))
    rounded = onnx.ModelProto()  # the int8 graph with the table that four bits stand for
    rounded.CopyFrom(encoder)
    for constant in rounded.graph.initializer:
        if constant.name == "/word_rows_int8":
            values = (levels.reshape(VOCABULARY, -1, 32) * read[..., None]).reshape(levels.shape)
            constant.CopyFrom(numpy_helper.from_array(values, constant.name))
        elif constant.name == "/word_rows_scale":
            ones = np.ones((VOCABULARY, 1), np.float32)
            constant.CopyFrom(numpy_helper.from_array(ones, constant.name))
    for one, other in zip(states(rounded, [ids]), states(onnx_with(FOUR_BITS), [ids]), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_rows_of_zeros_stay_zeros() -> None:
    codes, scales = in_4_bits(np.zeros((3, WIDTH), np.float32))
    assert not (codes * np.repeat(scales, 32, 1)).any()


def test_both_compose(encoder: onnx.ModelProto, onnx_with: OnnxWith) -> None:
    both = onnx_with(BOTH)
    onnx.checker.check_model(both)
    assert [i.name for i in both.graph.input] == [i.name for i in encoder.graph.input]
    assert [o.name for o in both.graph.output] == [o.name for o in encoder.graph.output]
    require_same(states(both, CORPUS), states(onnx_with(FOUR_BITS), CORPUS))
    require_same(states(both, OTHER), states(onnx_with(FOUR_BITS), OTHER_UNKNOWN))
    levels, scales = stored_rows(both)
    assert len(levels) == len(scales) == len(KEPT)
    assert not {"/word_rows_int8", "/word_rows_scale"} & set(constants(both))


def test_a_written_graph_of_both_opens_and_takes_less(
    encoder: onnx.ModelProto, onnx_with: OnnxWith, checkpoint: Path, tmp_path: Path
) -> None:
    heads = tmp_path / "heads.onnx"
    capture_heads(load_checkpoint(checkpoint), heads)
    sizes, answers = [], []
    for name, model in (("whole", encoder), ("smaller", onnx_with(BOTH))):
        joined = onnx_graph.join(model, onnx.load(str(heads)))
        onnx_graph.write(joined, tmp_path, f"{name}.onnx", f"{name}.bin", f"{name}.heads.bin")
        sizes.append((tmp_path / f"{name}.bin").stat().st_size)
        session = ort.InferenceSession(
            str(tmp_path / f"{name}.onnx"), session_options(), providers=["CPUExecutionProvider"]
        )
        ids, mask = pad(CORPUS)
        answers.append(session.run(None, {"input_ids": ids, "attention_mask": mask}))
    assert sizes[0] - sizes[1] > 0.9 * VOCABULARY * WIDTH
    for one, other in zip(*answers, strict=True):
        np.testing.assert_allclose(one, other, atol=0.1)


def test_openvino_answers_for_the_corpus_to_the_bit_as_before(openvino_encoder: ov.Model) -> None:
    trimmed = with_word_table(openvino_encoder, TRIMMED)
    require_same(states(trimmed, CORPUS), states(openvino_encoder, CORPUS))
    require_same(states(trimmed, OTHER), states(openvino_encoder, OTHER_UNKNOWN))


def test_both_engines_read_the_same_4_bit_rows(
    onnx_with: OnnxWith, openvino_encoder: ov.Model
) -> None:
    """Both tables start from int8 with a scale a row; what is left is int8's own rounding."""
    texts = [*CORPUS, *OTHER]
    before = states(openvino_encoder, texts)[0]
    after = states(with_word_table(openvino_encoder, FOUR_BITS), texts)[0]
    onnx_after = states(onnx_with(FOUR_BITS), texts)[0]
    real = pad(texts)[1].astype(bool)
    change = np.square(after - before)[real].mean()
    assert 0 < change < 0.02 * np.square(before)[real].mean()
    assert np.square(after - onnx_after)[real].mean() < 0.5 * change


def test_openvino_stores_a_smaller_table(openvino_encoder: ov.Model, tmp_path: Path) -> None:
    sizes = {}
    for table in (PLAIN, TRIMMED, FOUR_BITS, BOTH):
        model = openvino_encoder if table.plain else with_word_table(openvino_encoder, table)
        openvino_graph.write(model, tmp_path / "model.xml")
        sizes[table] = (tmp_path / "model.bin").stat().st_size
    saved = {table: sizes[PLAIN] - size for table, size in sizes.items()}
    trimmed = (VOCABULARY - len(KEPT)) * (WIDTH + 4) - 2 * VOCABULARY
    assert saved[TRIMMED] == pytest.approx(trimmed, abs=100)
    in_4_bits = VOCABULARY * (WIDTH + 4 - WIDTH // 2 - 2 * WIDTH // 32)
    assert saved[FOUR_BITS] == pytest.approx(in_4_bits, abs=100)
    assert sizes[BOTH] < min(sizes[TRIMMED], sizes[FOUR_BITS])
    read = openvino_graph.read(tmp_path / "model.xml")
    require_same(states(read, CORPUS), states(model, CORPUS))


@pytest.mark.parametrize(
    ("kept", "unknown", "message"),
    [
        ({*KEPT, VOCABULARY}, UNKNOWN, "expected token ids from 0 to 30521; got 30522"),
        ({*KEPT, -1}, UNKNOWN, "got -1"),
        (KEPT, RARE, "expected the unknown token, 29999, among the tokens to keep"),
        ((), UNKNOWN, "got 0 without it"),
    ],
)
def test_a_vocabulary_that_makes_no_sense_is_named(
    onnx_with: OnnxWith,
    openvino_encoder: ov.Model,
    kept: Collection[int],
    unknown: int,
    message: str,
) -> None:
    table = WordTable(frozenset(kept), unknown)
    with pytest.raises(OptionError, match=message):
        onnx_with(table)
    with pytest.raises(OptionError, match=message):
        with_word_table(openvino_encoder, table)


def test_a_block_that_does_not_fit_is_named() -> None:
    for block in (0, 24, 128):
        with pytest.raises(OptionError, match=f"got {block}: choose of 16, 32, 64"):
            in_4_bits(np.zeros((2, WIDTH), np.float32), block)


def test_an_encoder_without_a_word_table_is_named(
    source: Source, openvino_encoder: ov.Model
) -> None:
    other = source.prepared()
    for node in other.graph.node:
        node.input[:] = ["ids" if name == "input_ids" else name for name in node.input]
        if node.op_type in ("EmbedLayerNormalization", "Attention"):
            node.op_type = f"Other{node.op_type}"
    with pytest.raises(ExportError, match="it has none"):
        int8_onnx.quantize(other, 10**6, source.calibration, table=FOUR_BITS)  # no products either
    smaller = with_word_table(openvino_encoder, FOUR_BITS)
    with pytest.raises(ExportError, match="expected an encoder with a word table in int8"):
        with_word_table(smaller, FOUR_BITS)


def test_a_bundle_says_what_was_left_out(shared_bundle: Path, smaller_bundle: Path) -> None:
    out = smaller_bundle
    reduced = json.loads((out / "manifest.json").read_text())["reduced"]
    assert reduced["embeddings"] == "4bit"
    found = reduced["vocabulary"]
    assert 100 < found["tokens_kept"] < found["tokens"] == 30522
    assert 0.5 < found["share_of_held_out_tokens_kept"] <= 1
    assert f"{found['tokens_kept']:,} of the tokenizer's" in (out / "README.md").read_text()
    for name in ("encoder.int8.bin", "openvino.int8.bin"):
        assert (out / name).stat().st_size < 0.5 * (shared_bundle / name).stat().st_size
