"""The process in which a peer is fitted, loaded and timed; runs inside the peer's environment.

    python child.py ADAPTER FOLDER OPTIONS THREADS CORES

ADAPTER is a file of `adapters/`, FOLDER where its models are kept, OPTIONS JSON, CORES a list with
commas. Knows nothing of mtl_edge: standard library and numpy, and whatever the adapter imports.
Reads a JSON command a line from standard input and answers a JSON line; what libraries print goes
to standard error. An adapter defines some of

    prepare(rows, backbone, folder, options)   what needs another environment, such as a conversion
    fit(rows, backbone, folder, options)       learn and save; rows: {task: [texts, labels]}
    load(folder, options, threads)             a function: texts -> {task: (labels, probabilities)}
"""

import importlib.util
import json
import os
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any

WARM_UP = 64  # texts before a timed pass, so that the cores are awake and the caches this process's


def memory() -> dict[str, float]:
    """Megabytes of this process now and at most; empty where the system does not tell."""
    try:
        with open("/proc/self/status", encoding="ascii") as file:
            found = dict(line.split(":", 1) for line in file)
    except OSError:
        return {}
    return {
        "now": int(found["VmRSS"].split()[0]) * 1024 / 1e6,
        "peak": int(found["VmHWM"].split()[0]) * 1024 / 1e6,
    }


def size_of(folder: str) -> int:
    return sum(
        os.path.getsize(os.path.join(path, file))
        for path, _, files in os.walk(folder)
        for file in files
    )


def texts_of(command: dict[str, Any]) -> list[str]:
    with open(command["texts"], encoding="utf-8") as file:
        texts: list[str] = json.load(file)
    return texts


class Child:
    """An adapter with its folder, and once loaded its function that answers."""

    def __init__(self, adapter: str, folder: str, options: dict[str, Any], threads: int) -> None:
        self.folder, self.options, self.threads = folder, options, threads
        # At the end: no module beside the adapters may hide a library's.
        sys.path.append(os.path.dirname(adapter))
        spec = importlib.util.spec_from_file_location(
            f"adapter_{os.path.basename(adapter)[:-3]}", adapter
        )
        assert spec is not None
        assert spec.loader is not None
        self.adapter = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(self.adapter)
        self.answers: Callable[[list[str]], dict[str, Any]]
        self.passed = 0

    def do(self, command: dict[str, Any]) -> dict[str, Any]:
        answer: dict[str, Any] = getattr(self, command["do"])(command)
        return answer

    def prepare(self, command: dict[str, Any]) -> dict[str, Any]:
        return self._learn(getattr(self.adapter, "prepare", None), command)

    def fit(self, command: dict[str, Any]) -> dict[str, Any]:
        return self._learn(getattr(self.adapter, "fit", None), command)

    def _learn(
        self, function: Callable[..., None] | None, command: dict[str, Any]
    ) -> dict[str, Any]:
        start = time.perf_counter()
        if function is not None:
            with open(command["rows"], encoding="utf-8") as file:
                rows = json.load(file)
            function(rows, command["backbone"], self.folder, self.options)
        return {"seconds": time.perf_counter() - start, "bytes": size_of(self.folder)}

    def load(self, command: dict[str, Any]) -> dict[str, Any]:
        start = time.perf_counter()
        self.answers = self.adapter.load(self.folder, self.options, self.threads)
        return {"seconds": time.perf_counter() - start}

    def answer(self, command: dict[str, Any]) -> dict[str, Any]:
        found = self.answers(texts_of(command))
        return {"labels": {task: list(map(str, labels)) for task, (labels, _) in found.items()}}

    def answer_singly(self, command: dict[str, Any]) -> dict[str, Any]:
        """The same, each text by itself."""
        labels: dict[str, list[str]] = {}
        for text in texts_of(command):
            for task, (label, _) in self.answers([text]).items():
                labels.setdefault(task, []).append(str(label[0]))
        return {"labels": labels}

    def time_bulk(self, command: dict[str, Any]) -> dict[str, Any]:
        """Passes over `size` texts in one call, until `at_least` seconds; seconds of one.

        Each takes the texts that follow those of the pass before, so that nobody gains by having
        seen them; as there are only so many, a round makes `most` passes.
        """
        texts, size = texts_of(command), command["size"]
        parts = [texts[at : at + size] for at in range(0, len(texts) - size + 1, size)]
        self.answers(texts[-WARM_UP:])
        passes, cpu, start = 0, time.process_time(), time.perf_counter()
        while True:
            self.answers(parts[self.passed % len(parts)])
            self.passed += 1
            passes += 1
            taken = time.perf_counter() - start
            if taken >= command["at_least"] or passes == command["most"]:
                break
        used = time.process_time() - cpu
        return {"seconds": taken / passes, "cpu": used / passes, "passes": passes}

    def time_singles(self, command: dict[str, Any]) -> dict[str, Any]:
        """Seconds of each text by itself, in their order, but for the first two: to warm up."""
        texts = texts_of(command)
        for text in texts[:2]:
            self.answers([text])
        taken, cpu = [], time.process_time()
        for text in texts[2:]:
            start = time.perf_counter()
            self.answers([text])
            taken.append(time.perf_counter() - start)
        return {"seconds": taken, "cpu": time.process_time() - cpu}

    def memory(self, command: dict[str, Any]) -> dict[str, float]:
        return memory()


def main() -> None:
    adapter, folder, options, threads, cores = sys.argv[1:]
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, [int(core) for core in cores.split(",")])
    private = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # a library's print must not break the protocol

    def say(answer: dict[str, Any]) -> None:
        private.write(json.dumps(answer) + "\n")
        private.flush()

    child = None
    for line in sys.stdin:
        try:
            if child is None:  # here, so that an adapter that cannot be imported is an answer too
                child = Child(adapter, folder, json.loads(options), int(threads))
            say(child.do(json.loads(line)))
        except Exception as error:
            traceback.print_exc()
            say({"error": f"{type(error).__name__}: {error}"})


if __name__ == "__main__":
    main()
