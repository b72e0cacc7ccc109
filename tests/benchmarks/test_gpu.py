"""The GPU's harness runs whole on the CPU; without a GPU it says so."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from mtl_edge.benchmarks.gpu import card, clock, command, measure, report, ways
from mtl_edge.benchmarks.gpu.measure import Effort
from mtl_edge.benchmarks.gpu.ways import Subject
from mtl_edge.bundle import open_bundle
from mtl_edge.training.checkpoint import load_checkpoint

HOST = torch.device("cpu")
EFFORT = Effort(((1, 8), (2, 16)), 2, 2, sides=(32,), sizes=(2**16, 2**18))
PICTURE = b"\x89PNG"

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU with CUDA")
without_cuda = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def written(
    shared_bundle: Path, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """What the command writes on the CPU, in tiny shapes."""
    out = tmp_path_factory.mktemp("gpu") / "out"
    options = ["--checkpoint", str(checkpoint), "--device", "cpu", "--out", str(out)]
    command.main([str(shared_bundle), *options, "--data", f"topic={rows_of(out.parent)}"], EFFORT)
    return out


def rows_of(folder: Path) -> Path:
    """Three labelled rows."""
    file = folder / "rows.csv"
    file.write_text(
        "text,label\nthe parcel was late,gadgets\nthe train was late,travel\nok,money\n"
    )
    return file


@pytest.mark.slow
def test_every_way_is_measured_checked_and_drawn(written: Path, shared_bundle: Path) -> None:
    assert sorted(file.name for file in written.iterdir()) == ["gpu.json", "gpu.md", "gpu.png"]
    assert (written / "gpu.png").read_bytes()[:4] == PICTURE
    figures = json.loads((written / "gpu.json").read_text())
    assert report.markdown(figures) == (written / "gpu.md").read_text()
    assert [*figures["shapes"]] == ["1x8", "2x16"]
    wanted = {*ways.EAGER, *ways.COMPILED}
    wanted |= {f"{ways.OURS}, onnx-{precision}" for precision in ("int8", "fp32")}
    for found in figures["shapes"].values():
        assert wanted <= found.keys()
        for name, own in found.items():
            assert "failed" not in own, own
            assert own["whole_ms"]["median"] > 0
            assert own["reached"] > 0
            assert (own["ms"] is None) == ("torch engine" in name or "ONNX" in name)
    assert set(figures["limits"]["tops"]) == {"fp16", "bf16", "tf32", "fp32"}
    assert min(figures["limits"]["tops"].values()) > 0
    assert "no GPU: cpu" in report.markdown(figures)


@pytest.mark.slow
def test_each_precision_is_scored_on_the_rows(written: Path) -> None:
    found = json.loads((written / "gpu.json").read_text())["scores"]["topic"]
    assert found["rows"] == 3
    assert found["ways"]["torch fp32"]["agreement"] == 1
    assert {"torch fp16", "torch bf16", f"{ways.OURS}, onnx-int8"} <= found["ways"].keys()
    assert all(0 <= score["accuracy"] <= 1 for score in found["ways"].values())


@without_cuda
def test_without_a_gpu_the_report_says_so_and_how_to_run_it(
    shared_bundle: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "gpu"
    options = [str(shared_bundle), "--checkpoint", str(checkpoint), "--out", str(out)]
    command.main(options)
    text = (out / "gpu.md").read_text()
    assert "Not measured here" in text
    assert report.COMMAND in text
    assert text in capsys.readouterr().out
    (out / "gpu.json").write_text("{}")
    (out / "gpu.md").write_text("measured elsewhere")
    command.main(options)
    assert (out / "gpu.md").read_text() == "measured elsewhere"
    assert "are kept" in capsys.readouterr().out


@pytest.fixture(scope="module")
def subject(shared_bundle: Path, checkpoint: Path) -> Subject:
    return Subject(open_bundle(shared_bundle), load_checkpoint(checkpoint), HOST)


def test_a_way_that_answers_otherwise_is_not_timed(subject: Subject) -> None:
    """Nor is one that does not start; both stand in the report with the reason."""
    all_ways = ways.ways_of(subject)

    def wrong(of: Subject) -> ways.Way:
        right = all_ways[ways.REFERENCE].make(of)

        def whole(ids: Any, mask: Any) -> Any:
            return {task: logits + 1 for task, logits in right.whole(ids, mask).items()}

        return ways.Way("wrong", "fp32", "fp32", whole)

    def broken(of: Subject) -> ways.Way:
        raise RuntimeError("no such kernel\nsecond line")

    chosen = {
        ways.REFERENCE: all_ways[ways.REFERENCE],
        "wrong": ways.WayInfo("wrong", wrong),
        "broken": ways.WayInfo("broken", broken, per_shape=True),
    }
    figures = measure.measure(subject, chosen, {}, clock.HostClock(), EFFORT)
    found = figures["shapes"]["1x8"]
    assert found[ways.REFERENCE]["difference"] == 0
    assert "differ from torch fp32's" in found["wrong"]["failed"]
    assert found["broken"]["failed"] == "RuntimeError: no such kernel"
    assert "whole_ms" not in found["wrong"]
    text = report.markdown({"command": "x", **figures})
    assert "- broken at 1x8: RuntimeError: no such kernel" in text


def test_padding_is_compared_too(subject: Subject) -> None:
    """A way that reads what stands behind a text is found, although texts are timed full."""
    right = ways.ways_of(subject)[ways.REFERENCE].make(subject)

    def whole(ids: Any, mask: Any) -> Any:
        return right.whole(ids, mask | 1)

    deaf = {
        ways.REFERENCE: ways.WayInfo(ways.REFERENCE, lambda of: right),
        "deaf": ways.WayInfo("deaf", lambda of: ways.Way("deaf", "fp32", "fp32", whole)),
    }
    figures = measure.measure(subject, deaf, {}, clock.HostClock(), EFFORT)
    assert "failed" in figures["shapes"]["2x16"]["deaf"]


class Counted:
    """A clock by which every call takes as long as it is told."""

    def __init__(self, ms: float) -> None:
        self.ms_each, self.asked = ms, [0]

    def ms(self, call: Callable[[], object], iterations: int) -> list[float]:
        self.asked.append(iterations)
        return [self.ms_each] * iterations


def test_rounds_alternate_and_slow_calls_are_made_less_often() -> None:
    order: list[str] = []
    fast, slow = Counted(0.1), Counted(90.0)
    calls: dict[str, tuple[Callable[[], object], clock.Clock]] = {
        "fast": (lambda: order.append("fast"), fast),
        "slow": (lambda: order.append("slow"), slow),
    }
    times = clock.alternate(calls, rounds=4, iterations=50)
    assert order == ["fast", "slow", "slow", "fast"] * 2
    assert fast.asked[2:] == [50] * 4
    assert slow.asked[2:] == [2] * 4
    assert times["slow"].rounds == (90.0,) * 4


def test_the_hosts_clock_times_each_call() -> None:
    made: list[int] = []
    assert len(clock.HostClock().ms(lambda: made.append(1), 7)) == len(made) == 7
    assert isinstance(clock.clock_of(HOST), clock.HostClock)


class Event:
    """A CUDA event as far as the clock uses it: it tells how many calls were made before it."""

    made: Sequence[int] = ()

    def __init__(self, enable_timing: bool) -> None:
        assert enable_timing
        self.at = -1

    def record(self) -> None:
        self.at = len(self.made)

    def elapsed_time(self, other: Event) -> float:
        return float(other.at - self.at)


def test_a_gpus_clock_has_an_event_on_each_side_of_a_call(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    waits: list[int] = []
    monkeypatch.setattr(Event, "made", made)
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: waits.append(len(made)))
    cuda = torch.device("cuda:0")
    assert isinstance(clock.clock_of(cuda), clock.CudaClock)
    assert clock.clock_of(cuda).ms(lambda: made.append(1), 5) == [1.0] * 5
    assert waits == [0, 5]


def test_a_cards_limits_are_the_best_of_all_sides() -> None:
    class Halved:
        """Twice as fast with every call of a kind."""

        def ms(self, call: Callable[[], object], iterations: int) -> list[float]:
            return [2.0, 1.0]

    found = card.measure(HOST, Halved(), sides=(16, 32), sizes=(2**16,))
    assert found.tops["fp16"] == pytest.approx(2 * 32**3 / 1e9)
    assert found.read_at(1) == found.reads[0].gb_s
    before = torch.get_float32_matmul_precision()
    with card.float32_products("high"):
        assert torch.get_float32_matmul_precision() == "high"
    assert torch.get_float32_matmul_precision() == before


def test_mistakes_are_told_in_a_line(
    shared_bundle: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = [str(shared_bundle), "--checkpoint", str(checkpoint), "--device", "cpu"]
    base += ["--out", str(tmp_path / "out")]
    for options, expected in (
        (["--ways", "abacus"], "no such way; there are torch fp32"),
        (["--shapes", "1x4096"], "takes 128 at most"),
        (["--rounds", "0"], "--rounds is 0, expected 1 or more"),
        (["--data", f"colour={checkpoint}"], "--data colour: no such task"),
    ):
        with pytest.raises(SystemExit) as ended:
            command.main([*base, *options])
        assert ended.value.code == 2
        assert expected in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@needs_cuda
@pytest.mark.slow
def test_on_a_gpu_every_way_runs(shared_bundle: Path, checkpoint: Path, tmp_path: Path) -> None:
    options = ["--checkpoint", str(checkpoint), "--shapes", "1x16,4x32", "--rounds", "3"]
    command.main([str(shared_bundle), *options, "--out", str(tmp_path / "out")])
    figures = json.loads((tmp_path / "out" / "gpu.json").read_text())
    for found in figures["shapes"].values():
        failed = [own["failed"] for name, own in found.items() if "failed" in own]
        assert not [reason for reason in failed if "differ" in reason]
        assert "failed" not in found[f"{ways.OURS}, onnx-fp32"]
        assert all(own["reached"] < 1.05 for own in found.values() if "failed" not in own)
