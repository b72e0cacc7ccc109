"""The runtime as a guest in an app's process: light, quiet, shareable, and gone when it is told."""

from __future__ import annotations

import copy
import gc
import pickle
import statistics
import subprocess
import sys
import textwrap
import threading
import weakref
from pathlib import Path

import numpy as np
import pytest

from mtl_edge import EdgeClassifier
from mtl_edge.errors import ClosedError, NotPicklableError

TARGETS = ["onnx-int8", "openvino-int8"]
TEXTS = [f"text number {i} " + "and so on " * (i % 9) for i in range(100)]
needs_fork = pytest.mark.skipif(sys.platform != "linux", reason="forks or looks into /proc")


def python(program: str, *arguments: object, timeout: float = 120) -> str:
    """What a program prints in a process of its own; it must end well and complain of nothing."""
    command = [sys.executable, "-W", "always", "-c", textwrap.dedent(program)]
    done = subprocess.run(
        [*command, *map(str, arguments)], capture_output=True, text=True, timeout=timeout
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stderr or done.returncode
    return done.stdout


def test_importing_costs_little_more_than_what_it_stands_on() -> None:
    program = """
        import sys, time
        began = time.perf_counter()
        import numpy, tokenizers
        middle = time.perf_counter()
        import mtl_edge
        print(middle - began, time.perf_counter() - middle)
    """
    runs = [[float(value) for value in python(program).split()] for _ in range(5)]
    under, ours = (statistics.median(times) for times in zip(*runs, strict=True))
    assert ours < max(0.6 * under, 0.05), (under, ours)


def test_a_setting_of_the_process_is_left_as_it_was(shared_bundle: Path) -> None:
    program = """
        import gc, locale, logging, os, random, signal, sys, threading, warnings
        import numpy as np

        def settings():
            loggers = [logging.root, *logging.root.manager.loggerDict.values()]
            return {
                "logging": [
                    (log.name, log.level, log.handlers, log.disabled, log.propagate)
                    for log in loggers if isinstance(log, logging.Logger)
                ],
                "warnings": list(warnings.filters),
                "showwarning": warnings.showwarning,
                "signals": [signal.getsignal(number) for number in signal.valid_signals()],
                "environment": dict(os.environ),
                "folder": os.getcwd(),
                "locale": locale.setlocale(locale.LC_ALL),
                "random": random.getstate(),
                "numpy's random": [str(part) for part in np.random.get_state()],
                "numpy's errors": np.geterr(),
                "numpy's printing": np.get_printoptions(),
                "hooks": (sys.excepthook, sys.unraisablehook, threading.excepthook),
                "streams": (sys.stdin, sys.stdout, sys.stderr),
                "collector": (gc.isenabled(), gc.get_threshold(), gc.callbacks[:]),
                "switching": (sys.getswitchinterval(), sys.getrecursionlimit()),
                "affinity": os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None,
                "mask": os.umask(os.umask(0o22) and 0o22),
            }

        np.random.seed(3)
        np.seterr(all="raise")
        import concurrent.futures, asyncio  # of the standard library: they may log
        before = settings()
        def compare(when):
            now = settings()
            # Loggers of libraries may come, if they say and handle nothing by themselves.
            known = {name for name, *_ in before["logging"]}
            new = [log for log in now["logging"] if log[0] not in known]
            assert not any(log[2] for log in new), new
            now["logging"] = [log for log in now["logging"] if log[0] in known]
            for name, value in before.items():
                assert now[name] == value, f"{name}, {when}: {value} became {now[name]}"

        from mtl_edge import EdgeClassifier
        compare("imported")
        classifier = EdgeClassifier.load(sys.argv[1], target=sys.argv[2])
        compare("loaded")
        classifier.predict(["a text"] * 50)
        list(classifier.predict_iter(["a text"] * 50, window=10))
        compare("used")
        classifier.close()
        compare("closed")
    """
    for target in TARGETS:
        assert python(program, shared_bundle, target) == ""


def test_what_is_not_used_is_not_imported(shared_bundle: Path) -> None:
    program = """
        import sys
        import numpy, tokenizers
        before = {"asyncio", "concurrent.futures"} & set(sys.modules)
        import mtl_edge
        wanted = {"onnxruntime", "openvino", "asyncio", "concurrent.futures", "ctypes.util"}
        assert wanted & set(sys.modules) - before <= {"ctypes.util"}, wanted & set(sys.modules)
        classifier = mtl_edge.EdgeClassifier.load(sys.argv[1], engine="onnxruntime")
        classifier.predict(["a text", "another"])
        came = {"openvino", "asyncio", "concurrent.futures"} & set(sys.modules) - before
        assert not came, came
    """
    python(program, shared_bundle)


@pytest.mark.parametrize("target", TARGETS)
def test_sixteen_threads_get_to_the_bit_what_one_gets(shared_bundle: Path, target: str) -> None:
    with EdgeClassifier.load(shared_bundle, target=target) as classifier:
        many, alone = classifier.logits(TEXTS), [classifier.logits(text) for text in TEXTS[:10]]
        together, wrong = threading.Barrier(16), list[str]()

        def work(number: int) -> None:
            together.wait()
            for _ in range(3):
                for task, expected in many.items():
                    if not np.array_equal(classifier.logits(TEXTS)[task], expected):
                        wrong.append(f"{number}: all")
                for text, expected_alone in zip(TEXTS[:10], alone, strict=True):
                    if not np.array_equal(
                        classifier.logits(text)["topic"], expected_alone["topic"]
                    ):
                        wrong.append(f"{number}: {text}")

        threads = [threading.Thread(target=work, args=(number,)) for number in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert wrong == []


@pytest.mark.parametrize("other", TARGETS)
@pytest.mark.parametrize("target", TARGETS)
def test_two_classifiers_leave_each_other_alone(
    shared_bundle: Path, target: str, other: str
) -> None:
    with EdgeClassifier.load(shared_bundle, target=target) as first:
        expected = first.logits(TEXTS)["topic"]
        second = EdgeClassifier.load(shared_bundle, target=other, threads=1)
        second_expected = second.logits(TEXTS)["topic"]
        seen: list[bool] = []

        def work(classifier: EdgeClassifier, wanted: object) -> None:
            seen.extend(np.array_equal(classifier.logits(TEXTS)["topic"], wanted) for _ in range(5))

        pairs = ((first, expected), (second, second_expected))
        threads = [threading.Thread(target=work, args=pair) for pair in pairs]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert seen == [True] * 10
        second.close()
        np.testing.assert_array_equal(first.logits(TEXTS)["topic"], expected)


FORK = """
    import os, signal, sys
    import numpy as np
    from mtl_edge import EdgeClassifier
    from mtl_edge.errors import ClosedError

    signal.alarm(60)
    classifier = EdgeClassifier.load(sys.argv[1], target=sys.argv[2])
    texts = [f"text number {i}" for i in range(500)]
    expected = classifier.logits(texts)["topic"]
    stream = classifier.predict_iter(texts, window=50)
    next(stream)
    for way in ("leave", "close", "drop", "reload"):
        child = os.fork()
        if child == 0:
            signal.alarm(20)  # a child that hangs is killed by it
            try:
                classifier.predict("a text")
                os._exit(3)
            except ClosedError as error:
                if "reload()" not in str(error) or "fork" not in repr(error):
                    os._exit(4)
            if not repr(classifier).startswith("<EdgeClassifier of sentiment, topic"):
                os._exit(5)
            if way == "close":
                classifier.close()
            elif way == "drop":
                del classifier, stream
            elif way == "reload":
                for _ in range(2):
                    classifier.reload()
                    if not np.array_equal(classifier.logits(texts)["topic"], expected):
                        os._exit(6)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        assert status == 0, (way, status)
        assert np.array_equal(classifier.logits(texts)["topic"], expected), way
    assert len(list(stream)) == 499
"""


@needs_fork
@pytest.mark.parametrize("target", TARGETS)
def test_a_fork_has_to_reload_and_its_parent_goes_on(shared_bundle: Path, target: str) -> None:
    assert python(FORK, shared_bundle, target) == ""


@pytest.mark.parametrize("target", TARGETS)
def test_a_pool_of_processes_that_load_for_themselves_works(
    shared_bundle: Path, tmp_path: Path, target: str
) -> None:
    module = tmp_path / "pooled.py"
    module.write_text(
        textwrap.dedent("""
        import multiprocessing, sys
        from mtl_edge import EdgeClassifier

        def start(bundle, target):
            global classifier
            classifier = EdgeClassifier.load(bundle, target=target, threads=1)

        def work(text):
            return classifier.predict(text)  # predictions travel

        if __name__ == "__main__":
            start(*sys.argv[1:3])
            texts = [f"text number {i}" for i in range(20)]
            expected = [work(text) for text in texts]
            context = multiprocessing.get_context("spawn")
            with context.Pool(2, start, sys.argv[1:3]) as pool:
                assert pool.map(work, texts) == expected
        """)
    )
    done = subprocess.run(
        [sys.executable, str(module), str(shared_bundle), target],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


LEAKS = """
    import gc, os, sys, time
    from mtl_edge import EdgeClassifier

    def now():
        gc.collect()
        with open("/proc/self/statm") as file:
            pages = int(file.read().split()[1])
        threads = len(os.listdir("/proc/self/task"))
        return pages * os.sysconf("SC_PAGESIZE") / 2**20, len(os.listdir("/proc/self/fd")), threads

    bundle, target, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
    marks = []
    for i in range(count):
        classifier = EdgeClassifier.load(
            bundle, target=target, warm=False, fixed_tokens=0, threads=2, verify="size"
        )
        classifier.predict("a text")
        classifier.close()
        if i % (count // 4) == count // 4 - 1:
            marks.append(now())
    for mark in marks:
        print(*mark)
"""


@needs_fork
@pytest.mark.parametrize(
    ("target", "count"),
    [
        ("onnx-int8", 200),
        ("openvino-int8", 40),
        pytest.param("onnx-int8", 800, marks=pytest.mark.slow),
        pytest.param("openvino-int8", 160, marks=pytest.mark.slow),
    ],
)
def test_loads_and_closes_leave_nothing_behind(
    shared_bundle: Path, target: str, count: int
) -> None:
    lines = python(LEAKS, shared_bundle, target, count, timeout=3600).splitlines()
    marks = [[float(value) for value in line.split()] for line in lines]
    (first, files, threads), (last, *counts) = marks[0], marks[-1]
    assert counts == [files, threads]
    # Three quarters of the loads lie between, and their files have 5 MB each.
    assert last - first < 40, marks


@pytest.mark.parametrize("target", TARGETS)
def test_a_classifier_that_is_dropped_frees_its_engine(shared_bundle: Path, target: str) -> None:
    classifier = EdgeClassifier.load(shared_bundle, target=target, fixed_tokens=0)
    classifier.predict(TEXTS)
    list(classifier.predict_iter(TEXTS, window=10))
    engine = weakref.ref(classifier._running().engine)
    assert engine() is not None
    gc.disable()  # no cycle may hold it either
    try:
        del classifier
        assert engine() is None
    finally:
        gc.enable()


def test_after_close_everything_says_so(shared_bundle: Path) -> None:
    import asyncio

    classifier = EdgeClassifier.load(shared_bundle, target="onnx-int8")
    assert repr(classifier).startswith("<EdgeClassifier of sentiment, topic: onnx-int8 from ")
    classifier.close()
    classifier.close()
    assert repr(classifier) == "<EdgeClassifier, closed>"
    for name in ("info", "manifest", "graph", "tasks", "classes_"):
        with pytest.raises(ClosedError, match="was closed; load the bundle again"):
            getattr(classifier, name)
    for name in ("predict", "predict_proba", "logits", "predict_iter"):
        with pytest.raises(ClosedError, match="was closed"):
            getattr(classifier, name)(["a text"])
    for name in ("apredict", "apredict_proba"):
        with pytest.raises(ClosedError, match="was closed"):
            asyncio.run(getattr(classifier, name)("a text"))
    with pytest.raises(ClosedError, match="was closed"):
        classifier.warmup()
    classifier.reload()
    assert classifier.predict("a text")["topic"].probability > 0


def test_a_classifier_stays_in_its_process_and_answers_travel(shared_bundle: Path) -> None:
    with EdgeClassifier.load(shared_bundle, target="onnx-int8") as classifier:
        for way in (pickle.dumps, copy.copy, copy.deepcopy):
            with pytest.raises(
                NotPicklableError, match="pass the bundle's path, and load it there"
            ):
                way(classifier)
        assert issubclass(NotPicklableError, TypeError)  # what pickle itself raises
        prediction = classifier.predict("a text")
        assert pickle.loads(pickle.dumps(prediction)) == prediction
        assert pickle.loads(pickle.dumps(classifier.info)) == classifier.info


def test_info_tells_what_runs(shared_bundle: Path) -> None:
    with EdgeClassifier.load(shared_bundle, target="onnx-int8", threads=1) as classifier:
        info = classifier.info
        assert (info.engine, info.target, info.precision) == ("onnxruntime", "onnx-int8", "int8")
        assert (info.device, info.threads, info.fixed_shapes) == ("CPU", 1, ())
        assert info.path == shared_bundle.resolve()
        assert info.tasks == ("sentiment", "topic") == tuple(classifier.classes_)
        assert "only one" in info.reason
        assert info.max_tokens == classifier.manifest.max_tokens
        assert classifier.graph.target == info.target
        np.testing.assert_array_equal(
            classifier.classes_["topic"], ["food", "gadgets", "money", "travel"]
        )
    with EdgeClassifier.load(shared_bundle, target="openvino-int8", fixed_tokens=32) as classifier:
        assert classifier.info.fixed_shapes == ((1, 16), (1, 32))
        classifier.warmup()
    with EdgeClassifier.load(shared_bundle, target="openvino-int8", fixed_tokens=0) as classifier:
        assert classifier.info.fixed_shapes == ()
