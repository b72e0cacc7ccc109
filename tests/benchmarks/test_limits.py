"""The machine's limits are limits, and a floor counts what a pass cannot do without."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from transformers import AutoTokenizer, DistilBertConfig, DistilBertModel

from mtl_edge.benchmarks import limits as command
from mtl_edge.benchmarks.core.record_json import read_record
from mtl_edge.benchmarks.core.report import markdown
from mtl_edge.benchmarks.roofline import bandwidth, products, rates
from mtl_edge.benchmarks.roofline.bandwidth import Read
from mtl_edge.benchmarks.roofline.passes import Roofline, operations, roofline, work_of
from mtl_edge.benchmarks.roofline.products import PRODUCTS
from mtl_edge.benchmarks.roofline.products import operations as operations_of
from mtl_edge.benchmarks.roofline.profile import profile, share_of_products
from mtl_edge.benchmarks.roofline.rates import MachineLimits, Rate
from mtl_edge.benchmarks.roofline.weights import weights_of
from mtl_edge.bundle import Bundle, Graph, open_bundle
from mtl_edge.cli import main
from mtl_edge.errors import OptionError

MIB = 2**20
SMALL = (64, 128, 256)
WIDTH, WIDE, LAYERS = 64, 128, 2  # of the tiny backbone
MATRICES = LAYERS * (4 * WIDTH**2 + 2 * WIDTH * WIDE)


def limits_of(**changes: Any) -> MachineLimits:
    """A machine of round numbers."""
    made = MachineLimits(
        threads=1,
        tops={"int8": 1.0, "fp32": 0.25},
        triad_gb_s=8.0,
        reads=(Read(MIB, 100.0), Read(8 * MIB, 50.0), Read(64 * MIB, 10.0)),
        cache=8 * MIB,
        rates=(
            Rate("int8", "OpenVINO", SMALL, 1.0),
            Rate("fp32", "OpenVINO", SMALL, 0.25),
        ),
    )
    return replace(made, **changes)


def least(
    bundle: Bundle, graph: Graph, batch: int, tokens: int, limits: MachineLimits
) -> Roofline | None:
    work = work_of(bundle, graph, batch, tokens)
    return None if work is None else roofline(work, graph.precision, limits)


@pytest.fixture(scope="module")
def opened(shared_bundle: Path) -> Bundle:
    return open_bundle(shared_bundle)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Limits in a second."""
    small = partial(rates.measure, shapes=(SMALL,), rounds=3, sizes=(MIB, 2 * MIB))
    monkeypatch.setattr(rates, "measure", small)


def test_the_best_of_all_engines_is_the_limit() -> None:
    found = rates.measure(1, shapes=(SMALL, (32, 64, 64)), rounds=3, sizes=(MIB, 2 * MIB))
    by_kind = {(rate.precision, rate.by) for rate in found.rates}
    assert {by for precision, by in by_kind if precision == "int8"} == set(PRODUCTS["int8"])
    for precision in ("int8", "fp32"):
        own = [rate.tops for rate in found.rates if rate.precision == precision]
        assert len(own) == 2 * len(PRODUCTS[precision])
        assert found.rate(precision) == max(own) == found.fastest(precision).tops > 0
    assert [read.bytes for read in found.reads] == [MIB, 2 * MIB]
    figures = found.figures()
    assert {"int8_tops", "fp32_tops", "read_gb_s", "triad_gb_s"} <= set(figures)
    assert min(figures.values()) > 0


@pytest.mark.parametrize("by", PRODUCTS["int8"])
def test_int8_products_are_computed_in_bytes(by: str) -> None:
    """A graph that an engine runs in float32 after all would take the limit down unseen."""
    made = PRODUCTS["int8"][by](SMALL, 1)
    assert made is not None
    made()
    assert operations_of(SMALL) == 2 * 2 * 64 * 128 * 256


def test_onnx_products_are_what_numpy_computes() -> None:
    rng = np.random.default_rng(0)
    weights = {"w": rng.integers(-127, 128, (8, 4), np.int8)}
    inputs = {"x": rng.integers(0, 128, (2, 8), np.uint8)}
    node = onnx.helper.make_node("MatMulInteger", ["x", "w"], ["y"])
    call: Any = products._session([node], weights, inputs, {"y": (2, 4)}, onnx.TensorProto.INT32, 1)
    call()
    (binding,) = call.args
    (made,) = binding.copy_outputs_to_cpu()
    expected = inputs["x"].astype(np.int32) @ weights["w"].astype(np.int32)
    np.testing.assert_array_equal(made, expected)


def test_a_set_that_fits_a_cache_is_not_held_to_main_memory() -> None:
    found = limits_of()
    assert found.read_at(10 * MIB) == 50
    assert found.read_at(1000 * MIB) == 10
    assert found.read_at(1000) == 100
    slowed = limits_of(reads=(Read(MIB, 5.0), Read(8 * MIB, 50.0)))
    assert slowed.read_at(2 * MIB) == 50  # what a larger set gets, a smaller one gets, too


def test_precisions_without_products_of_their_own_are_held_to_float32() -> None:
    found = limits_of()
    assert [found.rate(p) for p in ("int8", "bf16", "fp16", "fp32")] == [1, 0.25, 0.25, 0.25]
    assert limits_of(tops={"bf16": 0.5, "fp32": 0.25}).rate("bf16") == 0.5


def test_bandwidth_counts_each_array_once() -> None:
    """As STREAM does: three arrays for the triad, two for the read."""
    assert bandwidth.triad_rate(24_000, best=lambda call: 1.0) == pytest.approx(0.024)
    sizes = (MIB, 2 * MIB)
    for read in bandwidth.read_rates(sizes, best=lambda call: 1.0):
        assert read.gb_s == pytest.approx(bandwidth.SWEPT / 1e6)


def test_a_gpu_reads_the_same_numbers_in_fewer_calls() -> None:
    first, second = torch.ones(6), torch.ones(6)
    bandwidth._sums(first, second, 3)
    bandwidth._dots(first, second, 3)
    assert first.expand(3, -1).sum(1).tolist() == [6.0] * 3


def test_reads_go_beyond_the_last_cache_and_not_beyond_reason() -> None:
    assert bandwidth.sizes_for(16 * MIB)[-1] == 64 * MIB
    assert bandwidth.sizes_for(None)[-1] == 32 * MIB
    assert bandwidth.sizes_for(2**40)[-1] == 1024 * MIB


def test_the_callers_number_of_threads_is_put_back() -> None:
    before = torch.get_num_threads()
    with bandwidth.torch_threads(before + 1):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before


def test_tables_are_looked_up_and_matrices_read(opened: Bundle) -> None:
    for graph in opened.manifest.graphs:
        found = weights_of(opened, graph)
        # Besides the matrices: biases, norms and scales.
        assert MATRICES <= found.encoder < 1.2 * MATRICES, graph.target
        wide = 4 if graph.precision == "fp32" else 1
        assert found.row_bytes == wide * WIDTH
        assert found.encoder_bytes < 1.6 * wide * MATRICES
        hidden = 2 * 4 * 5 * WIDTH * 64  # two tasks, four members, five pooled states each
        assert hidden <= found.heads < 1.2 * hidden


def test_the_roofline_is_the_larger_of_operations_and_bytes(opened: Bundle) -> None:
    graph = next(g for g in opened.manifest.graphs if g.target == "onnx-int8")
    weights = weights_of(opened, graph)
    products = operations(opened, [(3, 10)])
    assert products is not None
    many = least(opened, graph, 3, 10, limits_of())
    assert many is not None
    assert many.operations == products + 2 * 3 * weights.heads
    assert many.by_operations == pytest.approx(many.operations / 1e12 * 1e3)
    assert many.bytes == weights.encoder_bytes + weights.heads_bytes + 30 * WIDTH
    assert many.by_bytes == pytest.approx(many.bytes / 100e9 * 1e3)
    assert many.ms == max(many.by_operations, many.by_bytes)
    slow = least(opened, graph, 3, 10, limits_of(reads=(Read(MIB, 0.001),)))
    assert slow is not None
    assert many.by_operations > many.by_bytes
    assert slow.ms == slow.by_bytes > many.ms


def test_states_are_moved_only_where_the_cache_does_not_hold_them(opened: Bundle) -> None:
    graph = next(g for g in opened.manifest.graphs if g.target == "onnx-int8")
    state = 8 * 16 * WIDTH
    stay = least(opened, graph, 8, 16, limits_of(cache=state))
    move = least(opened, graph, 8, 16, limits_of(cache=state - 1))
    unknown = least(opened, graph, 8, 16, limits_of(cache=None))
    assert stay is not None
    assert move is not None
    assert unknown is not None
    assert (stay.states_moved, move.states_moved, unknown.states_moved) == (False, True, False)
    assert move.bytes - stay.bytes == 2 * LAYERS * state


@pytest.mark.usefixtures("quick")
def test_an_encoder_whose_sizes_are_not_told_has_no_roofline(bundle: Path) -> None:
    found = open_bundle(bundle)
    config = json.loads((bundle / "config.json").read_text())
    del config["intermediate_size"]
    (bundle / "config.json").write_text(json.dumps(config))
    assert operations(found, [(1, 1)]) is None
    assert least(found, found.manifest.graphs[0], 1, 16, limits_of()) is None
    with pytest.raises(OptionError, match="does not tell the width"):
        command.measure({"b": found}, 1, "", shapes=((1, 8),), rounds=3)


@pytest.mark.slow
def test_distilbert_has_a_roofline_like_berts(minilm: Path, rows: Path, tmp_path: Path) -> None:
    """Its config calls widths and layers by other names."""
    config = DistilBertConfig(dim=WIDTH, hidden_dim=WIDE, n_layers=LAYERS, n_heads=4)
    DistilBertModel(config).save_pretrained(tmp_path / "backbone")
    AutoTokenizer.from_pretrained(str(minilm)).save_pretrained(tmp_path / "backbone")
    train = ["train", "--backbone", str(tmp_path / "backbone"), "--epochs", "1"]
    train += ["--task", f"topic={rows}", "--out", str(tmp_path / "checkpoint")]
    assert main(train) == 0
    out = tmp_path / "bundle"
    assert main(["export", str(tmp_path / "checkpoint"), "--out", str(out)]) == 0
    found = open_bundle(out)
    assert operations(found, [(1, 16)]) == 16 * (2 * MATRICES + LAYERS * 4 * WIDTH * 16)
    for graph in found.manifest.graphs:
        weights = weights_of(found, graph)
        assert MATRICES <= weights.encoder < 1.2 * MATRICES
        assert weights.row_bytes == WIDTH
        assert least(found, graph, 1, 16, limits_of()) is not None


@pytest.mark.parametrize("shape", [(1, 16), (3, 8)])
def test_a_profile_names_the_operators_that_run(opened: Bundle, shape: tuple[int, int]) -> None:
    for graph in opened.manifest.graphs:
        found = profile(opened, graph, shape, 1)
        assert list(found.values()) == sorted(found.values(), reverse=True)
        assert 0.05 < share_of_products(found) < 1, graph.target
        kinds = {"onnx-int8": "QAttention", "onnx-fp32": "Attention"}
        assert kinds.get(graph.target, "FullyConnected") in found


@pytest.mark.usefixtures("quick")
def test_the_command_writes_what_it_prints(
    shared_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, file = tmp_path / "out", tmp_path / "figures.json"
    options = ["--threads", "1", "--shapes", "1x16,2x8", "--rounds", "3", "--profile", "1x16"]
    command.main([str(shared_bundle), *options, "--json", str(file), "--out", str(out)])
    printed = capsys.readouterr().out
    record = read_record(file)
    names = ["limits.html", "limits.json", "limits.md"]
    assert sorted(path.name for path in out.iterdir()) == names
    assert (out / "limits.json").read_text() == file.read_text()
    assert (out / "limits.md").read_text() == markdown(command.report_of(record))
    assert str(tmp_path) not in file.read_text()
    name = shared_bundle.name
    assert [rounds.name for rounds in record.rounds] == [f"{name} 1x16", f"{name} 2x8"]
    for rounds in record.rounds:
        for target in ("onnx-int8", "openvino-int8", "onnx-fp32"):
            time, found = rounds.times[target], record.figures[f"{rounds.name} {target}"]
            assert target in printed
            assert 0 < found["roofline ms"] <= min(time.values)
            assert time.share_of_roofline == pytest.approx(found["roofline ms"] / time.median)
            assert found["operations to products"] > 0
            assert found["agreement"] > 0.4
        assert record.figures[f"{rounds.name} onnx-int8"]["agreement"] == 1
        assert {pair.to for pair in rounds.pairs} == {"int8 products", "fp32 products"}
    assert "QAttention" in printed


@pytest.mark.usefixtures("quick")
def test_without_a_bundle_the_machine_alone_is_measured(
    capsys: pytest.CaptureFixture[str],
) -> None:
    command.main(["--threads", "1"])
    printed = capsys.readouterr().out
    assert "ONNX Runtime QLinearMatMul" in printed
    assert "roofline" not in printed


def test_mistakes_are_told_in_a_line(
    shared_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for options, expected in (
        ([str(tmp_path / "none")], "no bundle at"),
        ([str(shared_bundle), "--shapes", "32"], "--shapes '32': expected BATCHxTOKENS"),
        ([str(shared_bundle), "--profile", "0x1"], "--profile '0x1': expected"),
        ([str(shared_bundle), "--rounds", "0"], "--rounds is 0, expected 1 or more"),
        ([str(shared_bundle)] * 2, "folders of one name"),
    ):
        with pytest.raises(SystemExit) as ended:
            command.main(options)
        assert ended.value.code == 2
        assert expected in capsys.readouterr().err
