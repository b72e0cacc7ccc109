"""The torch engine answers as ONNX Runtime does, from the same files."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import pytest
import torch
from torch import Tensor

from mtl_edge import engines
from mtl_edge.cli import main
from mtl_edge.engines import Logits, Setup, torch_buckets
from mtl_edge.engines.onnx_lowering import lower
from mtl_edge.engines.onnx_reader import read
from mtl_edge.engines.torch_buckets import BucketEngine, bucket_of
from mtl_edge.engines.torch_inputs import Limits
from mtl_edge.engines.torch_program import Program, compile_graph
from mtl_edge.errors import EngineError, MissingPackageError
from tests.export.test_architectures import save_backbone

Ids = npt.NDArray[np.int64]
SHAPES = [(1, 2), (1, 7), (3, 16), (5, 33)]
HOST = torch.device("cpu")

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU with CUDA")


def files_of(folder: Path, precision: str) -> list[Path]:
    """Of a bundle's ONNX graph."""
    weights = [folder / f"{part}.{precision}.bin" for part in ("encoder", "heads")]
    return [folder / f"model.{precision}.onnx", *weights]


def texts(batch: int, tokens: int) -> tuple[Ids, Ids]:
    """Random tokens, each text shorter than the one before."""
    generator = np.random.default_rng(batch * 1000 + tokens)
    ids = generator.integers(1000, 30000, (batch, tokens), np.int64)
    mask = np.ones_like(ids)
    for row in range(1, batch):
        mask[row, max(1, tokens - 2 * row) :] = 0
    return ids * mask, mask


def answers(engine: engines.Engine) -> list[Logits]:
    return [engine.run(*texts(*shape)) for shape in SHAPES]


def difference(some: list[Logits], others: list[Logits]) -> float:
    """Root of the mean squared difference of all logits."""
    pairs = [(a[task], b[task]) for a, b in zip(some, others, strict=True) for task in b]
    assert all(a.shape == b.shape and a.dtype == np.float32 for a, b in pairs)
    return float(np.sqrt(np.mean(np.concatenate([((a - b) ** 2).ravel() for a, b in pairs]))))


def labels(some: list[Logits]) -> list[int]:
    return [int(label) for made in some for values in made.values() for label in values.argmax(1)]


@pytest.fixture(scope="module")
def half_bundle(tmp_path_factory: pytest.TempPathFactory, checkpoint: Path) -> Path:
    out = tmp_path_factory.mktemp("half") / "bundle"
    assert main(["export", str(checkpoint), "--out", str(out), "--targets", "onnx-fp16"]) == 0
    return out


@pytest.fixture(scope="module")
def exact(shared_bundle: Path) -> list[Logits]:
    """ONNX Runtime's answers in float32."""
    return answers(engines.start("onnxruntime", files_of(shared_bundle, "fp32")))


def program_of(folder: Path, precision: str, encoder: torch.dtype = torch.float32) -> Program:
    return compile_graph(lower(read(files_of(folder, precision))), HOST, encoder)


def damaged(folder: Path, change: Callable[[onnx.ModelProto], None]) -> list[Path]:
    """The bundle's fp32 graph, changed."""
    files = files_of(folder, "fp32")
    model = onnx.load(str(files[0]), load_external_data=False)
    change(model)
    onnx.save(model, str(files[0]))
    return files


def test_float32_logits_are_onnx_runtimes(shared_bundle: Path, exact: list[Logits]) -> None:
    made = answers(engines.start("torch", files_of(shared_bundle, "fp32"), Setup(precision="fp32")))
    for ours, theirs in zip(made, exact, strict=True):
        assert ours.keys() == theirs.keys()
        for task in theirs:
            np.testing.assert_allclose(ours[task], theirs[task], atol=1e-4, rtol=0)


def test_an_int8_graph_is_as_near_to_float32_as_in_onnx_runtime(
    shared_bundle: Path, exact: list[Logits]
) -> None:
    files = files_of(shared_bundle, "int8")
    ours, theirs = (answers(engines.start(name, files)) for name in ("torch", "onnxruntime"))
    assert 0 < difference(ours, exact) < 1.1 * difference(theirs, exact)
    assert difference(ours, theirs) < difference(theirs, exact)
    assert np.mean(np.equal(labels(ours), labels(theirs))) >= 0.9


def test_smaller_word_tables_answer_as_in_onnx_runtime(
    smaller_bundle: Path, exact: list[Logits]
) -> None:
    files = files_of(smaller_bundle, "int8")
    ours, theirs = (answers(engines.start(name, files)) for name in ("torch", "onnxruntime"))
    assert difference(ours, theirs) < 0.2 * difference(theirs, exact)


def test_an_fp16_graph_answers_as_in_onnx_runtime(half_bundle: Path) -> None:
    files = files_of(half_bundle, "fp16")
    ours, theirs = (
        answers(engines.start(name, files, Setup(precision="fp16")))
        for name in ("torch", "onnxruntime")
    )
    assert difference(ours, theirs) < 1e-3
    assert labels(ours) == labels(theirs)


@pytest.mark.parametrize("precision", ["fp32", "int8", "fp16"])
@pytest.mark.parametrize("encoder", [torch.float16, torch.bfloat16])
def test_an_encoder_in_16_bits_keeps_the_answers(
    shared_bundle: Path,
    half_bundle: Path,
    exact: list[Logits],
    precision: str,
    encoder: torch.dtype,
) -> None:
    """What a GPU computes in, on the CPU."""
    folder = half_bundle if precision == "fp16" else shared_bundle
    engine = BucketEngine(program_of(folder, precision, encoder), Limits(None, None), Host())
    spread = np.std(np.concatenate([v.ravel() for made in exact for v in made.values()]))
    tolerance = 0.02 if encoder is torch.float16 else 0.1
    assert difference(answers(engine), exact) < tolerance * spread


def test_the_same_shape_answers_the_same_again(shared_bundle: Path) -> None:
    """The first call of a shape computes more than the others."""
    engine = engines.start("torch", files_of(shared_bundle, "fp32"))
    assert difference(answers(engine), answers(engine)) == 0


def test_threads_share_an_engine(shared_bundle: Path) -> None:
    files = files_of(shared_bundle, "int8")
    bucketed = BucketEngine(program_of(shared_bundle, "int8"), Limits(None, None), Host())
    for engine in (engines.start("torch", files), bucketed):
        alone = answers(engine)
        with ThreadPoolExecutor(4) as pool:
            for made in pool.map(lambda _, e=engine: answers(e), range(8)):
                assert difference(made, alone) == 0


def test_the_callers_settings_of_torch_are_left_alone_and_do_no_harm(
    shared_bundle: Path, exact: list[Logits]
) -> None:
    threads = torch.get_num_threads()
    torch.set_default_dtype(torch.float64)
    try:
        with torch.device("meta"), torch.autocast("cpu", torch.bfloat16):
            engine = engines.start("torch", files_of(shared_bundle, "fp32"), Setup(threads=1))
            made = answers(engine)
            assert torch.get_default_dtype() is torch.float64
            assert torch.is_autocast_enabled("cpu")
    finally:
        torch.set_default_dtype(torch.float32)
    assert difference(made, exact) < 1e-5
    assert torch.get_num_threads() == threads
    assert not torch.is_inference_mode_enabled()


def test_an_unknown_operator_is_named_at_load(bundle: Path) -> None:
    def change(model: onnx.ModelProto) -> None:
        next(node for node in model.graph.node if node.op_type == "Erf").op_type = "Det"

    with pytest.raises(EngineError, match="operators Det"):
        engines.start("torch", damaged(bundle, change))


def test_an_attention_with_options_it_does_not_know_is_refused(bundle: Path) -> None:
    def change(model: onnx.ModelProto) -> None:
        node = next(node for node in model.graph.node if node.op_type == "Attention")
        node.attribute.append(onnx.helper.make_attribute("do_rotary", 1))

    with pytest.raises(EngineError, match="do_rotary"):
        engines.start("torch", damaged(bundle, change))


def test_weights_from_outside_the_bundle_are_refused(bundle: Path) -> None:
    def change(model: onnx.ModelProto) -> None:
        for constant in model.graph.initializer:
            for entry in constant.external_data:
                if entry.key == "location":
                    entry.value = "../elsewhere.bin"

    with pytest.raises(EngineError, match=r"\.\./elsewhere\.bin"):
        engines.start("torch", damaged(bundle, change))


def test_a_file_that_is_cut_short_or_no_graph_is_refused(bundle: Path) -> None:
    files = files_of(bundle, "fp32")
    weights = files[1].read_bytes()
    files[1].write_bytes(weights[: len(weights) // 2])
    with pytest.raises(EngineError, match="cannot read"):
        engines.start("torch", files)
    shutil.copy(bundle / "tokenizer.json", files[0])
    with pytest.raises(EngineError, match="cannot read"):
        engines.start("torch", files)


def test_a_device_that_is_not_there_is_an_error_that_lists_those_that_are(
    shared_bundle: Path,
) -> None:
    with pytest.raises(EngineError, match="no device 'CUDA:99' here; it finds CPU"):
        engines.start("torch", files_of(shared_bundle, "fp32"), Setup(device="CUDA:99"))


def test_inputs_that_the_graph_cannot_take_are_errors(shared_bundle: Path) -> None:
    engine = engines.start("torch", files_of(shared_bundle, "int8"), Setup(max_tokens=128))
    ids, mask = texts(2, 8)
    with pytest.raises(EngineError, match="0 to 30521, got 30522"):
        engine.run(ids + 30522 - ids.max(), mask)
    with pytest.raises(EngineError, match="got -1"):
        engine.run(ids - 1, mask)
    with pytest.raises(EngineError, match="at most 128 tokens, got 129"):
        engine.run(*texts(1, 129))
    with pytest.raises(EngineError, match="one shape"):
        engine.run(ids, mask[:1])
    with pytest.raises(EngineError, match="not finite"):
        engine.run(ids, 0 * mask)


def test_without_onnx_the_extra_is_named(
    shared_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    assert not engines.available("torch")
    with pytest.raises(MissingPackageError, match=r"package onnx.*mtl-edge\[torch\]"):
        engines.start("torch", files_of(shared_bundle, "fp32"))
    with pytest.raises(MissingPackageError, match=r"mtl-edge\[torch\]"):
        read(files_of(shared_bundle, "fp32"))


def test_auto_counts_torch_where_there_is_cuda_alone() -> None:
    assert not engines.automatic("torch", "CPU")
    assert engines.automatic("torch", "CUDA")
    assert engines.automatic("torch", "CUDA:1")


class Host:
    """The CPU in the place of a GPU: a graph is the work done again, into the same results."""

    device = HOST
    pinned = False

    def __init__(self, failure: str | None = None) -> None:
        self.captures, self.replays = 0, 0
        self._failure = failure

    def active(self) -> AbstractContextManager[None]:
        return nullcontext()

    def capture(
        self, work: Callable[[], dict[str, Tensor]]
    ) -> tuple[Callable[[], object], dict[str, Tensor]]:
        if self._failure:
            raise RuntimeError(self._failure)
        self.captures += 1
        made = work()

        def replay() -> None:
            self.replays += 1
            for name, value in work().items():
                made[name].copy_(value)

        return replay, made

    def wait(self) -> None:
        pass


def test_a_shape_is_captured_when_it_comes_again_and_padding_changes_no_answer(
    shared_bundle: Path, exact: list[Logits]
) -> None:
    host = Host()
    engine = BucketEngine(program_of(shared_bundle, "fp32"), Limits(128, None), host)
    first = answers(engine)
    assert (host.captures, host.replays) == (1, 1), "two of the four shapes are of one bucket"
    assert difference(first, exact) < 1e-5
    again = answers(engine)
    assert (host.captures, host.replays) == (3, 5)
    assert difference(again, first) == 0


def test_a_failed_capture_is_a_warning_and_the_answers_come_all_the_same(
    shared_bundle: Path, exact: list[Logits]
) -> None:
    program = program_of(shared_bundle, "fp32")
    engine = BucketEngine(program, Limits(128, None), Host("no graphs here"))
    with pytest.warns(RuntimeWarning, match="no graphs here") as warned:
        made = [answers(engine) for _ in range(2)][-1]
    assert len(warned) == 1
    assert difference(made, exact) < 1e-5


def test_shapes_beyond_the_most_are_forgotten_and_come_again(
    shared_bundle: Path, exact: list[Logits], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch_buckets, "MOST_GRAPHS", 1)
    monkeypatch.setattr(torch_buckets, "MOST_SHAPES", 2)
    host = Host()
    engine = BucketEngine(program_of(shared_bundle, "fp32"), Limits(128, None), host)
    for _ in range(3):
        assert difference(answers(engine), exact) < 1e-5
    assert host.captures == 1


@pytest.mark.parametrize(
    ("rows", "tokens", "bucket"),
    [
        (1, 2, (1, 16)),
        (3, 16, (3, 16)),
        (5, 17, (6, 32)),
        (7, 120, (8, 120)),
        (9, 100, (12, 112)),
        (33, 1, (48, 16)),
        (64, 113, (64, 120)),
    ],
)
def test_shapes_are_rounded_up_by_a_half_at_most(
    rows: int, tokens: int, bucket: tuple[int, int]
) -> None:
    assert bucket_of(rows, tokens, max_tokens=120) == bucket


@needs_cuda
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_on_a_gpu_the_answers_are_the_cpus(
    shared_bundle: Path, exact: list[Logits], precision: str
) -> None:
    files = files_of(shared_bundle, precision)
    gpu, cpu = (
        engines.start("torch", files, Setup(None, 128, precision, device))
        for device in ("CUDA", "CPU")
    )
    expected = answers(cpu)
    spread = np.std(np.concatenate([v.ravel() for made in exact for v in made.values()]))
    tolerance = 1e-4 if precision == "fp32" else 0.02 * spread
    first, *others = (answers(gpu) for _ in range(4))  # stepwise, captured, replayed
    assert difference(first, expected) < tolerance
    for again in others:
        assert difference(again, expected) < tolerance
    assert difference(others[-2], others[-1]) == 0


@needs_cuda
def test_on_a_gpu_threads_get_equal_answers(shared_bundle: Path) -> None:
    engine = engines.start(
        "torch", files_of(shared_bundle, "int8"), Setup(None, 128, "int8", "CUDA:0")
    )
    alone = [answers(engine) for _ in range(3)][-1]
    with ThreadPoolExecutor(4) as pool:
        for made in pool.map(lambda _: answers(engine), range(16)):
            assert difference(made, alone) == 0


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["albert", "deberta-v2", "modernbert", "roberta"])
def test_encoders_that_do_not_fuse_answer_as_in_onnx_runtime(
    architecture: str, minilm: Path, rows: Path, tmp_path: Path
) -> None:
    save_backbone(architecture, minilm, tmp_path / "backbone")
    train = ["train", "--backbone", str(tmp_path / "backbone"), "--task", f"topic={rows}"]
    assert main([*train, "--epochs", "1", "--out", str(tmp_path / "checkpoint")]) == 0
    export = ["export", str(tmp_path / "checkpoint"), "--out", str(tmp_path / "bundle")]
    assert main([*export, "--targets", "onnx-fp32,onnx-int8"]) == 0
    exact = answers(engines.start("onnxruntime", files_of(tmp_path / "bundle", "fp32")))
    ours = answers(engines.start("torch", files_of(tmp_path / "bundle", "fp32")))
    assert difference(ours, exact) < 1e-5
    rounded, theirs = (
        answers(engines.start(name, files_of(tmp_path / "bundle", "int8")))
        for name in ("torch", "onnxruntime")
    )
    assert difference(rounded, exact) < 1.5 * difference(theirs, exact)
