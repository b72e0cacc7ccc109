"""The runtime's front door."""

from __future__ import annotations

import math
import os
import time
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import NoReturn, overload

import numpy as np
import numpy.typing as npt

from mtl_edge import engines
from mtl_edge.answers.predictions import Answer, Prediction, in_order, predictions
from mtl_edge.batches.prefetch import ahead, windows
from mtl_edge.bundle import Graph, Manifest, Task, Verify
from mtl_edge.cascade.session import Loaded, answering, load_bundle
from mtl_edge.cascade.stages import Answered, Probabilities
from mtl_edge.engines import Logits, Setup, Spin
from mtl_edge.engines.cores import default_threads
from mtl_edge.engines.forks import outlive_forks
from mtl_edge.errors import (
    ClosedError,
    NotPicklableError,
    OptionError,
    TextError,
)
from mtl_edge.io.in_memory import Column, listed, streamed
from mtl_edge.io.limits import Limits
from mtl_edge.tokens.encoder import as_texts

__all__ = ["Answer", "EdgeClassifier", "Info", "Prediction"]

WINDOW = 2048  # texts that are planned into batches together


@dataclass(frozen=True, slots=True)
class Info:
    """What a classifier runs.

    Attributes:
        path: of the bundle.
        target: the graph's name.
        reason: why `auto` took it.
        threads: that the engine was given.
        depth: layers of the encoder that the graph runs; of a bundle with stages, the deepest.
        max_tokens: at which texts are cut.
        fixed_shapes: `(batch, tokens)` that the engine compiled ahead.
        depths: of every stage that may answer, rising.
    """

    path: Path
    engine: str
    target: str
    precision: str
    device: str
    threads: int
    reason: str
    tasks: tuple[str, ...]
    depth: int
    max_tokens: int
    fixed_shapes: tuple[tuple[int, int], ...]
    depths: tuple[int, ...]


class EdgeClassifier:
    """A loaded bundle: texts in, one answer per task out.

        with EdgeClassifier.load("bundle") as classifier:
            prediction = classifier.predict("a quiet triumph")
            prediction["sentiment"].label

    Texts are a string, or several: a list, any iterable, or a column of pandas, Polars, Arrow or
    numpy. A text's answer does not depend on what else is in the call, beyond float rounding. Any
    number of threads may share a classifier. A process that was forked from the one that loaded it
    has to `reload`.
    """

    def __init__(self, load: Callable[[], Loaded], limits: Limits) -> None:
        """Use `EdgeClassifier.load`."""
        self._load = load
        self._limits = limits
        self._loaded: Loaded | None = load()

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        engine: str = "auto",
        target: str | None = None,
        tasks: Sequence[str] | None = None,
        threads: int | None = None,
        device: str = engines.CPU,
        limits: Limits = Limits(),
        spin: Spin = "call",
        fixed_tokens: int | None = None,
        warm: bool = True,
        verify: Verify = "full",
        public_key: str | Path | None = None,
        max_depth: int | None = None,
        depth_for: Sequence[str] | None = None,
    ) -> EdgeClassifier:
        """Verify a bundle and start an engine on it.

        Args:
            path: the bundle's folder.
            engine: `onnxruntime`, `openvino`, `torch`, or `auto`: the fastest of those that are
                installed, by a measurement on this machine (see `mtl_edge.choosing`).
            target: the graph to run, as `mtl-edge info` lists them; default: the fastest.
            tasks: to answer, in this order; default: all of the bundle's. The graph computes the
                others along: together they cost a few percent.
            threads: default: the physical cores that this process may use, at most 8. torch heeds
                neither this nor `spin`: its threads are set for the process as a whole.
            device: `CPU`, or what the engine calls another: `CUDA`, `CoreML`, ... in ONNX Runtime,
                `GPU` and `NPU` in OpenVINO, `CUDA` in torch.
            limits: on what a call may ask for.
            spin: whether the engine's threads wait busily: `call`, within a call alone; `never`;
                or `always`, which is fastest and takes cores from the app. OpenVINO decides itself.
            fixed_tokens: single texts of up to so many tokens get graphs of fixed shapes, where
                the engine gains by it (OpenVINO: 64 by default); 0 saves their memory.
            warm: run once before returning, so that the first answer takes no longer than others
                and a damaged graph is found at once.
            verify: `full` compares every file's sha256, `size` only sizes.
            public_key: the file of the key that the bundle must be signed for.
            max_depth: of a bundle with stages, those that run more layers are not opened, and the
                deepest one left answers all that reaches it.
            depth_for: of a bundle with stages, those of `tasks` whose certainty decides whether a
                text goes on to the next; default: all. A task that is asked of texts from outside
                its domain is seldom sure, and sends them on for nothing.

        Raises:
            BundleError: the bundle is missing, incomplete, altered or not signed.
            EngineError: the engine or device is unknown, not there or cannot run the graph.
            OptionError: the bundle has no such graph, task or stage, or `threads` is out of range.
        """
        setup = Setup(threads=threads, device=device, spin=spin, fixed_tokens=fixed_tokens)
        opened = partial(
            load_bundle, Path(path), engine, target, setup, limits, verify, public_key, max_depth
        )
        wanted, deciding = (
            names if names is None or isinstance(names, str) else tuple(names)
            for names in (tasks, depth_for)
        )

        def load() -> Loaded:
            loaded = answering(opened(), wanted, deciding)
            outlive_forks(loaded)
            if warm:
                loaded.warm(batches=False)
            return loaded

        return cls(load, limits)

    @property
    def info(self) -> Info:
        """What runs, and why."""
        loaded = self._now()
        graph, setup = loaded.choice.graph, loaded.setup
        return Info(
            path=loaded.bundle.path,
            engine=loaded.choice.engine,
            target=graph.target,
            precision=graph.precision,
            device=setup.device,
            threads=setup.threads or default_threads(),
            reason=loaded.choice.reason,
            tasks=tuple(task.name for task in loaded.tasks),
            depth=loaded.bundle.manifest.depth,
            max_tokens=loaded.encoder.max_tokens,
            fixed_shapes=loaded.engine.fixed_shapes,
            depths=tuple(stage.depth for stage in loaded.stages),
        )

    @property
    def manifest(self) -> Manifest:
        """All that the bundle says of itself."""
        return self._now().manifest

    @property
    def graph(self) -> Graph:
        """The graph that runs."""
        return self._now().choice.graph

    @property
    def tasks(self) -> tuple[Task, ...]:
        """Those that are answered."""
        return self._now().tasks

    @property
    def classes_(self) -> dict[str, npt.NDArray[np.str_]]:
        """Labels in the order of the columns of `predict_proba`, by task."""
        return {task.name: np.array(task.labels) for task in self.tasks}

    @overload
    def predict(  # type: ignore[overload-overlap]
        self, texts: str, *, budget_ms: float | None = None
    ) -> Prediction: ...
    @overload
    def predict(
        self, texts: Iterable[str] | Column, *, budget_ms: float | None = None
    ) -> list[Prediction]: ...
    def predict(
        self, texts: str | Iterable[str] | Column, *, budget_ms: float | None = None
    ) -> Prediction | list[Prediction]:
        """Answers of every task for one text, or for each of several, in their order.

        Args:
            budget_ms: of a bundle with stages, how long the call may take: the cheapest stage
                answers every text, however long that takes; then the least sure go on first, as
                long as the engine's own measure says that there is time. The others keep the
                answer that they have, and `Prediction.depth` says so. None: any time.

        Raises:
            TextError: an item is not a string; or, as LimitError, too large.
            EngineError: the engine failed.
            OptionError: `budget_ms` is no number of 0 or more.
        """
        loaded, deadline = self._now(), _deadline(budget_ms)
        if isinstance(texts, str):
            return predictions(self._answers(loaded, [texts], deadline))[0]
        return predictions(self._answers(loaded, self._listed(texts), deadline))

    def predict_proba(
        self, texts: str | Iterable[str] | Column, *, budget_ms: float | None = None
    ) -> Probabilities:
        """Probabilities `[n, labels]` per task, labels in the task's order.

        Args:
            budget_ms: see `predict`.

        Raises:
            TextError, EngineError, OptionError: see `predict`.
        """
        loaded, deadline = self._now(), _deadline(budget_ms)
        parts = self._answers(loaded, self._several(texts), deadline)
        return in_order(parts, loaded.tasks, lambda part: part.probabilities)

    def logits(self, texts: str | Iterable[str] | Column) -> Logits:
        """The graph's own outputs `[n, labels]` per task, before temperature and softmax.

        Of a bundle with stages, those of the stage that answers.

        Raises:
            TextError, EngineError: see `predict`.
        """
        loaded = self._now()
        parts = self._answers(loaded, self._several(texts))
        return in_order(parts, loaded.tasks, lambda part: part.logits)

    def predict_iter(
        self, texts: Iterable[str] | Column, window: int = WINDOW
    ) -> Iterator[Prediction]:
        """Answers for a stream of any length, in its order.

        Args:
            window: texts that are read, planned into batches and held at a time; 1 answers each
                before the next is read.

        Raises:
            TextError, EngineError: see `predict`; positions count from the stream's start.
            OptionError: `window` is not positive.
        """
        _require_window(window)
        return self._stream(self._now(), streamed(texts), window)

    def _stream(self, loaded: Loaded, texts: Iterator[str], window: int) -> Iterator[Prediction]:
        def encoded(numbered: tuple[int, list[str]]) -> list[list[int]]:
            number, texts = numbered
            return loaded.encoder.ids(self._allowed(texts, number * window, stream=True))

        numbered = enumerate(windows(texts, window))
        for ids in map(encoded, numbered) if window == 1 else ahead(encoded, numbered):
            yield from predictions(loaded.answers(ids))

    @overload
    async def apredict(  # type: ignore[overload-overlap]
        self, texts: str, *, budget_ms: float | None = None
    ) -> Prediction: ...
    @overload
    async def apredict(
        self, texts: Iterable[str] | Column, *, budget_ms: float | None = None
    ) -> list[Prediction]: ...
    async def apredict(
        self, texts: str | Iterable[str] | Column, *, budget_ms: float | None = None
    ) -> Prediction | list[Prediction]:
        """`predict` in a thread, so that an event loop goes on meanwhile."""
        from asyncio import to_thread

        return await to_thread(self.predict, texts, budget_ms=budget_ms)

    async def apredict_proba(
        self, texts: str | Iterable[str] | Column, *, budget_ms: float | None = None
    ) -> Probabilities:
        """`predict_proba` in a thread, so that an event loop goes on meanwhile."""
        from asyncio import to_thread

        return await to_thread(self.predict_proba, texts, budget_ms=budget_ms)

    async def apredict_iter(
        self, texts: AsyncIterable[str], window: int = 1
    ) -> AsyncIterator[Prediction]:
        """`predict_iter` for asynchronous streams; a window's answers come once it is full.

        Raises:
            TextError, EngineError, OptionError: see `predict_iter`.
        """
        from asyncio import to_thread

        _require_window(window)
        if not hasattr(texts, "__aiter__"):
            raise TextError(
                f"expected an asynchronous stream of texts, got {type(texts).__name__}; give "
                "predict_iter or apredict what is not asynchronous"
            )
        loaded, waiting, done = self._now(), list[str](), 0

        def answers() -> list[Prediction]:
            ids = loaded.encoder.ids(self._allowed(waiting, done, stream=True))
            return predictions(loaded.answers(ids))

        async for text in texts:
            waiting.append(text)
            if len(waiting) == window:
                for prediction in await to_thread(answers):
                    yield prediction
                done += len(waiting)
                waiting.clear()
        if waiting:
            for prediction in await to_thread(answers):
                yield prediction

    def warmup(self) -> None:
        """Run every shape that was compiled ahead, the longest text and the largest batch."""
        self._now().warm(batches=True)

    def reload(self) -> None:
        """Load the bundle that is at the path now, as the one before was loaded.

        Calls under way end with the version that they began with. If loading fails, all is as it
        was.

        Raises:
            BundleError, EngineError, OptionError: see `load`.
        """
        self._loaded = self._load()

    def close(self) -> None:
        """Let go of the engine, which ends with the last call under way."""
        self._loaded = None

    def __enter__(self) -> EdgeClassifier:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        loaded = self._loaded
        if loaded is None:
            return "<EdgeClassifier, closed>"
        names = ", ".join(task.name for task in loaded.tasks)
        return (
            f"<EdgeClassifier of {names}: {loaded.choice.graph.target} from {loaded.bundle.path}>"
        )

    def __reduce__(self) -> NoReturn:
        raise NotPicklableError(
            "a classifier cannot be pickled or copied: its engine belongs to this process; pass "
            "the bundle's path, and load it there"
        )

    def _now(self) -> Loaded:
        """What is loaded.

        Raises:
            ClosedError: nothing, or in another process.
        """
        loaded = self._loaded
        if loaded is None:
            raise ClosedError("this classifier was closed; load the bundle again")
        if loaded.process != os.getpid():
            raise ClosedError(
                "this classifier was loaded before the process forked, and the engine's threads "
                "have stayed behind; call reload() here, or load after the fork"
            )
        return loaded

    def _listed(self, texts: Iterable[str] | Column) -> list[str]:
        return listed(texts, self._limits.texts)

    def _several(self, texts: str | Iterable[str] | Column) -> list[str]:
        return [texts] if isinstance(texts, str) else self._listed(texts)

    def _allowed(self, texts: list[str], first: int = 0, *, stream: bool = False) -> list[str]:
        """Texts as the tokenizer takes them, none of them beyond the limits."""
        valid = as_texts(texts, first)
        self._limits.check(valid, first, stream=stream)
        return valid

    def _answers(
        self, loaded: Loaded, texts: list[str], deadline: float | None = None
    ) -> list[Answered]:
        texts = self._allowed(texts)
        if not texts:
            return []
        if len(texts) <= WINDOW:
            return loaded.answers(loaded.encoder.ids(texts), deadline)
        encoded = ahead(loaded.encoder.ids, windows(texts, WINDOW))
        return loaded.answers_of_many(encoded, deadline)


def _deadline(budget_ms: float | None) -> float | None:
    """When a call that begins now should end, of `time.perf_counter`."""
    if budget_ms is None:
        return None
    number = isinstance(budget_ms, int | float) and not isinstance(budget_ms, bool)
    if not number or not math.isfinite(budget_ms) or budget_ms < 0:
        raise OptionError(f"budget_ms is {budget_ms!r}, expected milliseconds, 0 or more")
    return time.perf_counter() + budget_ms / 1e3


def _require_window(window: int) -> None:
    if window < 1:
        raise OptionError(f"window is {window}, expected 1 or more")
