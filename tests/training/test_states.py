"""Encoder states are computed once, survive a kill, and never fill the disk unasked."""

from __future__ import annotations

import copy
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from mtl_edge.errors import BackboneError, OptionError
from mtl_edge.export.int8.refit import GraphEncoder
from mtl_edge.training.backbone import Backbone, load_backbone
from mtl_edge.training.states import StateCache, TorchEncoder, cache

GB = 10**9
IDS = [[101, 2000 + i, *range(3000, 3000 + i % 11), 102] for i in range(60)]


@pytest.fixture(scope="module")
def backbone(tiny_backbone: Path) -> Backbone:
    return load_backbone(str(tiny_backbone))


@pytest.fixture
def encodings(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many texts the encoder was asked for, call by call."""
    calls: list[int] = []
    encode = TorchEncoder.encode

    def counted(encoder: TorchEncoder, texts: list[list[int]]) -> object:
        calls.append(len(texts))
        return encode(encoder, texts)

    monkeypatch.setattr(TorchEncoder, "encode", counted)
    return calls


def test_states_are_the_encoder_s(backbone: Backbone, tmp_path: Path) -> None:
    states = StateCache(tmp_path, GB).states(backbone, IDS)
    assert states.lengths.tolist() == [len(tokens) for tokens in IDS]
    for row in (0, 10, 59):
        tokens = torch.tensor([IDS[row]])
        expected = backbone.encoder(tokens, output_hidden_states=True).hidden_states
        values, mask, ids = states.batch([row])
        assert len(values) == len(expected) == 3
        assert mask.tolist() == [[1.0] * len(IDS[row])]
        assert ids.tolist() == [IDS[row]]
        for value, reference in zip(values, expected, strict=True):
            # bfloat16 products where the CPU has them, float16 on disk
            torch.testing.assert_close(value, reference, atol=0.05, rtol=0.05)
        for depth, value in enumerate(values):
            found = states.means([row], depth)[0]
            np.testing.assert_allclose(found, value[0].mean(0).numpy(), atol=2e-3)


def test_means_without_layers_are_of_what_heads_without_layers_read(
    backbone: Backbone, tmp_path: Path
) -> None:
    states = StateCache(tmp_path, GB).states(backbone, IDS, without_layers=True)
    (values,), _, _ = states.batch([10], states=1)
    np.testing.assert_allclose(states.means([10], 0)[0], values[0].mean(0).numpy(), atol=1e-5)


def test_a_batch_is_padded_and_may_have_fewer_layers(backbone: Backbone, tmp_path: Path) -> None:
    states = StateCache(tmp_path, GB).states(backbone, IDS)
    values, mask, ids = states.batch([0, 10], states=2)
    assert len(values) == 2
    assert values[0].shape == (2, len(IDS[10]), 64)
    assert mask.sum(1).tolist() == [len(IDS[0]), len(IDS[10])]
    assert ids[0].tolist() == [*IDS[0], *[0] * (len(IDS[10]) - len(IDS[0]))]
    assert not values[0][0, len(IDS[0]) :].any()


def test_the_second_run_computes_only_what_is_new(
    backbone: Backbone, tmp_path: Path, encodings: list[int]
) -> None:
    first = StateCache(tmp_path, GB).states(backbone, IDS[:40])
    assert sum(encodings) == 40
    again = StateCache(tmp_path, GB).states(backbone, IDS[:40])
    assert sum(encodings) == 40
    np.testing.assert_array_equal(first.of(7), again.of(7))
    StateCache(tmp_path, GB).states(backbone, IDS)
    assert sum(encodings) == 60


def test_a_text_that_comes_twice_is_encoded_once(
    backbone: Backbone, tmp_path: Path, encodings: list[int]
) -> None:
    states = StateCache(tmp_path, GB).states(backbone, [IDS[0], IDS[1], IDS[0]])
    assert sum(encodings) == 2
    np.testing.assert_array_equal(states.of(0), states.of(2))


def test_other_weights_have_states_of_their_own(
    backbone: Backbone, tmp_path: Path, encodings: list[int]
) -> None:
    other = backbone.changed(backbone.encoder, "test")
    StateCache(tmp_path, GB).states(backbone, IDS)
    StateCache(tmp_path, GB).states(other, IDS)
    assert sum(encodings) == 120


def test_a_damaged_shard_is_computed_again(
    backbone: Backbone,
    tmp_path: Path,
    encodings: list[int],
    capsys: pytest.CaptureFixture[str],
) -> None:
    first = StateCache(tmp_path, GB).states(backbone, IDS)
    expected = first.of(5).copy()
    (values,) = (f for f in tmp_path.rglob("*.npy") if ".index." not in f.name)
    values.write_bytes(values.read_bytes()[:-100])
    again = StateCache(tmp_path, GB).states(backbone, IDS)
    np.testing.assert_array_equal(again.of(5), expected)
    assert sum(encodings) == 120
    assert "damaged" in capsys.readouterr().err


def test_over_the_limit_nothing_is_computed(
    backbone: Backbone, tmp_path: Path, encodings: list[int]
) -> None:
    with pytest.raises(OptionError, match="raise --cache-limit"):
        StateCache(tmp_path, 1000).states(backbone, IDS)
    assert not encodings


def test_states_not_used_for_longest_make_room(backbone: Backbone, tmp_path: Path) -> None:
    size = 2 * sum(map(len, IDS)) * 3 * 64
    old, used = backbone.changed(backbone.encoder, "old"), backbone
    StateCache(tmp_path, GB).states(old, IDS)
    (folder,) = tmp_path.iterdir()
    os.utime(folder, (0, 0))
    StateCache(tmp_path, int(1.5 * size) + 10_000).states(used, IDS)
    assert folder not in tmp_path.iterdir()


def test_a_full_disk_is_said_before_any_work(
    backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = cache.shutil.disk_usage(tmp_path)._replace(free=10)
    monkeypatch.setattr(cache.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(OptionError, match="MTL_EDGE_CACHE"):
        StateCache(tmp_path, GB).states(backbone, IDS)


def loud(backbone: Backbone, factor: float) -> Backbone:
    """With one channel of the first layer's states so many times as large."""
    encoder = copy.deepcopy(backbone.encoder)
    norm = encoder.encoder.layer[0].output.LayerNorm
    with torch.no_grad():
        norm.weight[3] *= factor
        norm.bias[3] += factor
    return backbone.changed(encoder, f"loud {factor}")


def test_states_that_float16_does_not_hold_are_kept_all_the_same(
    backbone: Backbone, tmp_path: Path
) -> None:
    outlier = loud(backbone, 1e6)
    tokens = torch.tensor([IDS[10]])
    expected = outlier.encoder(tokens, output_hidden_states=True).hidden_states
    assert expected[1].abs().max() > 2 * 65504
    for _ in range(2):  # computed, then read
        states = StateCache(tmp_path, GB).states(outlier, IDS)
        values, _, _ = states.batch([10, 0])
        for value, reference in zip(values, expected, strict=True):
            found = value[:1, : len(IDS[10])]
            torch.testing.assert_close(found, reference, atol=0.05, rtol=0.05)
        assert np.isfinite(states.means([10], 1)).all()


def test_a_text_that_comes_later_may_have_such_states(
    backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, encodings: list[int]
) -> None:
    """What was kept before stays, and is in one batch with it."""
    small = StateCache(tmp_path, GB).states(backbone, IDS[:5]).of(4).copy()
    encode = TorchEncoder.encode

    def loud_for_the_last(encoder: TorchEncoder, texts: list[list[int]]) -> object:
        values = encode(encoder, texts).astype(np.float32)
        values[[tokens[1] == 2005 for tokens in texts]] *= 1e6
        with np.errstate(over="ignore"):
            return values.astype(encoder.kind)

    monkeypatch.setattr(TorchEncoder, "encode", loud_for_the_last)
    encodings.clear()
    states = StateCache(tmp_path, GB).states(backbone, IDS[:6])
    assert encodings == [1, 1]
    values, _, _ = states.batch([4, 5])
    np.testing.assert_array_equal(values[0][0, : len(small)], small[:, 0])
    assert 65504 < values[0][1].abs().max() < float("inf")


def test_states_that_take_twice_the_room_are_counted_so(backbone: Backbone, tmp_path: Path) -> None:
    size = 2 * sum(map(len, IDS)) * 3 * 64
    with pytest.raises(OptionError, match="raise --cache-limit"):
        StateCache(tmp_path, int(1.5 * size)).states(loud(backbone, 1e6), IDS)
    StateCache(tmp_path, int(1.5 * size)).states(backbone, IDS)


def test_a_graph_s_states_are_kept_as_exactly(tmp_path: Path) -> None:
    def run(ids: np.ndarray, mask: np.ndarray) -> dict[str, np.ndarray]:
        return {name: np.full((*ids.shape, 2), 1e5, np.float32) for name in ("state.0", "state.1")}

    states = StateCache(tmp_path, GB).of(GraphEncoder(run, "graph", 2, 2), IDS[:3])
    assert (states.of(2) == 1e5).all()
    assert states.of(2).shape == (len(IDS[2]), 2, 2)


def test_states_that_are_no_numbers_name_the_text(backbone: Backbone, tmp_path: Path) -> None:
    encoder = copy.deepcopy(backbone.encoder)
    with torch.no_grad():
        encoder.embeddings.word_embeddings.weight[7592] = float("nan")  # hello
    broken = backbone.changed(encoder, "broken")
    ids = broken.text_encoder(128)(["good morning", "hello world, it is me"])
    with pytest.raises(BackboneError, match=r"no numbers .* for the text 'hello world, it is me'"):
        StateCache(tmp_path, GB).states(broken, ids)


PROGRAM = """
import sys
from pathlib import Path
from mtl_edge.training.backbone import load_backbone
from mtl_edge.training.states import cache
cache.SHARD_BYTES = 20_000
ids = [[101, 2000 + i, *range(3000, 3000 + i % 11), 102] for i in range(int(sys.argv[3]))]
found = cache.StateCache(Path(sys.argv[1]), 10**9).states(load_backbone(sys.argv[2]), ids)
print(float(sum(found.of(i).astype("f8").sum() for i in range(len(found)))))
"""


def test_a_killed_run_is_resumed(
    backbone: Backbone, tiny_backbone: Path, tmp_path: Path, encodings: list[int]
) -> None:
    cache = tmp_path / "cache"
    command = [sys.executable, "-c", PROGRAM, str(cache), str(tiny_backbone), "20000"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    for _ in range(600):
        if len(list(cache.rglob("*.index.npy"))) >= 10:
            break
        time.sleep(0.1)
    process.send_signal(signal.SIGKILL)
    assert process.communicate()[0] == b""
    # The longest texts come first: what was done before the kill is not done again.
    ids = [[101, 2000 + i, *range(3000, 3010), 102] for i in range(10, 200, 11)]
    StateCache(cache, GB).states(backbone, ids)
    assert not encodings
    StateCache(cache, GB).states(backbone, [*ids, [101, 102]])
    assert encodings == [1]


def test_two_runs_at_once_get_the_same_states(tiny_backbone: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", PROGRAM, str(tmp_path), str(tiny_backbone), "500"]
    runs = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    sums = [run.communicate()[0] for run in runs]
    assert [run.returncode for run in runs] == [0, 0]
    assert float(sums[0]) == pytest.approx(float(sums[1]), rel=1e-3)
    assert not list(tmp_path.rglob("*.partial"))


def test_only_states_make_room_for_states(backbone: Backbone, tmp_path: Path) -> None:
    size = 2 * sum(map(len, IDS)) * 3 * 64
    kept = tmp_path / "engines" / "record.json"
    kept.parent.mkdir()
    kept.write_text("{}")
    os.utime(kept.parent, (0, 0))
    StateCache(tmp_path, GB).states(backbone.changed(backbone.encoder, "old"), IDS)
    StateCache(tmp_path, int(1.5 * size) + 10_000).states(backbone, IDS)
    assert kept.read_text() == "{}"
    assert len([*tmp_path.iterdir()]) == 2
