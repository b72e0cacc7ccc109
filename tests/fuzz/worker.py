"""A process in which a case may do its worst: it has limits on memory and time, and can be lost."""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import os
import resource
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from tests.fuzz.cases import KINDS

__all__ = ["MEMORY", "SECONDS", "Outcome", "Worker"]

MEMORY = 6 * 2**30  # of addresses, of which engines reserve more than they use
SECONDS = 20.0


@dataclass(frozen=True)
class Outcome:
    """What became of a case.

    Attributes:
        name: `ok`, the name of one of this package's errors, or, all of them faults: `escaped`
            (another error), `crashed` or `hung`.
        detail: the error, or the signal.
        seconds: that it took.
    """

    name: str
    detail: str = ""
    seconds: float = 0.0

    @property
    def fault(self) -> bool:
        return self.name in ("escaped", "crashed", "hung")


class Worker:
    """Runs cases one after another in a process of its own, and starts another when one is lost."""

    def __init__(self, bundle: Path, seconds: float = SECONDS) -> None:
        self._bundle = bundle
        self._seconds = seconds
        self._process: Any = None
        self._pipe: Connection | None = None

    def run(self, kind: str, case: Any) -> Outcome:
        """Run one case: a changed file's bytes, or texts for the kind `text`."""
        pipe = self._started()
        started = time.monotonic()
        try:
            pipe.send((kind, case))
            if pipe.poll(self._seconds):
                name, detail = pipe.recv()
                return Outcome(name, detail, time.monotonic() - started)
        except (EOFError, OSError):
            self._process.join()
            return self._lost(Outcome("crashed", f"exit code {self._process.exitcode}"))
        return self._lost(Outcome("hung", f"more than {self._seconds:.0f} s"))

    def _started(self) -> Connection:
        if self._pipe is None:
            context = multiprocessing.get_context("spawn")
            self._pipe, theirs = context.Pipe()
            self._process = context.Process(target=_work, args=(theirs, self._bundle), daemon=True)
            self._process.start()
            theirs.close()
            self._pipe.recv()  # the imports, which are no case's
        return self._pipe

    def _lost(self, outcome: Outcome) -> Outcome:
        self.close()
        return outcome

    def close(self) -> None:
        if self._pipe is not None:
            self._process.kill()
            self._process.join()
            self._pipe.close()
            self._pipe = None


def _work(pipe: Connection, bundle: Path) -> None:
    """The process: cases in, outcomes out, until the other end closes."""
    os.environ["RUST_BACKTRACE"] = "0"
    # What libraries say of a damaged file, in their thousands.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    import openvino  # noqa: F401

    from mtl_edge.errors import MtlEdgeError

    with tempfile.TemporaryDirectory() as work:
        folder = Path(shutil.copytree(bundle, Path(work) / "bundle"))
        runs = _runs(folder)
        pipe.send("ready")
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        while True:
            try:
                kind, case = pipe.recv()
            except EOFError:
                return
            try:
                runs[kind](case)
                result = ("ok", "")
            except MtlEdgeError as error:
                result = (type(error).__name__, str(error)[:300])
            except BaseException as error:  # that is what is looked for
                result = ("escaped", repr(error)[:300])
            pipe.send(result)


def _runs(folder: Path) -> Mapping[str, Callable[[Any], None]]:
    """By kind, what is done with a case."""
    from mtl_edge import engines
    from mtl_edge.bundle import MANIFEST, TOKENIZER, open_bundle
    from mtl_edge.tokens.encoder import TextEncoder

    whole = open_bundle(folder)
    manifest = json.loads((folder / MANIFEST).read_bytes())
    backbone = whole.manifest.backbone
    graphs = {graph.engine: graph for graph in whole.manifest.graphs}
    kept: dict[str, Any] = {}

    def encoder() -> TextEncoder:
        return TextEncoder.from_file(folder / TOKENIZER, 128, backbone.vocabulary)

    def started(engine: str) -> engines.Engine:
        bundle = open_bundle(folder, verify="size")
        setup = engines.Setup(1, bundle.manifest.max_tokens)
        return engines.start(engine, bundle.files_of(graphs[engine]), setup)

    def of_manifest(case: bytes) -> None:
        original = (folder / MANIFEST).read_bytes()
        (folder / MANIFEST).write_bytes(case)
        try:
            found = open_bundle(folder, verify="size").manifest
            json.dumps(dataclasses.asdict(found), ensure_ascii=False, allow_nan=False).encode()
        finally:
            (folder / MANIFEST).write_bytes(original)

    def of_tokenizer() -> None:
        tokenizer = encoder()
        tokenizer(["", "hello world", "a" * 200 + "!", "ﷺ é \U0001f600", "a b " * 500])

    def of_engine(engine: str) -> None:
        running = started(engine)
        ids = np.arange(100, 132, dtype=np.int64).reshape(2, 16)
        running.run(ids, np.ones_like(ids))
        running.close()

    def of_texts(case: list[str]) -> None:
        if not kept:
            kept["encoder"], kept["engine"] = encoder(), started("onnxruntime")
        ids = kept["encoder"](case)
        longest = max(map(len, ids))
        padded = np.array([[*row, *[0] * (longest - len(row))] for row in ids], np.int64)
        mask = np.array([[1] * len(row) + [0] * (longest - len(row)) for row in ids], np.int64)
        for values in kept["engine"].run(padded, mask).values():
            if not np.isfinite(values).all():
                raise ArithmeticError("logits that are no numbers")

    def of_file(file: str, use: Callable[[], None]) -> Callable[[bytes], None]:
        """Put a changed file in its place, let the manifest say so, and use it."""

        def run(case: bytes) -> None:
            original = (folder / file).read_bytes()
            entries = [
                {**e, "size": len(case)} if e["path"] == file else e for e in manifest["files"]
            ]
            try:
                (folder / file).write_bytes(case)
                (folder / MANIFEST).write_text(json.dumps({**manifest, "files": entries}))
                use()
            finally:
                (folder / file).write_bytes(original)
                (folder / MANIFEST).write_text(json.dumps(manifest))

        return run

    uses = {"tokenizer": of_tokenizer, "onnx": lambda: of_engine("onnxruntime")}
    return {
        "manifest": of_manifest,
        "text": of_texts,
        **{
            kind: of_file(found.file, uses.get(kind, lambda: of_engine("openvino")))
            for kind, found in KINDS.items()
            if kind != "manifest"
        },
    }
