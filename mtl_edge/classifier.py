"""The runtime's front door."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, overload

import numpy as np
import numpy.typing as npt

from mtl_edge import engines
from mtl_edge.bundle import TOKENIZER, Bundle, Graph, Manifest, Task, Verify, open_bundle
from mtl_edge.choosing import bundle_engine, choose_graph
from mtl_edge.engines import Engine, Logits
from mtl_edge.errors import EngineError
from mtl_edge.planning import in_batches
from mtl_edge.probabilities import softmax
from mtl_edge.text import TextEncoder

__all__ = ["Answer", "EdgeClassifier", "Prediction"]


@dataclass(frozen=True, slots=True)
class Answer:
    """One task's answer to one text.

    Attributes:
        label: the most probable one.
        probability: the label's.
        probabilities: of every label, in the task's order; they sum to 1.
        sure: false where the probability is below the threshold that was fitted for the label: an
            app should rather abstain. Always true if none was.
    """

    label: str
    probability: float
    probabilities: Mapping[str, float]
    sure: bool = True


@dataclass(frozen=True, slots=True)
class Prediction(Mapping[str, Answer]):
    """All tasks' answers to one text, by the task's name."""

    answers: Mapping[str, Answer]

    def __getitem__(self, task: str) -> Answer:
        return self.answers[task]

    def __iter__(self) -> Iterator[str]:
        return iter(self.answers)

    def __len__(self) -> int:
        return len(self.answers)


class EdgeClassifier:
    """A loaded bundle: texts in, one answer per task out.

        with EdgeClassifier.load("bundle") as classifier:
            prediction = classifier.predict("a quiet triumph")
            prediction["sentiment"].label

    A text's answer does not depend on what else is in the call, beyond float rounding.
    """

    def __init__(self, bundle: Bundle, graph: Graph, engine: Engine, encoder: TextEncoder) -> None:
        self._bundle = bundle
        self._engine = engine
        self._encoder = encoder
        self.graph = graph

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        engine: str = "auto",
        target: str | None = None,
        threads: int | None = None,
        device: str = engines.CPU,
        verify: Verify = "full",
    ) -> EdgeClassifier:
        """Verify a bundle and start an engine on it.

        Args:
            path: the bundle's folder.
            engine: `onnxruntime`, `openvino`, or `auto`: of the graphs whose engine is installed,
                the one that was fastest when the bundle was exported.
            target: the graph to run, as `mtl-edge info` lists them; default: the engine's fastest.
            threads: default: the cores that this process may use.
            device: `CPU`, or what the engine calls another: `CUDA`, `CoreML`, ... in ONNX Runtime,
                `GPU` and `NPU` in OpenVINO.
            verify: `full` compares every file's sha256, `size` only sizes.

        Raises:
            BundleError: the bundle is missing, incomplete or altered.
            EngineError: the engine or device is unknown, not there or cannot run the graph.
            OptionError: the bundle has no such graph, or `threads` is out of range.
        """
        bundle = open_bundle(path, verify=verify)
        encoder = TextEncoder.from_file(bundle.file(TOKENIZER), bundle.manifest.max_tokens)
        graph = choose_graph(bundle.manifest, engine=engine, target=target)
        started = bundle_engine(bundle, graph, threads, device)
        return cls(bundle, graph, started, encoder)

    @property
    def manifest(self) -> Manifest:
        return self._bundle.manifest

    @property
    def tasks(self) -> tuple[Task, ...]:
        return self._bundle.manifest.tasks

    @overload
    def predict(self, texts: str) -> Prediction: ...  # type: ignore[overload-overlap]
    @overload
    def predict(self, texts: Sequence[str]) -> list[Prediction]: ...
    def predict(self, texts: str | Sequence[str]) -> Prediction | list[Prediction]:
        """Answers of every task for one text, or for each of several, in their order.

        Raises:
            TextError: an item is not a string.
        """
        if isinstance(texts, str):
            return self.predict([texts])[0]
        probabilities = self.predict_proba(texts)
        return [
            Prediction({task.name: _answer(task, probabilities[task.name][row])
                        for task in self.tasks})
            for row in range(len(texts))
        ]  # fmt: skip

    def predict_proba(self, texts: Sequence[str]) -> dict[str, npt.NDArray[np.float32]]:
        """Probabilities `[n, labels]` per task, labels in the task's order.

        Raises:
            TextError: an item is not a string.
        """
        logits = self.logits(texts)
        return {task.name: softmax(logits[task.name], task.temperature) for task in self.tasks}

    def logits(self, texts: Sequence[str]) -> Logits:
        """The graph's own outputs `[n, labels]` per task, before temperature and softmax.

        Raises:
            TextError: `texts` is a single string, or an item is not a string.
        """
        ids = self._encoder([texts] if isinstance(texts, str) else texts)
        if not ids:
            return {t.name: np.empty((0, len(t.labels)), np.float32) for t in self.tasks}
        return in_batches(self._run, ids)

    def _run(
        self, input_ids: npt.NDArray[np.int64], attention_mask: npt.NDArray[np.int64]
    ) -> Logits:
        """One batch's logits, their names and shapes checked against the manifest."""
        outputs = self._engine.run(input_ids, attention_mask)
        return {
            task.name: _expected(outputs, task.name, (len(input_ids), len(task.labels)))
            for task in self.tasks
        }

    def close(self) -> None:
        """Release the engine; the classifier cannot be used afterwards."""
        self._engine.close()

    def __enter__(self) -> EdgeClassifier:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _expected(outputs: Logits, name: str, shape: tuple[int, int]) -> npt.NDArray[np.float32]:
    value = outputs.get(name)
    if value is None or value.shape != shape:
        came = "no such output" if value is None else f"shape {value.shape}"
        raise EngineError(
            f"task {name!r}: expected logits {shape}, got {came}; the graph does not belong to "
            "the manifest: export the bundle again"
        )
    return value


def _answer(task: Task, row: npt.NDArray[Any]) -> Answer:
    values: list[float] = row.tolist()
    best = int(row.argmax())
    sure = not task.thresholds or values[best] >= task.thresholds[best]
    return Answer(
        task.labels[best], values[best], dict(zip(task.labels, values, strict=True)), sure
    )
