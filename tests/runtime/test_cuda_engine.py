"""ONNX Runtime on a GPU, as far as a CPU can tell: bindings, buckets, and what is asked of CUDA.

The engine runs here with its buffers on the CPU, which binds inputs and outputs as a GPU does and
pays no heed to the ids of CUDA graphs. What a card would do with them is not seen here.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
import pytest

from mtl_edge import EdgeClassifier, engines
from mtl_edge.cli import main
from mtl_edge.engines import Logits, Setup, onnxruntime_cuda, onnxruntime_wheels
from mtl_edge.engines.onnxruntime import CPU_PROVIDER, create_session, session_options
from mtl_edge.engines.onnxruntime_cuda import BucketEngine, bucket_of
from mtl_edge.engines.onnxruntime_wheels import CUDA_PROVIDER, require_cuda
from mtl_edge.errors import EngineError, MissingPackageError, OutOfMemoryError, RunError

Ids = npt.NDArray[np.int64]
HERE = ("cpu", 0)
SHAPES = [(1, 2), (1, 7), (3, 16), (5, 33)]


def files_of(folder: Path, precision: str) -> list[Path]:
    """Of a bundle's ONNX graph."""
    weights = [folder / f"{part}.{precision}.bin" for part in ("encoder", "heads")]
    return [folder / f"model.{precision}.onnx", *weights]


def texts(batch: int, tokens: int) -> tuple[Ids, Ids]:
    """Random tokens, each text shorter than the one before."""
    ids = np.random.default_rng(batch * 1000 + tokens).integers(1000, 30000, (batch, tokens))
    mask = np.ones_like(ids)
    for row in range(1, batch):
        mask[row, max(1, tokens - 2 * row) :] = 0
    return ids * mask, mask


def answers(engine: engines.Engine) -> list[Logits]:
    return [engine.run(*texts(*shape)) for shape in SHAPES]


def assert_equal(found: list[Logits], expected: list[Logits], atol: float = 1e-5) -> None:
    for some, others in zip(found, expected, strict=True):
        assert some.keys() == others.keys()
        for task, values in others.items():
            assert some[task].dtype == np.float32
            np.testing.assert_allclose(some[task], values, atol=atol, rtol=0)


class Recorder:
    """A session that notes what it is asked for; `fails` says which runs raise."""

    def __init__(self, session: ort.InferenceSession) -> None:
        self._session = session
        self.graph_ids: list[int] = []
        self.fails: Callable[[int], str | None] = lambda graph_id: None

    def get_outputs(self) -> object:
        return self._session.get_outputs()

    def io_binding(self) -> object:
        return self._session.io_binding()

    def run_with_iobinding(self, binding: object, options: ort.RunOptions) -> None:
        graph_id = int(options.get_run_config_entry("gpu_graph_id"))
        self.graph_ids.append(graph_id)
        if message := self.fails(graph_id):
            raise RuntimeError(message)
        self._session.run_with_iobinding(binding, options)


@pytest.fixture
def recorder(shared_bundle: Path) -> Recorder:
    providers = [(CPU_PROVIDER, dict[str, str]())]
    files = files_of(shared_bundle, "fp32")
    return Recorder(create_session(files[0], session_options(1), providers))


def bucketed(recorder: Recorder, *, capture: bool = True, most: int = 128) -> BucketEngine:
    return BucketEngine(recorder, HERE, most, capture=capture)


@pytest.fixture(scope="module")
def exact(shared_bundle: Path) -> list[Logits]:
    """The answers of the plain engine."""
    return answers(engines.start("onnxruntime", files_of(shared_bundle, "fp32")))


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


def test_a_shape_is_captured_when_it_comes_again_and_padding_changes_no_answer(
    recorder: Recorder, exact: list[Logits]
) -> None:
    engine = bucketed(recorder)
    assert_equal(answers(engine), exact)
    assert recorder.graph_ids == [-1, 1, -1, -1], "two of the four shapes are of one bucket"
    assert_equal(answers(engine), exact)
    assert recorder.graph_ids[4:] == [1, 1, 2, 3]
    assert_equal(answers(engine), exact)
    assert recorder.graph_ids[8:] == [1, 1, 2, 3]


def test_a_captured_graph_s_buffers_keep_their_addresses(recorder: Recorder) -> None:
    engine = bucketed(recorder)
    found = []
    for row in range(4):
        engine.run(*texts(1, 3 + row))
        (bucket,) = engine._buckets.values()
        values = [*bucket._inputs.values(), *bucket._outputs]
        found.append([value.data_ptr() for value in values])
    assert found[0] == found[1] == found[2] == found[3]
    assert len(set(found[0])) == 4


def test_answers_are_the_caller_s_own_and_do_not_change_with_the_next_call(
    recorder: Recorder,
) -> None:
    engine = bucketed(recorder)
    for _ in range(3):
        first = engine.run(*texts(2, 9))
        before = {task: values.copy() for task, values in first.items()}
        engine.run(*texts(2, 11))
        for task, values in before.items():
            np.testing.assert_array_equal(first[task], values)


def test_a_session_that_may_not_capture_never_does(recorder: Recorder, exact: list[Logits]) -> None:
    engine = bucketed(recorder, capture=False)
    for _ in range(2):
        assert_equal(answers(engine), exact)
    assert set(recorder.graph_ids) == {-1}


def test_a_failed_capture_is_a_warning_and_the_answers_come_all_the_same(
    recorder: Recorder, exact: list[Logits]
) -> None:
    recorder.fails = lambda graph_id: "no graphs here" if graph_id > 0 else None
    engine = bucketed(recorder)
    with pytest.warns(RuntimeWarning, match="no graphs here") as warned:
        made = [answers(engine) for _ in range(3)]
    assert len(warned) == 1
    for each in made:
        assert_equal(each, exact)
    assert [each for each in recorder.graph_ids if each > 0] == [1]


def test_shapes_beyond_the_most_are_forgotten_and_come_again(
    recorder: Recorder, exact: list[Logits], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnxruntime_cuda, "MOST_GRAPHS", 1)
    monkeypatch.setattr(onnxruntime_cuda, "MOST_SHAPES", 2)
    engine = bucketed(recorder)
    for _ in range(3):
        assert_equal(answers(engine), exact)
    assert set(recorder.graph_ids) == {-1, 1}
    assert len(engine._buckets) == 2


def test_memory_that_runs_out_on_a_card_is_told_apart_from_other_failures(
    recorder: Recorder, exact: list[Logits]
) -> None:
    engine = bucketed(recorder)
    recorder.fails = lambda graph_id: "CUDA failure 2: out of memory"
    with pytest.raises(OutOfMemoryError, match="out of memory"):
        engine.run(*texts(2, 9))
    recorder.fails = lambda graph_id: "CUDA failure 700: illegal address"
    with pytest.raises(RunError, match=r"failed on \(2, 16\).*illegal address"):
        engine.run(*texts(2, 9))
    recorder.fails = lambda graph_id: None
    assert_equal(answers(engine), exact)


def test_threads_share_an_engine(recorder: Recorder, exact: list[Logits]) -> None:
    engine = bucketed(recorder)
    with ThreadPoolExecutor(4) as pool:
        for made in pool.map(lambda _: answers(engine), range(8)):
            assert_equal(made, exact)


class Opened:
    """Stands in for sessions: what was asked for, and the provider that each one got."""

    def __init__(self, *outcomes: str | Exception) -> None:
        self.outcomes = list(outcomes)
        self.asked: list[dict[str, str]] = []

    def __call__(self, files: object, options: object, providers: list[tuple[str, dict[str, str]]]
                 ) -> object:  # fmt: skip
        assert [name for name, _ in providers] == [CUDA_PROVIDER, CPU_PROVIDER]
        self.asked.append(providers[0][1])
        outcome = self.outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return type("Session", (), {"get_providers": lambda self: [outcome, CPU_PROVIDER]})()


@pytest.fixture
def on_cuda(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Opened]:
    """A machine on which ONNX Runtime has CUDA and opens sessions as it is told."""

    def pretend(*outcomes: str | Exception) -> Opened:
        opened = Opened(*outcomes)
        wheels(monkeypatch, "onnxruntime-gpu")
        monkeypatch.setattr(ort, "get_available_providers", lambda: [CUDA_PROVIDER, CPU_PROVIDER])
        monkeypatch.setattr(ort, "preload_dlls", lambda: print("Failed to load libcudnn.so.9"))
        monkeypatch.setattr(onnxruntime_cuda, "create_session", opened)
        return opened

    return pretend


def wheels(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """Let just these distributions of ONNX Runtime be installed."""

    def version(name: str) -> str:
        if name not in names:
            raise metadata.PackageNotFoundError(name)
        return "1.31.0"

    monkeypatch.setattr(metadata, "version", version)


def test_a_card_is_asked_for_by_its_number_with_graphs_and_exact_products(
    on_cuda: Callable[..., Opened],
) -> None:
    for device, number in (("CUDA", "0"), ("CUDA:1", "1")):
        opened = on_cuda(CUDA_PROVIDER)
        engine = engines.start("onnxruntime", [Path("x")], Setup(precision="fp16", device=device))
        assert isinstance(engine, BucketEngine)
        assert opened.asked == [{"use_tf32": "0", "device_id": number, "enable_cuda_graph": "1"}]
        assert (engine._device, engine._capture) == (("cuda", int(number)), True)


def test_a_graph_that_cannot_be_captured_runs_without_and_int8_says_why(
    on_cuda: Callable[..., Opened],
) -> None:
    opened = on_cuda(RuntimeError("cannot use the CUDA Graph feature"), CUDA_PROVIDER)
    with pytest.warns(RuntimeWarning, match=r"int8.*onnx-fp16"):
        engine = engines.start("onnxruntime", [Path("x")], Setup(device="CUDA"))
    assert isinstance(engine, BucketEngine)
    assert not engine._capture
    assert opened.asked[1] == {"use_tf32": "0", "device_id": "0"}


def test_a_card_that_does_not_start_is_an_error_never_the_cpu(
    on_cuda: Callable[..., Opened], capsys: pytest.CaptureFixture[str]
) -> None:
    on_cuda(CPU_PROVIDER)
    with pytest.raises(EngineError, match=r"would run on the CPU: .*driver.*libcudnn\.so\.9"):
        engines.start("onnxruntime", [Path("x")], Setup(device="CUDA"))
    on_cuda(RuntimeError("capture"), RuntimeError("invalid device ordinal"))
    with pytest.raises(EngineError, match="cannot open x: invalid device ordinal"):
        engines.start("onnxruntime", [Path("x")], Setup(device="CUDA:99"))
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("device", ["CUDA:", "CUDA:one", "CUDA:-1"])
def test_a_card_without_a_number_is_told(shared_bundle: Path, device: str) -> None:
    with pytest.raises(EngineError, match=f"no device '{device}'; expected CUDA, or as CUDA:1"):
        EdgeClassifier.load(shared_bundle, target="onnx-int8", device=device)


def test_each_mix_of_onnx_runtime_s_packages_has_its_own_cure(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    both, cpu = [CUDA_PROVIDER, CPU_PROVIDER], [CPU_PROVIDER]
    wheels(monkeypatch, "onnxruntime", "onnxruntime-gpu")
    cure = r"pip uninstall onnxruntime onnxruntime-gpu`, then `pip install onnxruntime-gpu`"
    for known in (both, cpu):
        with pytest.raises(EngineError, match=rf"both installed.*{cure}"):
            require_cuda("CUDA", known)
    wheels(monkeypatch, "onnxruntime")
    with pytest.raises(MissingPackageError, match=rf"no device 'CUDA'; it has CPU.*{cure}"):
        require_cuda("CUDA", cpu)
    wheels(monkeypatch, "onnxruntime-gpu")
    with pytest.raises(EngineError, match="no device 'CUDA' here, only CPU: the driver") as caught:
        require_cuda("CUDA", cpu)
    assert not isinstance(caught.value, MissingPackageError)
    require_cuda("CUDA", both)
    wheels(monkeypatch)  # built from source, or another package manager's
    require_cuda("CUDA", both)


def test_info_tells_of_two_packages_in_each_other_s_way(
    shared_bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    names = {"onnxruntime", "onnxruntime-gpu"}
    monkeypatch.setattr(onnxruntime_wheels, "installed", lambda: names)
    assert main(["info", str(shared_bundle), "--engines"]) == 0
    assert "both installed" in capsys.readouterr().out
    names.remove("onnxruntime-gpu")
    assert main(["info", str(shared_bundle), "--engines"]) == 0
    assert "both installed" not in capsys.readouterr().out


def test_an_fp16_graph_answers_as_float32_does(
    checkpoint: Path, tmp_path: Path, exact: list[Logits]
) -> None:
    out = tmp_path / "bundle"
    assert main(["export", str(checkpoint), "--out", str(out), "--targets", "onnx-fp16"]) == 0
    files = files_of(out, "fp16")
    half = answers(engines.start("onnxruntime", files, Setup(precision="fp16")))
    assert_equal(half, exact, atol=0.01)
    session = create_session(files[0], session_options(1), [(CPU_PROVIDER, {})])
    kinds = {each.type for each in (*session.get_inputs(), *session.get_outputs())}
    assert kinds == {"tensor(int64)", "tensor(float)"}, "the runtime need not know of float16"
    bound = BucketEngine(session, HERE, 128, capture=False)
    assert_equal([r for _ in range(2) for r in answers(bound)], [*half, *half], atol=2e-3)


@pytest.mark.skipif(
    CUDA_PROVIDER not in ort.get_available_providers(), reason="ONNX Runtime has no CUDA here"
)
def test_on_a_gpu_the_answers_are_the_cpu_s(shared_bundle: Path, exact: list[Logits]) -> None:
    setup = Setup(max_tokens=128, precision="fp32", device="CUDA")
    engine = engines.start("onnxruntime", files_of(shared_bundle, "fp32"), setup)
    for _ in range(4):  # kernel by kernel, captured, replayed
        assert_equal(answers(engine), exact, atol=1e-4)
