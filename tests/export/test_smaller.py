"""Smaller word tables: exact where they say so, within half a step where not."""

from __future__ import annotations

import json
from collections.abc import Sequence
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
from mtl_edge.cli import main
from mtl_edge.engines.onnxruntime import session_options
from mtl_edge.errors import ExportError, OptionError
from mtl_edge.export import int8_openvino, onnx_graph, openvino_graph
from mtl_edge.export.capture import capture_heads
from mtl_edge.export.smaller import (
    Account,
    embeddings_in_4_bits,
    embeddings_in_4_bits_openvino,
    share_kept,
    trim_vocabulary,
    trim_vocabulary_openvino,
    used_tokens,
)
from mtl_edge.export.source import Source, captured
from mtl_edge.export.targets import TARGETS
from mtl_edge.training.checkpoint import load_checkpoint

VOCABULARY, WIDTH, DEPTH = 30522, 64, 2
PADDING, UNKNOWN, START, END = 0, 100, 101, 102
SPECIAL = (PADDING, UNKNOWN, START, END, 103)
RARE = 29999
CORPUS = [[START, 2023, 2003, END], [START, 5000, 2023, 7, 9000, END], [START, 25000, END]]
KEPT = used_tokens(CORPUS, SPECIAL)
OTHER = [[START, RARE, 2003, RARE + 1, END]]
OTHER_UNKNOWN = [[START, UNKNOWN, 2003, UNKNOWN, END]]

Array = npt.NDArray[np.float32]


@pytest.fixture(scope="module")
def source(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Source:
    return captured(load_checkpoint(checkpoint), tmp_path_factory.mktemp("smaller"))


@pytest.fixture(scope="module")
def encoder(source: Source) -> onnx.ModelProto:
    model: onnx.ModelProto = TARGETS["onnx-int8"].encoder(source)
    return model


@pytest.fixture(scope="module")
def openvino_encoder(source: Source) -> ov.Model:
    return int8_openvino.quantize(source)


def states(model: Any, texts: Sequence[Sequence[int]]) -> list[Array]:
    """All states of a batch, the embeddings' first."""
    form = onnx_graph if isinstance(model, onnx.ModelProto) else openvino_graph
    return list(form.states_of(model, DEPTH)(*pad(texts)).values())


def constants(model: onnx.ModelProto) -> dict[str, npt.NDArray[Any]]:
    return {c.name: numpy_helper.to_array(c) for c in model.graph.initializer}


def rows_of(model: onnx.ModelProto, ids: Sequence[int]) -> Array:
    """The word table's rows for these tokens, `[tokens, width]`, as the graph reads them."""
    (name,) = (n.input[0] for n in model.graph.node if n.output[0] == "/total")
    probed = onnx.ModelProto()
    probed.CopyFrom(model)
    probed.graph.output.append(onnx.helper.make_tensor_value_info(name, 1, None))
    session = ort.InferenceSession(
        probed.SerializeToString(), session_options(), providers=["CPUExecutionProvider"]
    )
    input_ids, mask = pad([ids])
    rows: Array = session.run([name], {"input_ids": input_ids, "attention_mask": mask})[0]
    return rows[0]


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


def test_texts_of_the_corpus_answer_to_the_bit_as_before(encoder: onnx.ModelProto) -> None:
    trimmed, _ = trim_vocabulary(encoder, KEPT, UNKNOWN)
    require_same(states(trimmed, CORPUS), states(encoder, CORPUS))


def test_other_tokens_answer_as_the_unknown_does(encoder: onnx.ModelProto) -> None:
    trimmed, _ = trim_vocabulary(encoder, KEPT, UNKNOWN)
    require_same(states(trimmed, OTHER), states(encoder, OTHER_UNKNOWN))
    assert np.any(states(encoder, OTHER)[0] != states(encoder, OTHER_UNKNOWN)[0])


def test_the_account_is_what_the_file_loses(encoder: onnx.ModelProto) -> None:
    trimmed, account = trim_vocabulary(encoder, KEPT, UNKNOWN)
    a_row = WIDTH + 4  # int8 numbers and a float32 scale
    before, after = VOCABULARY * a_row, len(KEPT) * a_row + 2 * VOCABULARY
    assert account == Account(VOCABULARY, len(KEPT), before, after)
    assert account.to_json()["bytes_saved"] == account.bytes_saved == before - after
    saved = encoder.ByteSize() - trimmed.ByteSize()
    assert saved == pytest.approx(account.bytes_saved, abs=1000), "and some names of the map"


def test_a_vocabulary_kept_whole_answers_as_before(encoder: onnx.ModelProto) -> None:
    whole, account = trim_vocabulary(encoder, range(VOCABULARY), UNKNOWN)
    assert account.bytes_saved == -2 * VOCABULARY
    require_same(states(whole, [*CORPUS, *OTHER]), states(encoder, [*CORPUS, *OTHER]))


@pytest.mark.parametrize("block", [16, 32, 64])
def test_4_bit_rows_are_within_half_a_step_of_int8(encoder: onnx.ModelProto, block: int) -> None:
    smaller = embeddings_in_4_bits(encoder, block)
    stored = constants(smaller)
    codes, scales = stored["/word_rows_4bit"], stored["/word_rows_4bit_scale"]
    assert codes.dtype == np.uint8
    assert codes.shape == (VOCABULARY, WIDTH // 2)
    assert scales.dtype == np.float16
    assert scales.shape == (VOCABULARY, WIDTH // block)
    ids = list(range(400, 800))
    before, after = rows_of(encoder, ids), rows_of(smaller, ids)
    steps = np.repeat(np.abs(scales[ids].astype(np.float32)), block, 1)
    levels = np.rint(after / np.repeat(scales[ids].astype(np.float32), block, 1))
    inside = (levels > -8) & (levels < 7)
    error = np.abs(after - before)
    assert np.all(error[inside] <= 0.501 * steps[inside])
    assert np.all(error[~inside] <= 2 * steps[~inside]), "cut off, where all others gain by it"
    plain = np.repeat(np.abs(before.reshape(-1, block)).max(1) / 7, block).reshape(before.shape)
    rounded = np.rint(before / plain) * plain
    assert np.square(error).mean() < 0.9 * np.square(rounded - before).mean()


def test_rows_of_zeros_stay_zeros(encoder: onnx.ModelProto) -> None:
    emptied = onnx.ModelProto()
    emptied.CopyFrom(encoder)
    (table,) = (c for c in emptied.graph.initializer if c.name == "/word_rows_int8")
    values = numpy_helper.to_array(table).copy()
    values[PADDING] = 0
    table.CopyFrom(numpy_helper.from_array(values, table.name))
    assert not rows_of(embeddings_in_4_bits(emptied), [PADDING]).any()


def test_both_compose_in_either_order(encoder: onnx.ModelProto) -> None:
    one = embeddings_in_4_bits(trim_vocabulary(encoder, KEPT, UNKNOWN)[0])
    other, account = trim_vocabulary(embeddings_in_4_bits(encoder), KEPT, UNKNOWN)
    for model in (one, other):
        onnx.checker.check_model(model)
        assert [i.name for i in model.graph.input] == [i.name for i in encoder.graph.input]
        assert [o.name for o in model.graph.output] == [o.name for o in encoder.graph.output]
    texts = [*CORPUS, *OTHER]
    require_same(states(one, texts), states(other, texts))
    assert states(one, texts)[0].shape == states(encoder, texts)[0].shape
    a_row = WIDTH // 2 + 2 * WIDTH // 32
    assert account.bytes_after == len(KEPT) * a_row + 2 * VOCABULARY
    assert one.ByteSize() == pytest.approx(other.ByteSize(), abs=100)
    names = constants(one)
    assert not {"/word_rows_int8", "/word_rows_scale"} & set(names)


def test_a_written_graph_of_both_opens_and_takes_less(
    encoder: onnx.ModelProto, checkpoint: Path, tmp_path: Path
) -> None:
    heads = tmp_path / "heads.onnx"
    capture_heads(load_checkpoint(checkpoint), heads)
    smaller = embeddings_in_4_bits(trim_vocabulary(encoder, KEPT, UNKNOWN)[0])
    sizes, answers = [], []
    for name, model in (("whole", encoder), ("smaller", smaller)):
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
    trimmed, account = trim_vocabulary_openvino(openvino_encoder, KEPT, UNKNOWN)
    require_same(states(trimmed, CORPUS), states(openvino_encoder, CORPUS))
    require_same(states(trimmed, OTHER), states(openvino_encoder, OTHER_UNKNOWN))
    assert (account.vocabulary, account.kept) == (VOCABULARY, len(KEPT))
    saved = VOCABULARY * (WIDTH + 4 - 2) - len(KEPT) * (WIDTH + 4)
    assert account.bytes_saved == saved


def test_both_engines_read_the_same_4_bit_rows(
    encoder: onnx.ModelProto, openvino_encoder: ov.Model
) -> None:
    """Both tables start from int8 with a scale a row; what is left is int8's own rounding."""
    texts = [*CORPUS, *OTHER]
    before = states(openvino_encoder, texts)[0]
    after = states(embeddings_in_4_bits_openvino(openvino_encoder), texts)[0]
    onnx_after = states(embeddings_in_4_bits(encoder), texts)[0]
    real = pad(texts)[1].astype(bool)
    change = np.square(after - before)[real].mean()
    assert 0 < change < 0.02 * np.square(before)[real].mean()
    assert np.square(after - onnx_after)[real].mean() < 0.5 * change


def test_openvino_stores_a_smaller_table(openvino_encoder: ov.Model, tmp_path: Path) -> None:
    trimmed, account = trim_vocabulary_openvino(openvino_encoder, KEPT, UNKNOWN)
    whole = embeddings_in_4_bits_openvino(openvino_encoder)
    both = embeddings_in_4_bits_openvino(trimmed)
    sizes = {}
    for name, model in (
        ("int8", openvino_encoder),
        ("trimmed", trimmed),
        ("4 bits", whole),
        ("both", both),
    ):
        openvino_graph.write(model, tmp_path / "model.xml")
        sizes[name] = (tmp_path / "model.bin").stat().st_size
    saved = {name: sizes["int8"] - size for name, size in sizes.items()}
    assert saved["trimmed"] == pytest.approx(account.bytes_saved, abs=100)
    in_4_bits = VOCABULARY * (WIDTH + 4 - WIDTH // 2 - 2 * WIDTH // 32)
    assert saved["4 bits"] == pytest.approx(in_4_bits, abs=100)
    assert sizes["both"] < min(sizes["trimmed"], sizes["4 bits"])
    read = openvino_graph.read(tmp_path / "model.xml")
    require_same(states(read, CORPUS), states(both, CORPUS))


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
    encoder: onnx.ModelProto,
    openvino_encoder: ov.Model,
    kept: frozenset[int],
    unknown: int,
    message: str,
) -> None:
    with pytest.raises(OptionError, match=message):
        trim_vocabulary(encoder, kept, unknown)
    with pytest.raises(OptionError, match=message):
        trim_vocabulary_openvino(openvino_encoder, kept, unknown)


def test_a_block_that_does_not_fit_is_named(
    encoder: onnx.ModelProto, openvino_encoder: ov.Model
) -> None:
    for block in (0, 24, 128):
        with pytest.raises(OptionError, match=f"got {block}: choose of 16, 32, 64"):
            embeddings_in_4_bits(encoder, block)
        with pytest.raises(OptionError, match=f"got {block}: choose of 16, 32, 64"):
            embeddings_in_4_bits_openvino(openvino_encoder, block)


def test_what_was_made_smaller_once_is_not_twice(
    encoder: onnx.ModelProto, openvino_encoder: ov.Model, source: Source
) -> None:
    trimmed, _ = trim_vocabulary(encoder, KEPT, UNKNOWN)
    with pytest.raises(ExportError, match="it was trimmed"):
        trim_vocabulary(trimmed, KEPT, UNKNOWN)
    with pytest.raises(ExportError, match="one in 4 bits"):
        embeddings_in_4_bits(embeddings_in_4_bits(encoder))
    for function in (lambda m: trim_vocabulary(m, KEPT, UNKNOWN), embeddings_in_4_bits):
        with pytest.raises(ExportError, match="has none"):
            function(source.fused())
    trimmed, _ = trim_vocabulary_openvino(openvino_encoder, KEPT, UNKNOWN)
    with pytest.raises(ExportError, match="it was trimmed"):
        trim_vocabulary_openvino(trimmed, KEPT, UNKNOWN)
    smaller = embeddings_in_4_bits_openvino(openvino_encoder)
    for again in (
        lambda: embeddings_in_4_bits_openvino(smaller),
        lambda: trim_vocabulary_openvino(smaller, KEPT, UNKNOWN),
    ):
        with pytest.raises(ExportError, match="expected an encoder with a word table in int8"):
            again()


def test_a_bundle_says_what_was_left_out(
    checkpoint: Path, shared_bundle: Path, rows: Path, tmp_path: Path
) -> None:
    out = tmp_path / "b"
    export = ["export", str(checkpoint), "--out", str(out), "--vocabulary", str(rows)]
    assert main([*export, "--embeddings", "4bit"]) == 0
    reduced = json.loads((out / "manifest.json").read_text())["reduced"]
    assert reduced["embeddings"] == "4bit"
    found = reduced["vocabulary"]
    assert 100 < found["tokens_kept"] < found["tokens"] == 30522
    assert 0.5 < found["share_of_held_out_tokens_kept"] <= 1
    assert f"{found['tokens_kept']:,} of the tokenizer's" in (out / "README.md").read_text()
    for name in ("encoder.int8.bin", "openvino.int8.bin"):
        assert (out / name).stat().st_size < 0.5 * (shared_bundle / name).stat().st_size
