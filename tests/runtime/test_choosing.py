"""`auto`: one short measurement per machine and bundle, kept, and read by one rule."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import platformdirs
import pytest
from platformdirs import windows
from platformdirs.macos import MacOS

from mtl_edge import choosing, engines
from mtl_edge.bundle import BackboneInfo, Bundle, FileEntry, Graph, Manifest, Task
from mtl_edge.choosing import choose, choose_graph, machine, measurement, start_chosen
from mtl_edge.choosing.ranking import ranked
from mtl_edge.cli import main
from mtl_edge.engines import Logits, Setup
from mtl_edge.engines.cores import default_threads
from mtl_edge.errors import EngineError, MissingPackageError, OptionError
from mtl_edge.timing import Timing

ONNX = Graph("onnx-int8", "onnxruntime", "int8", "a.onnx", latency_ms=2.0)
OPENVINO = Graph("openvino-int8", "openvino", "int8", "b.xml", latency_ms=3.0)
WIDE = Graph("onnx-fp32", "onnxruntime", "fp32", "c.onnx", latency_ms=9.0)


def bundle_of(*graphs: Graph, digest: str = "0" * 64) -> Bundle:
    files = tuple(FileEntry(g.file, 1, digest) for g in graphs)
    tasks = (Task("topic", ("a", "b")),)
    backbone = BackboneInfo("tiny", "bert", None, "0" * 64, 8, 2, 100)
    return Bundle(Path("nowhere"), Manifest(2, tasks, backbone, 2, 64, graphs, files))


class Sleeper:
    """An engine that takes so many milliseconds, whatever it is asked."""

    def __init__(self, ms: float) -> None:
        self.ms = ms
        self.shapes: list[tuple[int, ...]] = []
        self.closed = False

    multiple, tokens_per_batch, fixed_shapes = 1, 1024, ()

    def run(self, input_ids: np.ndarray, attention_mask: np.ndarray) -> Logits:  # type: ignore[type-arg]
        assert input_ids.max() < 100
        assert attention_mask.all()
        self.shapes.append(input_ids.shape)
        time.sleep(self.ms / 1e3)
        return {}

    def close(self) -> None:
        self.closed = True


class Bench:
    """Stands in for real engines: how long each graph takes, and what was started."""

    def __init__(self) -> None:
        self.ms: dict[str, float | Exception] = {
            "onnx-int8": 4.0, "openvino-int8": 1.0, "onnx-fp32": 8.0,
        }  # fmt: skip
        self.started: list[tuple[str, Sleeper]] = []

    def start(self, bundle: Bundle, graph: Graph, setup: Setup) -> Sleeper:
        found = self.ms[graph.target]
        if isinstance(found, Exception):
            raise found
        self.started.append((graph.target, Sleeper(found)))
        return self.started[-1][1]

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.started]


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Bench:
    result = Bench()
    monkeypatch.setenv("MTL_EDGE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("MTL_EDGE_MEASURE", raising=False)
    monkeypatch.setattr(choosing, "bundle_engine", result.start)
    monkeypatch.setattr(engines, "available", lambda name: name in ("onnxruntime", "openvino"))
    return result


def the_record(tmp_path: Path) -> Path:
    (record,) = (tmp_path / "cache" / "engines").iterdir()
    return record


def test_the_engine_that_is_faster_here_runs_whatever_export_found(bench: Bench) -> None:
    choice, engine = start_chosen(bundle_of(ONNX, OPENVINO))
    assert choice.graph == OPENVINO
    assert "openvino-int8 is" in choice.reason
    assert "times as fast as onnx-int8, measured here at 20" in choice.reason
    # The winner goes on, as it is; the other was closed.
    assert bench.names == ["onnx-int8", "openvino-int8"]
    assert engine is bench.started[1][1]
    assert [e.closed for _, e in bench.started] == [True, False]
    assert {(1, 12), (1, 26), (8, 26)} == set(bench.started[1][1].shapes)


def test_the_second_load_measures_nothing_and_starts_one_engine(bench: Bench) -> None:
    first, _ = start_chosen(bundle_of(ONNX, OPENVINO))
    bench.started.clear()
    bench.ms = {"onnx-int8": 0.1, "openvino-int8": 9.0}  # were it measured, it would lose
    second, engine = start_chosen(bundle_of(ONNX, OPENVINO))
    assert bench.names == ["openvino-int8"]
    assert engine is bench.started[0][1]
    assert bench.started[0][1].shapes == []
    assert second.graph == first.graph
    assert second.measurement is not None
    assert first.measurement is not None
    assert second.measurement.taken == first.measurement.taken


def test_the_measurement_takes_about_a_second(bench: Bench) -> None:
    bench.ms = {"onnx-int8": 40.0, "openvino-int8": 35.0}  # as a large model on a small machine
    began = time.perf_counter()
    choice = choose(bundle_of(ONNX, OPENVINO))
    assert time.perf_counter() - began < 3
    assert choice.measurement is not None
    assert list(choice.measurement.timings["onnx-int8"]) == ["1x12"]
    assert len(choice.measurement.timings["onnx-int8"]["1x12"].rounds) >= 3


def test_what_there_is_only_one_of_is_not_measured(bench: Bench, tmp_path: Path) -> None:
    for options in ({"engine": "onnxruntime"}, {"target": "onnx-int8"}):
        choice = choose(bundle_of(ONNX, OPENVINO), **options)  # type: ignore[arg-type]
        assert choice.graph == ONNX
    assert "only one" in choose(bundle_of(OPENVINO)).reason
    assert bench.names == []
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("change", ["files", "threads", "device", "cores", "version", "release"])
def test_another_file_setting_machine_or_version_is_measured_anew(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, change: str
) -> None:
    choose(bundle_of(ONNX, OPENVINO), setup=Setup(1))
    bench.started.clear()
    bundle, threads, device = bundle_of(ONNX, OPENVINO), 1, "CPU"
    if change == "files":
        bundle = bundle_of(ONNX, OPENVINO, digest="1" * 64)
    elif change == "threads":
        threads = 2
    elif change == "device":
        device = "GPU"
    elif change == "cores":
        here = machine.describe()
        monkeypatch.setattr(machine, "describe", lambda: here | {"cores": 97})
    elif change == "version":
        monkeypatch.setattr(machine, "version_of", lambda package: "99.0")
    else:
        monkeypatch.setattr(choosing, "__version__", "99.0")
    choose(bundle, setup=Setup(threads, device=device))
    assert bench.names == ["onnx-int8", "openvino-int8"]
    assert len([*(tmp_path / "cache" / "engines").iterdir()]) == 2


def test_equal_machines_share_a_record_whatever_they_are_called() -> None:
    import socket

    described = machine.describe()
    assert set(described) == {"processor", "instructions", "cores", "system"}
    assert described["cores"] == default_threads()
    assert described["processor"] not in ("", "unknown")
    assert socket.gethostname() not in json.dumps(described)


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: "",
        lambda text: text[: len(text) // 2],
        lambda text: "[]",
        lambda text: "[" * 100_000,
        lambda text: text.replace('"timings"', '"times"'),
        lambda text: text.replace("onnx-int8", "onnx-int4"),
        lambda text: text.replace('"1x12"', '"1x17"'),
        lambda text: text.replace('"taken": "20', '"taken": "no'),
        lambda text: _with_rounds(text, []),
        lambda text: _with_rounds(text, [0.0]),
        lambda text: _with_rounds(text, [float("nan")]),
        lambda text: _with_rounds(text, ["fast"]),
    ],
)
def test_a_damaged_record_is_measured_again(
    bench: Bench, tmp_path: Path, damage: Callable[[str], str]
) -> None:
    choose(bundle_of(ONNX, OPENVINO))
    record = the_record(tmp_path)
    text = record.read_text()
    assert damage(text) != text
    record.write_text(damage(text))
    bench.started.clear()
    assert choose(bundle_of(ONNX, OPENVINO)).graph == OPENVINO
    assert bench.names == ["onnx-int8", "openvino-int8"]
    bench.started.clear()
    choose(bundle_of(ONNX, OPENVINO))
    assert bench.names == []


def _with_rounds(text: str, rounds: list[object]) -> str:
    data = json.loads(text)
    data["measurement"]["timings"]["onnx-int8"]["1x12"]["rounds"] = rounds
    return json.dumps(data)


def test_a_cache_that_cannot_be_written_is_no_error(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("MTL_EDGE_CACHE", str(tmp_path / "file"))
    choice = choose(bundle_of(ONNX, OPENVINO))
    assert choice.graph == OPENVINO
    assert choice.not_kept is not None
    assert "cannot be kept in" in choice.not_kept
    monkeypatch.setattr(measurement, "cache_folder", lambda: None)
    choice = choose(bundle_of(ONNX, OPENVINO))
    assert choice.not_kept is not None
    assert "no home folder" in choice.not_kept
    assert bench.names == ["onnx-int8", "openvino-int8"] * 2


def test_a_write_that_fails_leaves_the_old_record_and_nothing_else(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    choose(bundle_of(ONNX, OPENVINO))
    record = the_record(tmp_path)
    before = record.read_bytes()

    def full(source: Path, target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(measurement.os, "replace", full)
    choice = choose(bundle_of(ONNX, OPENVINO), measure="anew")
    assert choice.not_kept is not None
    assert "No space left" in choice.not_kept
    assert the_record(tmp_path).read_bytes() == before


def test_old_records_and_what_killed_writes_left_are_tidied_up(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder = tmp_path / "cache" / "engines"
    folder.mkdir(parents=True)
    for number in range(5):
        (folder / f"{number}.json").write_text("{}")
        os.utime(folder / f"{number}.json", (number, number))
    (folder / ".x.json.1.partial").write_text("{")
    os.utime(folder / ".x.json.1.partial", (0, 0))
    (folder / ".y.json.2.partial").write_text("{")  # another process is at it
    monkeypatch.setattr(measurement, "MOST_RECORDS", 3)
    choose(bundle_of(ONNX, OPENVINO))
    names = {file.name for file in folder.iterdir()}
    assert len(names) == 4
    assert {"3.json", "4.json", ".y.json.2.partial"} < names


def test_measuring_can_be_turned_off(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MTL_EDGE_MEASURE", "0")
    choice, engine = start_chosen(bundle_of(ONNX, OPENVINO))
    assert choice.graph == ONNX == choose_graph(bundle_of(ONNX, OPENVINO).manifest)
    assert "figures at export" in choice.reason
    assert bench.started == [("onnx-int8", engine)]
    assert not (tmp_path / "cache").exists()
    monkeypatch.setenv("MTL_EDGE_MEASURE", "no")
    with pytest.raises(OptionError, match="MTL_EDGE_MEASURE is 'no'; expected 0"):
        choose(bundle_of(ONNX, OPENVINO))


def test_an_engine_that_does_not_start_is_passed_over_and_named(bench: Bench) -> None:
    bench.ms["openvino-int8"] = EngineError("no such device")
    choice = choose(bundle_of(ONNX, OPENVINO))
    assert choice.graph == ONNX
    assert choice.measurement is not None
    assert choice.measurement.failed == {"openvino-int8": "no such device"}
    bench.started.clear()
    assert choose(bundle_of(ONNX, OPENVINO)).graph == ONNX  # also from the record
    assert bench.names == []


def test_if_what_was_chosen_no_longer_starts_the_other_does(bench: Bench) -> None:
    choose(bundle_of(ONNX, OPENVINO))
    bench.ms["openvino-int8"] = ImportError("libtbb.so is gone")
    choice, _ = start_chosen(bundle_of(ONNX, OPENVINO))
    assert choice.graph == ONNX
    assert "did not start (openvino-int8: libtbb.so is gone)" in choice.reason
    bench.ms["onnx-int8"] = EngineError("refused")
    for measure in ("once", "anew", "never"):
        with pytest.raises(EngineError, match=r"openvino-int8: libtbb.*") as caught:
            start_chosen(bundle_of(ONNX, OPENVINO), measure=measure)  # type: ignore[arg-type]
        assert "onnx-int8: refused" in str(caught.value)


def test_what_fails_alike_is_told_once(bench: Bench) -> None:
    bench.ms = {"onnx-int8": EngineError("no card"), "onnx-fp32": EngineError("no card")}
    with pytest.raises(EngineError, match=r"^no engine starts: onnx-int8, onnx-fp32: no card$"):
        start_chosen(bundle_of(ONNX, WIDE))


def test_an_engine_that_starts_but_cannot_run_is_closed(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(self: Sleeper, input_ids: object, attention_mask: object) -> Logits:
        if self.ms == 1.0:
            raise EngineError("out of memory")
        return {}

    monkeypatch.setattr(Sleeper, "run", run)
    choice = choose(bundle_of(ONNX, OPENVINO))
    assert choice.graph == ONNX
    assert [e.closed for _, e in bench.started] == [False, True]


def test_an_interrupted_measurement_leaves_no_engine_and_no_record(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(measurement, "time_calls", interrupt)
    with pytest.raises(KeyboardInterrupt):
        choose(bundle_of(ONNX, OPENVINO))
    assert [e.closed for _, e in bench.started] == [True, True]
    assert not (tmp_path / "cache").exists()


def test_a_mistake_in_threads_is_said_not_passed_over() -> None:
    with pytest.raises(OptionError, match="threads is 0, expected 1 to"):
        start_chosen(bundle_of(ONNX, OPENVINO), setup=Setup(0))


@pytest.mark.parametrize(
    ("narrow", "wide", "wins"),
    [
        ((2.0, 2.0, 2.0), (1.7, 1.7, 1.7), "onnx-fp32"),  # really faster
        ((2.0, 2.0, 2.0), (1.9, 1.9, 1.9), "onnx-int8"),  # a little: not worth its memory
        ((1.0, 1.0, 2.0), (1.1, 1.1, 1.1), "onnx-int8"),  # in one round of three: an accident
        ((2.0, 2.0, 1.0, 2.0, 1.0), (1.5,) * 5, "onnx-int8"),  # not often enough
    ],
)
def test_a_wider_graph_wins_only_if_it_is_clearly_faster(
    narrow: tuple[float, ...], wide: tuple[float, ...], wins: str
) -> None:
    scores = {"onnx-int8": Timing(narrow), "onnx-fp32": Timing(wide)}
    assert ranked([ONNX, WIDE], scores)[0].target == wins


def test_between_engines_a_tie_goes_to_what_export_found_faster() -> None:
    for other, wins in ((1.98, "onnx-int8"), (1.9, "openvino-int8")):
        scores = {"onnx-int8": Timing((2.0,) * 5), "openvino-int8": Timing((other,) * 5)}
        assert ranked([ONNX, OPENVINO], scores)[0].target == wins


def test_without_any_measurement_the_figures_at_export_decide(bench: Bench) -> None:
    assert choose_graph(bundle_of(WIDE, OPENVINO, ONNX).manifest) == ONNX
    assert choose_graph(bundle_of(WIDE, OPENVINO).manifest) == OPENVINO
    fast = dataclasses.replace(WIDE, latency_ms=1.0)
    assert choose_graph(bundle_of(ONNX, fast).manifest) == fast
    unknown = [dataclasses.replace(g, latency_ms=None) for g in (WIDE, ONNX)]
    assert choose_graph(bundle_of(*unknown).manifest).target == "onnx-int8"


def test_single_texts_weigh_more_than_batches() -> None:
    timings = {
        "single": {"1x12": Timing((1.0,)), "1x26": Timing((1.0,)), "8x26": Timing((12.0,))},
        "batch": {"1x12": Timing((1.5,)), "1x26": Timing((1.5,)), "8x26": Timing((6.0,))},
    }
    scores = measurement.Measurement(timings, {}, "", 0.0).scores()
    assert scores["single"].median == pytest.approx(12**0.2)
    assert scores["single"].median < scores["batch"].median * 1.03


def test_graphs_that_take_few_tokens_are_measured_within_them() -> None:
    engine = Sleeper(0.01)
    measurement.measure_engines({"only": lambda: engine}, vocabulary=100, max_tokens=8)
    assert set(engine.shapes) == {(1, 8), (8, 8)}


def test_an_engine_counts_only_on_the_devices_it_is_meant_for(bench: Bench) -> None:
    on_cuda = choose(bundle_of(ONNX, OPENVINO), setup=Setup(device="CUDA:1"))
    assert on_cuda.order == (ONNX,)
    with pytest.raises(EngineError, match=r"openvino-int8 \(openvino\) is meant for device 'CUDA'"):
        choose(bundle_of(OPENVINO), setup=Setup(device="CUDA"))
    asked = choose(bundle_of(ONNX, OPENVINO), engine="openvino", setup=Setup(device="CUDA"))
    assert asked.order == (OPENVINO,), "who names an engine gets it, and its own error"
    assert choose(bundle_of(OPENVINO), setup=Setup(device="GPU.1")).graph == OPENVINO


def test_on_cuda_fp16_comes_first_and_int8_only_if_there_is_nothing_else(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    half = Graph("onnx-fp16", "onnxruntime", "fp16", "d.onnx", latency_ms=30.0)  # on a CPU
    cuda = Setup(device="CUDA")
    bench.ms["onnx-fp16"] = 1.0
    bundle = bundle_of(ONNX, WIDE, half)
    assert choose(bundle, setup=cuda, measure="never").order == (half, WIDE)
    assert choose(bundle, setup=cuda).graph == half
    assert bench.names == ["onnx-fp16", "onnx-fp32"]
    assert choose(bundle, setup=cuda, target="onnx-int8").graph == ONNX
    assert choose(bundle_of(ONNX), setup=cuda).graph == ONNX


def test_without_its_engines_a_bundle_says_what_to_install(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "available", lambda name: False)
    with pytest.raises(MissingPackageError, match=r"pip install 'mtl-edge\[openvino\]'"):
        choose(bundle_of(OPENVINO))
    strange = dataclasses.replace(ONNX, engine="abacus")
    with pytest.raises(MissingPackageError, match="abacus, which is not installed; upgrade"):
        choose(bundle_of(strange))


def test_the_cache_is_where_platformdirs_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MTL_EDGE_CACHE")
    for name in ("XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    assert str(machine.cache_folder()) == platformdirs.user_cache_dir("mtl-edge")
    for folder in ("/tmp/elsewhere", "relative", ""):
        monkeypatch.setenv("XDG_CACHE_HOME", folder)
        assert str(machine.cache_folder()) == platformdirs.user_cache_dir("mtl-edge")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(sys, "platform", "darwin")
    assert str(machine.cache_folder()) == MacOS("mtl-edge").user_cache_dir
    monkeypatch.setattr(sys, "platform", "win32")
    assert machine.cache_folder() is None
    monkeypatch.setenv("LOCALAPPDATA", "/local")
    from_environment = windows.get_win_folder_from_env_vars  # the others are Windows's own
    monkeypatch.setattr(windows, "get_win_folder", from_environment)
    assert machine.cache_folder() == Path(windows.Windows("mtl-edge").user_cache_dir)
    monkeypatch.setenv("MTL_EDGE_CACHE", "/given")
    assert machine.cache_folder() == Path("/given")


def test_without_a_home_there_is_no_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MTL_EDGE_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    assert machine.cache_folder() is None


def test_versions_are_found_under_whatever_name_they_were_installed() -> None:
    assert machine.version_of("numpy") == np.__version__
    assert machine.version_of("sklearn").startswith("scikit-learn ")
    assert machine.version_of("no_such_package") == "unknown"


def test_two_processes_at_once_leave_one_whole_record(
    shared_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = (
        "import sys; from mtl_edge.bundle import open_bundle; from mtl_edge.choosing import choose;"
        "from mtl_edge.engines import Setup;"
        "choice = choose(open_bundle(sys.argv[1]), setup=Setup(1));"
        "choice.started and choice.started.close(); assert choice.not_kept is None"
    )
    environment = {**os.environ, "MTL_EDGE_CACHE": str(tmp_path / "cache")}
    command = [sys.executable, "-c", program, str(shared_bundle)]
    running = [subprocess.Popen(command, env=environment) for _ in range(3)]
    assert [process.wait(timeout=120) for process in running] == [0, 0, 0]
    data = json.loads(the_record(tmp_path).read_text())
    monkeypatch.setenv("MTL_EDGE_CACHE", str(tmp_path / "another"))
    assert measurement.read(data["of"]) is None
    monkeypatch.setenv("MTL_EDGE_CACHE", str(tmp_path / "cache"))
    found = measurement.read(data["of"])
    assert found is not None
    assert set(found.timings) == {
        "onnx-int8", "openvino-int8", "onnx-fp32",
    }  # fmt: skip


def test_info_shows_what_was_measured_and_takes_it_anew(
    shared_bundle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("MTL_EDGE_CACHE", str(tmp_path / "cache"))
    assert main(["info", str(shared_bundle), "--engines"]) == 0
    out = capsys.readouterr().out
    assert "not measured yet: `--measure`" in out
    assert "by the figures at export: nothing was measured" in out
    assert not (tmp_path / "cache").exists()

    assert main(["info", str(shared_bundle), "--measure"]) == 0
    out = capsys.readouterr().out
    record = the_record(tmp_path)
    assert f"record: {record}" in out
    assert "ms 1x12" in out
    assert "why: " in out

    assert main(["info", str(shared_bundle), "--engines", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)["on_this_machine"]
    assert facts["record"] == str(record)
    assert facts["taken"] in out
    (chosen,) = [row for row in facts["candidates"] if row["chosen"]]
    assert (chosen["graph"], chosen["engine"]) == (facts["graph"], facts["engine"])
    assert f"{chosen['ms']['1x12']['median']:.2f} (" in out
    assert {row["version"] is None for row in facts["candidates"] if row["counted"]} == {False}


def test_info_shows_what_failed(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:  # fmt: skip
    monkeypatch.setenv("MTL_EDGE_CACHE", str(tmp_path / "cache"))
    real = choosing.bundle_engine

    def start(found: Bundle, graph: Graph, setup: Setup) -> engines.Engine:
        if graph.engine == "openvino":
            raise EngineError("no driver for it")
        return real(found, graph, setup)

    monkeypatch.setattr(choosing, "bundle_engine", start)
    assert main(["info", str(bundle), "--measure"]) == 0
    assert "openvino-int8 in openvino failed: no driver for it" in capsys.readouterr().out


def test_info_of_a_bundle_nothing_can_run_says_why(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(engines, "available", lambda name: False)
    assert main(["info", str(bundle), "--engines"]) == 0
    assert "why: the bundle needs engine" in capsys.readouterr().out
