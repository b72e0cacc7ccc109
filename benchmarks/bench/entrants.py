"""What takes part: the bundle's graphs through the runtime, and the torch model fed alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mtl_edge import engines
from mtl_edge.answers.predictions import predicted
from mtl_edge.answers.probabilities import softmax
from mtl_edge.batches.planning import in_batches
from mtl_edge.benchmarks.contenders import from_checkpoint
from mtl_edge.bundle import Bundle, Graph
from mtl_edge.classifier import EdgeClassifier
from mtl_edge.engines import Ids, Logits
from mtl_edge.errors import CheckpointError, MissingPackageError
from mtl_edge.training.checkpoint import Checkpoint, load_checkpoint

__all__ = ["TORCH", "Entrant", "enter", "fastest_batch"]

TORCH = "torch fp32"
BATCH_TOKENS = (512, 1024, 2048, 4096)  # sizes that the torch model's batches may have


@dataclass(frozen=True, slots=True)
class Entrant:
    """Something that answers texts, by its parts and as a whole.

    Attributes:
        bytes: on disk.
        graph: of the bundle; none: the torch model.
        ids: each text's token ids.
        run: from `input_ids` and `attention_mask`, both `[batch, tokens]`, to logits
            `[batch, labels]` per task.
        logits: `[texts, labels]` per task, of texts in batches of like length.
        answer: what an app asks for one text: tokenize, run, probabilities, labels.
        answer_all: probabilities of all texts, in one call.
        batch_tokens: what its batches come to at most; none: as the runtime decides.
    """

    name: str
    engine: str
    precision: str
    bytes: int
    graph: Graph | None
    ids: Callable[[Sequence[str]], list[list[int]]]
    run: Callable[[Ids, Ids], Logits]
    logits: Callable[[Sequence[str]], Mapping[str, npt.NDArray[np.float32]]]
    answer: Callable[[str], object]
    answer_all: Callable[[Sequence[str]], object]
    batch_tokens: int | None = None


def enter(
    bundle: Bundle,
    checkpoint: Path | None,
    threads: int,
    texts: Sequence[str],
    stack: ExitStack,
) -> tuple[list[Entrant], list[str]]:
    """The torch model if its checkpoint is given, then every graph whose engine is installed.

    Args:
        texts: to find the best size of the torch model's batches with.
        stack: closes the engines.

    Returns:
        also, names of the graphs whose engine is not installed.

    Raises:
        MissingPackageError: no engine for any graph is installed, and there is no checkpoint.
        CheckpointError: the checkpoint is not the bundle's.
        EngineError, OptionError: an engine does not start.
    """
    graphs = [g for g in bundle.manifest.graphs if engines.available(g.engine)]
    if not graphs:
        names = ", ".join(sorted({graph.engine for graph in bundle.manifest.graphs}))
        raise MissingPackageError(f"no engine for this bundle is installed; it needs {names}")
    # The bundle's engines first: they check the number of threads.
    entrants = [_graph(bundle, graph, threads, stack) for graph in graphs]
    if checkpoint is not None:
        entrants.insert(0, _torch(bundle, checkpoint, threads, texts))
    missing = [g.target for g in bundle.manifest.graphs if g not in graphs]
    return entrants, missing


def _graph(bundle: Bundle, graph: Graph, threads: int, stack: ExitStack) -> Entrant:
    classifier = stack.enter_context(
        EdgeClassifier.load(
            bundle.path, engine=graph.engine, target=graph.target, threads=threads, verify="size"
        )
    )
    loaded = classifier._now()
    return Entrant(
        name=graph.target,
        engine=graph.engine,
        precision=graph.precision,
        bytes=bundle.size_of(graph),
        graph=graph,
        ids=loaded.encoder,
        run=loaded.engine.run,
        logits=classifier.logits,
        answer=classifier.predict,
        answer_all=classifier.predict_proba,
    )


def _torch(bundle: Bundle, folder: Path, threads: int, texts: Sequence[str]) -> Entrant:
    """The torch model behind the same calls as the runtime: its ids, batches and answers."""
    checkpoint = _of_bundle(bundle, load_checkpoint(folder), folder)
    contender = from_checkpoint(checkpoint, threads)
    encoder = checkpoint.backbone.text_encoder(bundle.manifest.max_tokens)
    tasks, batch_tokens = checkpoint.tasks, fastest_batch(contender.run, encoder(texts))

    def logits(texts: Sequence[str]) -> dict[str, npt.NDArray[np.float32]]:
        return in_batches(contender.run, encoder(texts), batch_tokens)

    def probabilities(texts: Sequence[str]) -> dict[str, npt.NDArray[np.float32]]:
        found = logits(texts)
        return {task.name: softmax(found[task.name], task.temperature) for task in tasks}

    return Entrant(
        name=TORCH,
        engine="torch",
        precision="fp32",
        bytes=contender.size,
        graph=None,
        ids=encoder,
        run=contender.run,
        logits=logits,
        answer=lambda text: predicted(tasks, probabilities([text]), checkpoint.depth)[0],
        answer_all=probabilities,
        batch_tokens=batch_tokens,
    )


def fastest_batch(run: Callable[[Ids, Ids], Logits], ids: Sequence[Sequence[int]]) -> int:
    """The size of batches, in tokens, in which all texts take the least time.

    Of four, one try each. The runtime's engines have theirs from such a measurement, too.
    """
    in_batches(run, ids, BATCH_TOKENS[0])  # warms up

    def seconds(batch_tokens: int) -> float:
        start = time.perf_counter()
        in_batches(run, ids, batch_tokens)
        return time.perf_counter() - start

    return min(BATCH_TOKENS, key=seconds)


def _of_bundle(bundle: Bundle, checkpoint: Checkpoint, folder: Path) -> Checkpoint:
    """The checkpoint at the bundle's depth."""
    asked = [(task.name, task.labels) for task in checkpoint.tasks]
    if asked != [(task.name, task.labels) for task in bundle.manifest.tasks]:
        raise CheckpointError(
            f"{folder} has the tasks {[name for name, _ in asked]}, and the bundle "
            f"{[task.name for task in bundle.manifest.tasks]}; give the checkpoint that it was "
            "exported from"
        )
    return checkpoint.at(bundle.manifest.depth)
