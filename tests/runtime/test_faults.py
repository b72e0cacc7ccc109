"""What goes wrong in the field, and what a user sees of it."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from mtl_edge import EdgeClassifier, Limits
from mtl_edge.bundle import MANIFEST, SCHEMA, read_manifest, write_manifest
from mtl_edge.engines import Ids, Logits
from mtl_edge.errors import (
    BundleError,
    EngineError,
    MissingPackageError,
    OptionError,
    OutOfMemoryError,
    SchemaError,
)

TARGETS = ["onnx-int8", "openvino-int8"]
TEXTS = [f"text number {i} " + "and so on " * (i % 9) for i in range(60)]


def seal(bundle: Path, change: Callable[[dict[str, Any]], object] = lambda manifest: None) -> None:
    """Change the manifest and make all sizes and digests match the files again."""
    file = bundle / MANIFEST
    manifest = json.loads(file.read_text())
    change(manifest)
    file.write_text(json.dumps(manifest))
    write_manifest(bundle, read_manifest(bundle))


def start(program: str, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program), *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def python(program: str, *arguments: object) -> str:
    out, err = (process := start(program, *arguments)).communicate(timeout=120)
    assert (process.returncode, err) == (0, "")
    return out


# --- a bundle that is damaged or of another kind


@pytest.mark.parametrize("target", TARGETS)
def test_a_bundle_cut_short_or_altered_is_told_apart_from_a_whole_one(
    bundle: Path, target: str
) -> None:
    name = {"onnx-int8": "encoder.int8.bin", "openvino-int8": "openvino.int8.bin"}[target]
    whole = (bundle / name).read_bytes()
    (bundle / name).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(BundleError, match=rf"{name} has .* bytes, and the manifest says .*: copy"):
        EdgeClassifier.load(bundle, target=target)
    (bundle / name).write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(BundleError, match=rf"{name} is not the file .*sha256 differs.*: copy or"):
        EdgeClassifier.load(bundle, target=target)
    (bundle / name).write_bytes(whole)
    (bundle / "tokenizer.json").unlink()
    with pytest.raises(BundleError, match=r"tokenizer\.json is missing; .*: copy or export it"):
        EdgeClassifier.load(bundle, target=target)
    (bundle / MANIFEST).unlink()
    with pytest.raises(BundleError, match=r"no bundle at .*`mtl-edge export` writes one"):
        EdgeClassifier.load(bundle, target=target)


def test_a_newer_bundle_says_to_upgrade(bundle: Path) -> None:
    data = json.loads((bundle / MANIFEST).read_text()) | {"schema": SCHEMA + 1}
    (bundle / MANIFEST).write_text(json.dumps(data))
    with pytest.raises(SchemaError, match="upgrade with `pip install -U mtl-edge`"):
        EdgeClassifier.load(bundle)


@pytest.mark.parametrize(
    "name", ["model.int8.onnx", "openvino.int8.xml", "openvino.heads.int8.xml"]
)
def test_a_graph_that_is_none_is_refused_though_its_digest_is_right(
    bundle: Path, name: str
) -> None:
    data = (bundle / name).read_bytes()
    for broken in (data[: len(data) // 2], b"no graph at all", b""):
        (bundle / name).write_bytes(broken)
        seal(bundle)
        target = "onnx-int8" if name.endswith(".onnx") else "openvino-int8"
        with pytest.raises((BundleError, EngineError)) as caught:
            EdgeClassifier.load(bundle, target=target)
        assert any(word in str(caught.value) for word in (name, "openvino.int8.xml"))


@pytest.mark.parametrize("target", TARGETS)
def test_labels_unlike_the_graph_are_found_at_load(bundle: Path, target: str) -> None:
    seal(bundle, lambda manifest: manifest["tasks"][0]["labels"].append("one more"))
    message = r"task 'sentiment': expected logits \(1, 3\), got shape \(1, 2\).*export the bundle"
    with pytest.raises(EngineError, match=message):
        EdgeClassifier.load(bundle, target=target)
    classifier = EdgeClassifier.load(bundle, target=target, warm=False)
    with pytest.raises(EngineError, match=message):
        classifier.predict("a text")
    seal(bundle, lambda manifest: manifest["tasks"][0].update(name="mood"))
    with pytest.raises(EngineError, match=r"task 'mood': expected logits .*, got no such output"):
        EdgeClassifier.load(bundle, target=target)


def floats_of_onnx(bundle: Path) -> Iterator[tuple[Path, int, int]]:
    """Each float32 weight of the heads: its file, and where in it."""
    model = onnx.load(bundle / "model.int8.onnx", load_external_data=False)
    for tensor in model.graph.initializer:
        where = {entry.key: entry.value for entry in tensor.external_data}
        if tensor.data_type == onnx.TensorProto.FLOAT and "heads" in where.get("location", ""):
            yield bundle / where["location"], int(where["offset"]), int(where["length"])


def floats_of_openvino(bundle: Path) -> Iterator[tuple[Path, int, int]]:
    for data in ElementTree.parse(bundle / "openvino.heads.int8.xml").iterfind(".//layer/data"):
        if data.get("element_type") == "f32" and "offset" in data.attrib:
            path = bundle / "openvino.heads.int8.bin"
            yield path, int(data.attrib["offset"]), int(data.attrib["size"])


@pytest.mark.parametrize(
    ("target", "floats"), [("onnx-int8", floats_of_onnx), ("openvino-int8", floats_of_openvino)]
)
def test_weights_that_are_no_numbers_are_found_at_load_and_reload(
    bundle: Path,
    tmp_path: Path,
    target: str,
    floats: Callable[[Path], Iterator[tuple[Path, int, int]]],
) -> None:
    live = tmp_path / "live"
    shutil.copytree(bundle, live)
    running = EdgeClassifier.load(live, target=target)
    before = running.predict(TEXTS)
    places = [place for place in floats(bundle) if place[2] >= 64]
    assert places
    for path, offset, size in places:
        with path.open("r+b") as file:
            file.seek(offset)
            file.write(np.full(size // 4, np.nan, np.float32).tobytes())
    seal(bundle)
    message = "the graph gave logits that are not finite; its weights are damaged: export"
    with pytest.raises(EngineError, match=message):
        EdgeClassifier.load(bundle, target=target)
    classifier = EdgeClassifier.load(bundle, target=target, warm=False)
    with pytest.raises(EngineError, match=message):
        classifier.predict_proba(["a text", "another"])
    live.rename(tmp_path / "old")
    bundle.rename(live)
    with pytest.raises(EngineError, match=message):
        running.reload()
    assert running.predict(TEXTS) == before


# --- an engine that is not there


def test_an_engine_that_is_missing_says_what_to_install(shared_bundle: Path) -> None:
    program = """
        import sys
        from mtl_edge import EdgeClassifier
        from mtl_edge.errors import MissingPackageError

        bundle, *blocked = sys.argv[1:]
        for name in blocked:
            sys.modules[name] = None
        print(EdgeClassifier.load(bundle).info.engine if len(blocked) == 1 else "")
        try:
            EdgeClassifier.load(bundle, engine=blocked[0])
        except MissingPackageError as error:
            print(error)
    """
    out = python(program, shared_bundle, "onnxruntime")
    assert out.startswith("openvino\n")
    assert "not installed; `pip install 'onnxruntime'`" in out
    assert "`pip install 'mtl-edge[openvino]'`" in python(
        program, shared_bundle, "openvino", "onnxruntime"
    )


@pytest.mark.parametrize(
    "mistake", ["raise ImportError('no libgomp.so.1')", "raise OSError('no libtbb.so.12')"]
)
def test_a_damaged_installation_is_an_error_of_the_engine(
    shared_bundle: Path, tmp_path: Path, mistake: str
) -> None:
    (tmp_path / "onnxruntime.py").write_text(mistake)
    program = """
        import sys
        sys.path.insert(0, sys.argv[2])
        from mtl_edge import EdgeClassifier
        from mtl_edge.errors import EngineError
        try:
            EdgeClassifier.load(sys.argv[1], engine="onnxruntime", target="onnx-int8")
        except EngineError as error:
            print(error)
        print(EdgeClassifier.load(sys.argv[1]).info.engine)
    """
    error, engine = python(program, shared_bundle, tmp_path).splitlines()
    assert "engine onnxruntime is installed, but its import fails (no lib" in error
    assert "--force-reinstall" in error
    assert engine == "openvino"


@pytest.mark.parametrize("target", TARGETS)
def test_a_device_that_is_not_there_is_named(shared_bundle: Path, target: str) -> None:
    with pytest.raises(EngineError, match=r"no device 'NPU'.* CPU"):
        EdgeClassifier.load(shared_bundle, target=target, device="NPU")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"spin": "sometimes"}, "spin is 'sometimes', expected call, never, always"),
        ({"verify": "Full"}, "verify is 'Full', expected full or size"),
        ({"threads": 1.5}, "threads is 1.5, expected 1 to"),
        ({"threads": "2"}, "threads is '2', expected 1 to"),
    ],
)
def test_an_option_that_means_nothing_is_refused(
    shared_bundle: Path, options: dict[str, Any], message: str
) -> None:
    for target in TARGETS:
        with pytest.raises(OptionError, match=message):
            EdgeClassifier.load(shared_bundle, target=target, **options)


# --- a disk that takes nothing


@pytest.fixture
def read_only() -> Iterator[Callable[[Path], None]]:
    """Makes a folder one that nobody can write to, root included."""
    mounted: list[Path] = []
    closed: list[Path] = []

    def close(folder: Path) -> None:
        if os.name != "posix" or os.geteuid() != 0:
            folder.chmod(0o555)
            closed.append(folder)
            return
        for options in (["--bind", str(folder)], ["-o", "remount,ro,bind"]):
            done = subprocess.run(["mount", *options, str(folder)], capture_output=True)
            if done.returncode != 0:
                pytest.skip("root may write everywhere, and may not mount here")
            mounted.append(folder)

    yield close
    for folder in dict.fromkeys(mounted):
        subprocess.run(["umount", str(folder)], check=True)
    for folder in closed:
        folder.chmod(0o755)


def test_a_read_only_disk_is_all_it_takes(
    bundle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    read_only: Callable[[Path], None],
) -> None:
    cache = tmp_path / "cache"
    cache.mkdir()
    monkeypatch.setenv("MTL_EDGE_CACHE", str(cache))
    read_only(bundle)
    read_only(cache)
    for folder in (bundle, cache):
        with pytest.raises(OSError, match=r"Read-only|Permission"):
            (folder / "new").touch()
    for target in (None, *TARGETS):
        with EdgeClassifier.load(bundle, target=target) as classifier:
            assert len(classifier.predict(TEXTS)) == len(TEXTS)
            classifier.reload()
            assert "measured here" in classifier.info.reason or target is not None
    assert list(cache.iterdir()) == []


# --- memory that is too small


@dataclasses.dataclass
class Tight:
    """An engine that runs out of memory above so many rows."""

    real: Any
    most: int
    runs: list[int] = dataclasses.field(default_factory=list)
    multiple: int = 16
    tokens_per_batch: int = 4096
    fixed_shapes: tuple[tuple[int, int], ...] = ()

    def run(self, input_ids: Ids, attention_mask: Ids) -> Logits:
        self.runs.append(len(input_ids))
        if len(input_ids) > self.most:
            raise OutOfMemoryError("cannot allocate")
        outputs: Logits = self.real.run(input_ids, attention_mask)
        return outputs

    def close(self) -> None:
        self.real.close()


@pytest.mark.parametrize("target", TARGETS)
def test_a_batch_too_large_for_memory_is_halved_until_it_fits(
    shared_bundle: Path, target: str
) -> None:
    with EdgeClassifier.load(shared_bundle, target=target) as classifier:
        expected = classifier.logits(TEXTS)
        loaded = classifier._running()
        tight = Tight(loaded.engine, most=3)
        stage = dataclasses.replace(loaded.stages[-1], engine=tight)
        classifier._session = dataclasses.replace(loaded, stages=(stage,))
        found = classifier.logits(TEXTS)
        for task, logits in expected.items():
            np.testing.assert_allclose(found[task], logits, atol=1e-4)
        assert max(tight.runs) > 6
        tight.most = 0
        with pytest.raises(OutOfMemoryError, match=r"even alone; free some, or lower Limits\.tok"):
            classifier.predict("a text")
        with pytest.raises(MemoryError):
            classifier.predict(TEXTS)


@pytest.mark.skipif(sys.platform != "linux", reason="limits a process's memory as Linux does")
@pytest.mark.parametrize("target", TARGETS)
def test_a_process_that_may_take_no_more_memory_never_answers_wrongly(
    shared_bundle: Path, target: str
) -> None:
    program = """
        import resource, sys
        import numpy as np
        from mtl_edge import EdgeClassifier, Limits

        bundle, target = sys.argv[1:]
        texts = [f"number {i} " + "and so on " * 60 for i in range(800)]
        limits = Limits(batch_tokens=10**6)
        with EdgeClassifier.load(bundle, target=target, threads=1) as classifier:
            expected = classifier.logits(texts)
        classifier = EdgeClassifier.load(bundle, target=target, threads=1, limits=limits)
        rows = []
        engine = classifier._running().engine
        run = type(engine).run
        def counted(self, ids, mask):
            rows.append(len(ids))
            return run(self, ids, mask)
        type(engine).run = counted
        classifier.logits(texts[:10])
        with open("/proc/self/statm") as file:
            most = int(file.read().split()[0]) * resource.getpagesize() + 150 * 2**20
        resource.setrlimit(resource.RLIMIT_AS, (most, resource.RLIM_INFINITY))
        try:
            answered = [classifier.logits(texts)]
        except MemoryError:  # what OpenVINO took for the large batch it may keep
            assert target.startswith("openvino")
            answered = []
        assert max(rows) == 800 and rows[-1] < 800, rows
        resource.setrlimit(resource.RLIMIT_AS, (-1, -1))
        for found in (*answered, classifier.logits(texts)):
            for task, logits in expected.items():
                np.testing.assert_allclose(found[task], logits, atol=1e-3)
    """
    process = start(program, shared_bundle, target)
    out, err = process.communicate(timeout=120)
    # Once an allocation of its own has failed, OpenVINO may crash: no answer, but no wrong one.
    crashes = (-signal.SIGSEGV, -signal.SIGABRT) if target.startswith("openvino") else ()
    assert process.returncode in crashes or (process.returncode, out, err) == (0, "", "")


# --- a process that is told to end


STREAM = """
    import itertools, signal, sys
    from mtl_edge import EdgeClassifier

    if sys.argv[3] == "handled":
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    classifier = EdgeClassifier.load(sys.argv[1], target=sys.argv[2])
    texts = (f"text number {i}" for i in itertools.count())
    for count, _ in enumerate(classifier.predict_iter(texts, window=100)):
        if count == 250:
            print("under way", flush=True)
"""


@pytest.mark.skipif(os.name != "posix", reason="signals")
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(("way", "code"), [("plain", -signal.SIGTERM), ("handled", 0)])
def test_a_stream_ends_at_once_and_quietly_when_told_to(
    shared_bundle: Path, target: str, way: str, code: int
) -> None:
    process = start(STREAM, shared_bundle, target, way)
    assert process.stdout is not None
    assert process.stdout.readline() == "under way\n"
    process.send_signal(signal.SIGTERM)
    began = time.monotonic()
    _, err = process.communicate(timeout=30)
    assert time.monotonic() - began < 5
    assert (process.returncode, err) == (code, "")


# --- a bundle that is replaced while it is in use


def turned(bundle: Path) -> Path:
    """A bundle beside this one, the same but for the topics' labels, which are in capitals."""
    other = Path(shutil.copytree(bundle, bundle.with_name("other")))

    def change(manifest: dict[str, Any]) -> None:
        topic = manifest["tasks"][1]
        topic["labels"] = [label.upper() for label in topic["labels"]]

    seal(other, change)
    return other


@pytest.mark.parametrize("target", TARGETS)
def test_a_replaced_bundle_counts_from_reload_on(bundle: Path, target: str) -> None:
    other, old = turned(bundle), bundle.with_name("old")
    with EdgeClassifier.load(bundle, target=target) as classifier:
        before = classifier.predict(TEXTS)
        stream = classifier.predict_iter(TEXTS, window=5)
        first = next(stream)
        bundle.rename(old)
        other.rename(bundle)
        shutil.rmtree(old)
        assert classifier.predict(TEXTS) == before
        classifier.reload()
        after = classifier.predict(TEXTS)
        assert [p["topic"].label for p in after] == [p["topic"].label.upper() for p in before]
        assert [p["topic"].label for p in (first, *stream)] == [p["topic"].label for p in before]


@pytest.mark.parametrize("target", TARGETS)
def test_a_reload_that_fails_leaves_the_old_one_running(bundle: Path, target: str) -> None:
    other = turned(bundle)
    with EdgeClassifier.load(bundle, target=target) as classifier:
        before = classifier.predict(TEXTS)
        bundle.rename(bundle.with_name("old"))
        with pytest.raises(BundleError, match="no bundle at"):
            classifier.reload()
        assert classifier.predict(TEXTS) == before
        other.rename(bundle)
        (bundle / "tokenizer.json").write_bytes(b"{}")
        with pytest.raises(BundleError, match=r"tokenizer\.json has 2 bytes"):
            classifier.reload()
        assert classifier.predict(TEXTS) == before
        assert classifier.info.tasks == ("sentiment", "topic")


@pytest.mark.parametrize("target", TARGETS)
def test_calls_during_reloads_get_the_old_answers_or_the_new(bundle: Path, target: str) -> None:
    other = turned(bundle)
    with EdgeClassifier.load(bundle, target=target, threads=1, fixed_tokens=0) as classifier:
        expected = [p["topic"].label for p in classifier.predict(TEXTS)]
        allowed = (expected, [label.upper() for label in expected])
        done, seen, wrong = threading.Event(), [0, 0], list[object]()

        def work() -> None:
            while not done.is_set():
                try:
                    labels = [p["topic"].label for p in classifier.predict(TEXTS)]
                    seen[allowed.index(labels)] += 1
                except Exception as error:
                    wrong.append(error)

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for _ in range(6):
            between = bundle.with_name("between")
            bundle.rename(between)
            other.rename(bundle)
            between.rename(other)
            classifier.reload()
        done.set()
        for thread in threads:
            thread.join()
    assert wrong == []
    assert min(seen) > 0


def test_errors_are_caught_by_whoever_does_not_know_this_package() -> None:
    assert issubclass(OutOfMemoryError, MemoryError)
    assert issubclass(MissingPackageError, ImportError)
    assert issubclass(BundleError, ValueError)
    assert issubclass(EngineError, RuntimeError)
    assert Limits(tokens=3).tokens == 3
