"""The guard warns of lost speed beyond noise, records, and never fails on time."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from mtl_edge.benchmarks.core.machine import describe
from mtl_edge.benchmarks.experiments import guard
from mtl_edge.benchmarks.experiments.guard import RESULTS, judge, kind_of, read_recorded


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "EFFORT", replace(guard.EFFORT, rounds=3))


def _options(shared_bundle: Path, checkpoint: Path, tmp_path: Path) -> list[str]:
    return [
        "--bundle", str(shared_bundle), "--checkpoint", str(checkpoint), "--threads", "1",
        "--json", str(tmp_path / "guard.json"), "--results", str(tmp_path / "recorded.json"),
    ]  # fmt: skip


def test_what_is_recorded_is_compared_with_next_time(
    shared_bundle: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = _options(shared_bundle, checkpoint, tmp_path)
    guard.main(options)
    assert "nothing is recorded for" in capsys.readouterr().out
    assert not (tmp_path / "recorded.json").exists()
    guard.main([*options, "--record"])
    recorded = json.loads((tmp_path / "recorded.json").read_text())
    (kind,) = recorded
    assert kind.endswith(", 1 thread")
    ratios = recorded[kind]["ratios"]
    assert {*ratios} == {"onnx-int8", "openvino-int8", "onnx-fp32"}
    assert all(r["times_as_fast"] > 0 for shapes in ratios.values() for r in shapes.values())

    for ratio in ratios["onnx-int8"].values():
        ratio["times_as_fast"] *= 100
        ratio["noise"] = 0
    (tmp_path / "recorded.json").write_text(json.dumps(recorded))
    capsys.readouterr()
    guard.main(options)  # lost speed is no failure
    written = json.loads((tmp_path / "guard.json").read_text())
    out = capsys.readouterr().out
    for warning in written["warnings"]:
        assert f"warning: {warning}" in out
    assert written["experiment"] == "guard"
    assert json.loads((tmp_path / "recorded.json").read_text()) == recorded


def test_only_what_noise_does_not_explain_is_told() -> None:
    recorded = {
        "onnx-int8": {
            "1x32": {"times_as_fast": 4.0, "noise": 0.03},
            "32x32": {"times_as_fast": 3.0, "noise": 0.03},
        }
    }
    same = {
        "onnx-int8": {
            "1x32": {"times_as_fast": 3.8, "noise": 0.03},
            "32x32": {"times_as_fast": 3.5, "noise": 0.03},
        }
    }
    assert judge(recorded, same) == []
    slower = {
        "onnx-int8": {
            "1x32": {"times_as_fast": 3.0, "noise": 0.03},
            "32x32": {"times_as_fast": 3.0, "noise": 0.03},
        }
    }
    (warning,) = judge(recorded, slower)
    assert "onnx-int8 at 1x32 is 3.00 times as fast as torch, and 4.00 was recorded" in warning
    noisy = {"onnx-int8": {"1x32": {"times_as_fast": 3.0, "noise": 0.5}}}
    assert judge(recorded, noisy) == []
    assert judge({}, slower) == []


def test_processors_of_one_kind_share_a_record() -> None:
    flags = ["avx2", "avx512_vnni"]
    machine = replace(describe(), processor="P", instructions=flags, system="Linux x86_64")
    assert kind_of(machine, 2) == "P: avx2 avx512_vnni, 2 threads"
    assert kind_of(replace(machine, instructions=[]), 1) == "P: Linux x86_64, 1 thread"


def test_mistakes_are_told_in_a_line(
    shared_bundle: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = _options(shared_bundle, checkpoint, tmp_path)
    (tmp_path / "recorded.json").write_text("[]")
    for wrong, expected in (
        (options, "expected times_as_fast and noise by kind"),
        ([*options[:2], *options[4:]], "go together"),
    ):
        with pytest.raises(SystemExit) as ended:
            guard.main(wrong)
        assert ended.value.code == 2
        assert expected in capsys.readouterr().err


def test_the_repository_has_a_record_that_can_be_read() -> None:
    recorded = read_recorded(RESULTS)
    assert recorded
    for own in recorded.values():
        ratios = own["ratios"]
        assert {"onnx-int8", "openvino-int8"} <= {*ratios}
        assert all(r["times_as_fast"] > 1 for shapes in ratios.values() for r in shapes.values())
