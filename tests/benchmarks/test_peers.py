"""The usual ways are installed, fitted, asked and timed beside ours, and failures are told."""

from __future__ import annotations

import json
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mtl_edge.benchmarks.core.command import new_record
from mtl_edge.benchmarks.core.measure import ALL, ONE, rounds_of
from mtl_edge.benchmarks.core.record import Estimate, Record, Score, Scores
from mtl_edge.benchmarks.core.record_json import read_record
from mtl_edge.benchmarks.peers import __main__ as command
from mtl_edge.benchmarks.peers import environments, fitting, process, report, rounds
from mtl_edge.benchmarks.peers.environments import Environment, EnvironmentFailedError
from mtl_edge.benchmarks.peers.fitting import Fitted, Workload
from mtl_edge.benchmarks.peers.process import ADAPTERS, PeerFailedError, Process
from mtl_edge.benchmarks.peers.rounds import PeerTimes
from mtl_edge.benchmarks.peers.run import FIRST_ANSWER
from mtl_edge.benchmarks.peers.table import BY_NAME, ENVIRONMENTS, PEERS, REFERENCE, Peer

HERE = Environment(sys.executable, size=1_000_000, packages={"toy": "1"}, made_from="here")
TOY = """
import os
import sys

def fit(rows, backbone, folder, options):
    print("a library that talks")
    open(os.path.join(folder, "model"), "w").write(options["said"])

def load(folder, options, threads):
    said = open(os.path.join(folder, "model")).read()
    os.write(1, b"and one in C that does\\n")
    def answers(texts):
        if "fail" in texts:
            raise ValueError("no such text")
        if "die" in texts:
            print("the last words", file=sys.stderr, flush=True)
            os._exit(3)
        while "sleep" in texts:
            pass
        return {"topic": ([said] * len(texts), [1.0] * len(texts))}
    return answers
"""


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Process]:
    """Starts a child whose adapter is `TOY`."""
    (tmp_path / "adapters").mkdir()
    (tmp_path / "adapters" / "toy.py").write_text(TOY)
    monkeypatch.setattr(process, "ADAPTERS", tmp_path / "adapters")

    def start() -> Process:
        return Process(
            sys.executable, "toy", tmp_path, {"said": "news"}, threads=1, cores=[0],
            log=tmp_path / "log",
        )  # fmt: skip

    return start


@pytest.fixture
def ask_file(tmp_path: Path) -> Callable[..., str]:
    def write(*texts: str) -> str:
        file = tmp_path / f"{'-'.join(texts)}.json"
        file.write_text(json.dumps(texts))
        return str(file)

    return write


def test_what_a_library_prints_does_not_break_the_answers(
    toy: Callable[[], Process], ask_file: Callable[..., str], tmp_path: Path
) -> None:
    rows = tmp_path / "rows.json"
    rows.write_text("{}")
    with toy() as child:
        assert child.ask("fit", rows=str(rows), backbone="")["bytes"] > 0
        child.ask("load")
        assert child.ask("answer", texts=ask_file("a", "b"))["labels"] == {"topic": ["news"] * 2}
        many = {"texts": ask_file("a", "b"), "size": 2}
        bulk = child.ask("time_bulk", **many, at_least=0.01, most=10**9)
        assert bulk["passes"] > 1
        assert 0 < bulk["seconds"] < 0.01
        assert child.ask("time_bulk", **many, at_least=60, most=3)["passes"] == 3
        singles = child.ask("time_singles", texts=ask_file("a", "b", "c"))
        assert len(singles["seconds"]) == 1, "two warm up"
        memory = child.ask("memory")
        assert not memory or 0 < memory["now"] <= memory["peak"]
    assert "a library that talks" in (tmp_path / "log").read_text()


def test_a_peer_that_fails_dies_or_hangs_says_so(
    toy: Callable[[], Process], ask_file: Callable[..., str], tmp_path: Path
) -> None:
    (tmp_path / "model").write_text("news")
    with toy() as child:
        child.ask("load")
        with pytest.raises(PeerFailedError, match="answer: ValueError: no such text"):
            child.ask("answer", texts=ask_file("fail"))
        assert child.ask("answer", texts=ask_file("a"))["labels"] == {"topic": ["news"]}
        with pytest.raises(PeerFailedError, match=r"ended with 3\n(.*\n)*the last words"):
            child.ask("answer", texts=ask_file("die"))
        with pytest.raises(PeerFailedError, match="ended with 3"):
            child.ask("memory")
    with toy() as child:
        child.ask("load")
        with pytest.raises(PeerFailedError, match="ended with -9"):
            child.ask("answer", texts=ask_file("sleep"), seconds=0.2)


def _wheel(folder: Path, version: str) -> Path:
    file = folder / f"toy-{version}-py3-none-any.whl"
    info = f"toy-{version}.dist-info"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("toy.py", f"version = {version!r}\n")
        archive.writestr(
            f"{info}/METADATA", f"Metadata-Version: 2.1\nName: toy\nVersion: {version}\n"
        )
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/RECORD", "")
    return file


@pytest.mark.slow
def test_an_environment_is_made_once_and_anew_when_its_requirements_change(tmp_path: Path) -> None:
    made = environments.make("toy", [str(_wheel(tmp_path, "1"))], tmp_path)
    assert made.packages == {"toy": "1"}
    assert 0 < made.size < 10_000
    python = Path(made.python)
    before = python.lstat().st_mtime_ns
    assert environments.make("toy", [str(_wheel(tmp_path, "1"))], tmp_path) == made
    assert python.lstat().st_mtime_ns == before
    assert environments.make("toy", [str(_wheel(tmp_path, "2"))], tmp_path).packages == {"toy": "2"}
    with pytest.raises(EnvironmentFailedError, match="missing"):
        environments.make("toy", [str(tmp_path / "missing-1-py3-none-any.whl")], tmp_path)
    assert not (python.parents[1] / environments.STAMP).exists()


@pytest.mark.slow
def test_a_bundle_and_a_peer_are_measured_and_one_that_cannot_be_installed_is_listed(
    shared_bundle: Path, rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    def make(name: str, *_: Any) -> Environment:
        if name == "fasttext":
            raise EnvironmentFailedError("ERROR: no such package")
        return HERE

    monkeypatch.setattr(environments, "make", make)
    monkeypatch.setattr(environments, "build_wheel", lambda work: Path("ours.whl"))
    options = ["--work", str(tmp_path / "work"), "--depths", "none", "--threads", "1"]
    options += ["--only", "tf-idf words", "fasttext", "--bundle", f"tiny={shared_bundle}"]
    for task in ("sentiment", "topic"):
        options += ["--task", f"{task}={rows}", "--dev", f"{task}={rows}"]
    options += ["--rounds", "2", "--texts", "20", "--singles", "2", "--starts", "1"]
    out = tmp_path / "out"
    command.main([*options, "--out", str(out)])
    names = ["peers.html", "peers.json", "peers.md", "peers.png"]
    assert sorted(f.name for f in out.iterdir()) == names
    record = read_record(out / "peers.json")
    ways = ["tf-idf words", "tiny onnx", "tiny openvino"]
    assert sorted(record.timed) == ways
    # It is asked for what it learned from.
    assert min(s.models["tf-idf words"].accuracy.value for s in record.scores) > 0.9
    for name in ways:
        assert record.figures["same label again"][name] == 1
        assert record.on(ALL).times[name].count == 2
        assert record.on(ONE).times[name].median > 0
        first = record.on(FIRST_ANSWER).times[name].median
        assert first > 1e3 * record.figures["load s"][name] * 0.1
    assert record.inputs["own"] == ["tiny openvino", "tiny onnx"]
    assert record.on(ALL).noise is not None
    assert [s.name for s in record.systems if s.failed] == ["fasttext"]
    assert "install of fasttext: ERROR: no such package" in capsys.readouterr().out
    stamps = {f: f.stat().st_mtime_ns for f in (tmp_path / "work" / "fits").rglob("fitted.json")}
    assert len(stamps) == 3
    capsys.readouterr()
    command.main([*options, "--fit-only"])
    out_text = capsys.readouterr().out
    assert "tf-idf words" in out_text
    assert "texts/s" not in out_text
    assert {f: f.stat().st_mtime_ns for f in stamps} == stamps


@pytest.mark.parametrize("count", [200, 30, 3])
def test_no_text_is_asked_twice_as_long_as_there_are_enough(count: int) -> None:
    texts = [str(i) for i in range(count)]
    many, few = rounds._apart(texts, rounds=4, size=10, singles=6)
    assert [len(some) for some in few] == [8] * 4
    assert len(many) >= min(10, count)
    if count == 200:
        asked = [*many, *(text for some in few for text in some)]
        assert sorted(asked) == sorted(texts)


def test_models_that_were_taught_on_other_data_are_not_taken_over(tmp_path: Path) -> None:
    def workload(*texts: str) -> Workload:
        rows = {"t": (list(texts), ["a"] * len(texts))}
        return Workload(tmp_path, tmp_path, "1", rows, rows, 1, (0,), 16)

    folder = workload().folder(REFERENCE)
    folder.mkdir(parents=True)
    (folder / "model").write_text("of texts one and two")
    own, other = workload("one", "two"), workload("one", "three")
    known = dict.fromkeys(BY_NAME[REFERENCE].environments, HERE)
    stamp = {"made_from": fitting._made_from(BY_NAME[REFERENCE], known, own)}
    (folder / "fitted.json").write_text(json.dumps(stamp))
    for data, environments_known in ((other, known), (own, {})):
        with pytest.raises(PeerFailedError, match="'pipelines fp32', which was not fitted to"):
            fitting._take_over(REFERENCE, environments_known, data, tmp_path / "none")
    fitting._take_over(REFERENCE, known, own, tmp_path / "taken")
    assert [file.name for file in (tmp_path / "taken").iterdir()] == ["model"]


def test_a_peer_that_dies_at_a_cold_start_is_listed_and_the_others_are_measured(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def start(peer: Fitted, *_: Any) -> float:
        if peer.peer.name == "bad":
            raise PeerFailedError("no memory")
        return 5.0

    monkeypatch.setattr(rounds, "_cold_start", start)
    peers = {
        name: Fitted(Peer(name, name, "here", "x", ""), HERE, Path(), 1.0, 1, {}, 1.0)
        for name in ("good", "bad")
    }
    workload = Workload(tmp_path, tmp_path, "1", {}, {"t": (["a"], ["b"])}, 1, (0,), 16)
    found = {name: PeerTimes() for name in peers}
    starts = rounds.cold_starts(peers, workload, 2, found)
    assert (found["bad"].error, found["good"].error) == ("no memory", None)
    assert starts == {"good": [5.0, 5.0]}


def _record(own: dict[str, tuple[float, float, float]], others: dict[str, Any]) -> Record:
    """Peers by milliseconds and two accuracies."""
    every = {**own, **others}
    times = {name: [figures[0]] * 2 for name, figures in every.items()}
    scores = [
        Scores(task, "", "", 1, "now", {n: Score(Estimate(f[place])) for n, f in every.items()})
        for place, task in enumerate(("sentiment", "topic"), 1)
    ]
    return new_record(
        "peers", "", 1, 0.0, systems=[], scores=scores, inputs={"own": list(own)},
        rounds=[rounds_of(ALL, times, texts=1, references=())],
    )  # fmt: skip


def test_a_peer_is_compared_with_the_fastest_of_ours_that_is_as_accurate_on_every_task() -> None:
    record = _record(
        {"deep": (10.0, 0.9, 0.9), "shallow": (1.0, 0.8, 0.9)},
        {"even": (4.0, 0.8, 0.9), "better": (30.0, 0.81, 0.8), "best": (9.0, 0.5, 0.95)},
    )
    found = {name: report.fastest_as_accurate(record, name) for name in ("even", "better", "best")}
    assert found == {"even": "shallow", "better": "deep", "best": None}
    table = report._against(record, ["even", "better", "best"])
    assert table.rows == [
        ["even", "shallow", "4.00x (4.00-4.00)"],
        ["better", "deep", "3.00x (3.00-3.00)"],
        ["best", "none", ""],
    ]


def test_every_peer_has_an_environment_an_adapter_and_a_source() -> None:
    names = [peer.name for peer in PEERS]
    assert len(set(names)) == len(names)
    for place, peer in enumerate(PEERS):
        assert set(peer.environments) <= set(ENVIRONMENTS)
        assert (ADAPTERS / f"{peer.adapter}.py").is_file()
        assert peer.source.startswith("https://")
        assert peer.begins_with is None or peer.begins_with in names[:place]
    for requirements in ENVIRONMENTS.values():
        assert all("==" in requirement for requirement in requirements)


def test_mistakes_are_told_in_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    work = ["--work", str(tmp_path / "work")]
    for options, expected in (
        (["--only", "x"], "--only 'x': there is no such way"),
        (["--depths", "9"], "--depths '9': expected numbers from 0 to 6"),
        (["--depths", "a"], "--depths 'a': expected numbers"),
        (["--rounds", "0"], "--rounds is 0, expected 1 or more"),
        (["--task", "t=/none.csv"], "cannot read"),
        (["--out", str(tmp_path)], "exists; choose another --out"),
    ):
        with pytest.raises(SystemExit) as ended:
            command.main([*work, *options])
        assert ended.value.code == 2
        assert expected in capsys.readouterr().err
