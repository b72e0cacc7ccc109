"""`EdgeClassifier`: a bundle in an app, from texts to answers."""

from __future__ import annotations

import math
import os
import time
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import NoReturn, overload

import numpy as np
import numpy.typing as npt

from mtl_edge.answers.predictions import Answer, Prediction
from mtl_edge.bundle import Graph, Manifest, Task, Verify
from mtl_edge.cascade.info import Info, info_of
from mtl_edge.cascade.opening import open_session, start_session
from mtl_edge.cascade.outputs import in_order, predictions
from mtl_edge.cascade.session import WINDOW, Session
from mtl_edge.cascade.stage import Probabilities
from mtl_edge.cascade.streaming import answer_async_stream, answer_stream, require_window
from mtl_edge.engines import CPU, Logits, Setup, Spin
from mtl_edge.errors import ClosedError, NotPicklableError, OptionError
from mtl_edge.io.in_memory import Column, as_iterator, as_list
from mtl_edge.io.limits import Limits

__all__ = ["Answer", "EdgeClassifier", "Info", "Prediction"]


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

    def __init__(self, load: Callable[[], Session]) -> None:
        """Use `EdgeClassifier.load`."""
        self._load = load
        self._session: Session | None = load()

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        engine: str = "auto",
        target: str | None = None,
        tasks: Sequence[str] | None = None,
        threads: int | None = None,
        device: str = CPU,
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
            engine: `onnxruntime`, `openvino`, or `auto`: the fastest of those that are
                installed, by a measurement on this machine (see `mtl_edge.choosing`).
            target: the graph to run, as `mtl-edge info` lists them; default: the fastest.
            tasks: to answer, in this order; default: all of the bundle's. The graph computes the
                others along: together they cost a few percent.
            threads: default: the physical cores that this process may use, at most 8.
            device: `CPU`, or what the engine calls another: `CUDA`, `CoreML`, ... in ONNX Runtime,
                `GPU` and `NPU` in OpenVINO. CUDA needs the package onnxruntime-gpu and takes
                fp16 and fp32 graphs before int8: see docs/runtime.md.
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
            open_session, Path(path), engine, target, setup, limits, verify, public_key, max_depth
        )
        return cls(partial(start_session, opened, _copied(tasks), _copied(depth_for), warm))

    @property
    def info(self) -> Info:
        """What runs, and why."""
        return info_of(self._running())

    @property
    def manifest(self) -> Manifest:
        """All that the bundle says of itself."""
        return self._running().manifest

    @property
    def graph(self) -> Graph:
        """The graph that runs."""
        return self._running().choice.graph

    @property
    def tasks(self) -> tuple[Task, ...]:
        """Those that are answered."""
        return self._running().tasks

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
        session, deadline = self._running(), _deadline(budget_ms)
        found = predictions(session.answer_texts(_several(texts, session), deadline))
        return found[0] if isinstance(texts, str) else found

    def predict_proba(
        self, texts: str | Iterable[str] | Column, *, budget_ms: float | None = None
    ) -> Probabilities:
        """Probabilities `[n, labels]` per task, labels in the task's order; scores `[n, 1]`.

        Args:
            budget_ms: see `predict`.

        Raises:
            TextError, EngineError, OptionError: see `predict`.
        """
        session, deadline = self._running(), _deadline(budget_ms)
        outputs = session.answer_texts(_several(texts, session), deadline)
        return in_order(outputs, session.tasks, lambda output: output.probabilities)

    def logits(self, texts: str | Iterable[str] | Column) -> Logits:
        """The graph's own outputs `[n, labels]` per task, before temperature and softmax.

        Where a domain was fitted, its logits are there as `domain`, `[n, tasks that have one]`.

        Of a bundle with stages, those of the stage that answers.

        Raises:
            TextError, EngineError: see `predict`.
        """
        session = self._running()
        outputs = session.answer_texts(_several(texts, session))
        return in_order(outputs, session.stages[-1].outputs, lambda output: output.logits)

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
        require_window(window)
        return answer_stream(self._running(), as_iterator(texts), window)

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
        require_window(window)
        async for prediction in answer_async_stream(self._running(), texts, window):
            yield prediction

    def warmup(self) -> None:
        """Run every shape that was compiled ahead, the longest text and the largest batch."""
        self._running().warm(batches=True)

    def reload(self) -> None:
        """Load the bundle that is at the path now, as the one before was loaded.

        Calls under way end with the version that they began with. If loading fails, all is as it
        was.

        Raises:
            BundleError, EngineError, OptionError: see `load`.
        """
        self._session = self._load()

    def close(self) -> None:
        """Let go of the engine, which ends with the last call under way."""
        self._session = None

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
        session = self._session
        if session is None:
            return "<EdgeClassifier, closed>"
        names = ", ".join(task.name for task in session.tasks)
        target = session.choice.graph.target
        return f"<EdgeClassifier of {names}: {target} from {session.bundle.path}>"

    def __reduce__(self) -> NoReturn:
        raise NotPicklableError(
            "a classifier cannot be pickled or copied: its engine belongs to this process; pass "
            "the bundle's path, and load it there"
        )

    def _running(self) -> Session:
        """The session, if it can be used in this process.

        Raises:
            ClosedError: it was closed, or belongs to the process that this one was forked from.
        """
        session = self._session
        if session is None:
            raise ClosedError("this classifier was closed; load the bundle again")
        if session.process != os.getpid():
            raise ClosedError(
                "this classifier was loaded before the process forked, and the engine's threads "
                "have stayed behind; call reload() here, or load after the fork"
            )
        return session


def _copied(names: Sequence[str] | None) -> Sequence[str] | None:
    """Names that stay the same for a later reload, whatever becomes of the app's list."""
    return names if names is None or isinstance(names, str) else tuple(names)


def _several(texts: str | Iterable[str] | Column, session: Session) -> list[str]:
    return [texts] if isinstance(texts, str) else as_list(texts, session.limits.texts)


def _deadline(budget_ms: float | None) -> float | None:
    """When a call that begins now should end, of `time.perf_counter`."""
    if budget_ms is None:
        return None
    number = isinstance(budget_ms, int | float) and not isinstance(budget_ms, bool)
    if not number or not math.isfinite(budget_ms) or budget_ms < 0:
        raise OptionError(f"budget_ms is {budget_ms!r}, expected milliseconds, 0 or more")
    return time.perf_counter() + budget_ms / 1e3
