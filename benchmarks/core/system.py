"""Systems under test: a bundle's graphs through the runtime, and the torch model fed alike."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from mtl_edge import engines
from mtl_edge.answers.kinds import kind_of, predictions_of
from mtl_edge.batches.planning import in_batches
from mtl_edge.benchmarks.core.record import SystemInfo
from mtl_edge.bundle import Bundle, Graph
from mtl_edge.classifier import EdgeClassifier
from mtl_edge.engines import Ids, Logits
from mtl_edge.engines.onnxruntime_cuda import MOST_SHAPES, bucket_of
from mtl_edge.errors import CheckpointError, MissingPackageError
from mtl_edge.timing import wall_ms
from mtl_edge.training.checkpoint import Checkpoint, load_checkpoint

__all__ = [
    "PRECISIONS",
    "TORCH",
    "System",
    "checkpoint_of",
    "fastest_batch",
    "float32_products",
    "graph_system",
    "systems_of",
    "torch_system",
]

TORCH = "torch fp32"
BATCH_TOKENS = (512, 1024, 2048, 4096)  # sizes that the torch model's batches may have
# How torch multiplies in each precision, and what it is told about float32 then.
PRECISIONS = {
    "fp32": (torch.float32, "highest"),
    "tf32": (torch.float32, "high"),
    "fp16": (torch.float16, "highest"),
    "bf16": (torch.bfloat16, "highest"),
}
Texts = Sequence[str]


def _takes_no_texts(*_: object) -> Any:
    raise NotImplementedError("this system is measured by its token arrays alone")


@dataclass(frozen=True, slots=True)
class System:
    """Something that answers texts, by its parts and as a whole.

    Attributes:
        bytes: on disk.
        run: from `input_ids` and `attention_mask`, both `[batch, tokens]`, to logits
            `[batch, labels]` per task.
        graph: of the bundle; None: not one of its graphs.
        ids: each text's token ids.
        logits: `[texts, labels]` per task, of texts in batches of like length.
        answer: what an app asks for one text: tokenize, run, probabilities, labels.
        answer_all: probabilities of all texts, in one call.
        batch_tokens: what its batches come to at most; None: as the runtime decides.
    """

    name: str
    engine: str
    precision: str
    bytes: int
    run: Callable[[Ids, Ids], Logits]
    graph: Graph | None = None
    ids: Callable[[Texts], list[list[int]]] = _takes_no_texts
    logits: Callable[[Texts], Mapping[str, npt.NDArray[np.float32]]] = _takes_no_texts
    answer: Callable[[str], object] = _takes_no_texts
    answer_all: Callable[[Texts], object] = _takes_no_texts
    batch_tokens: int | None = None

    def info(self, failed: str | None = None) -> SystemInfo:
        """For the record."""
        return SystemInfo(self.name, self.engine, self.precision, self.bytes, failed)


def systems_of(
    bundle: Bundle,
    checkpoint: Path | None,
    threads: int,
    texts: Texts,
    stack: ExitStack,
) -> tuple[list[System], list[str]]:
    """The torch model if its checkpoint is given, then every graph whose engine is installed.

    Args:
        texts: to find the best size of the torch model's batches with.
        stack: closes the engines.

    Returns:
        also, names of the graphs whose engine is not installed.

    Raises:
        MissingPackageError: no engine for any graph is installed.
        CheckpointError: the checkpoint is not the bundle's.
        EngineError, OptionError: an engine does not start.
    """
    graphs = [g for g in bundle.manifest.graphs if engines.available(g.engine)]
    if not graphs:
        names = ", ".join(sorted({graph.engine for graph in bundle.manifest.graphs}))
        raise MissingPackageError(f"no engine for this bundle is installed; it needs {names}")
    # The bundle's engines first: they check the number of threads.
    systems = [graph_system(bundle, graph, threads, stack) for graph in graphs]
    if checkpoint is not None:
        model = checkpoint_of(bundle, checkpoint)
        systems.insert(0, torch_system(model, threads, texts, bundle.manifest.max_tokens))
    missing = [g.target for g in bundle.manifest.graphs if g not in graphs]
    return systems, missing


def graph_system(
    bundle: Bundle, graph: Graph, threads: int, stack: ExitStack, *, name: str | None = None,
    **options: Any,
) -> System:  # fmt: skip
    """A graph in its engine, through the runtime.

    Args:
        options: of `EdgeClassifier.load`, as `device`.
    """
    classifier = stack.enter_context(
        EdgeClassifier.load(
            bundle.path, engine=graph.engine, target=graph.target, threads=threads, verify="size",
            **options,
        )
    )  # fmt: skip
    loaded = classifier._running()
    return System(
        name=name or graph.target,
        engine=graph.engine,
        precision=graph.precision,
        bytes=bundle.size_of(graph),
        run=loaded.engine.run,
        graph=graph,
        ids=loaded.encoder,
        logits=classifier.logits,
        answer=classifier.predict,
        answer_all=classifier.predict_proba,
    )


def torch_system(
    checkpoint: Checkpoint,
    threads: int,
    texts: Texts = (),
    max_tokens: int | None = None,
    *,
    device: str = "cpu",
    precision: str = "fp32",
    compiled: bool = False,
) -> System:
    """The torch model behind the same calls as the runtime: its ids, batches and answers.

    With the attention that torch runs fastest.

    Args:
        texts: to find the best size of its batches with; none: it is measured by arrays alone.
        precision: of `PRECISIONS`; weights are rounded to it.
        compiled: records CUDA graphs, one for each shape.
    """
    torch.set_num_threads(threads)
    dtype, float32 = PRECISIONS[precision]
    source = checkpoint.model().eval()
    source.encoder.set_attn_implementation("sdpa")
    model: Callable[..., Sequence[torch.Tensor]] = source.to(device, dtype)
    if compiled:
        model = torch.compile(model, dynamic=False, mode="reduce-overhead")

    @torch.inference_mode()
    def run(input_ids: Ids, mask: Ids) -> Logits:
        rows = len(input_ids)
        if compiled:
            torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
            input_ids, mask = _in_bucket(input_ids, mask, checkpoint.max_tokens)
        arrays = [torch.from_numpy(values).to(device) for values in (input_ids, mask)]
        with float32_products(float32), torch._dynamo.config.patch(recompile_limit=MOST_SHAPES):
            outputs = [output[:rows].float().cpu().numpy() for output in model(*arrays)]
        return dict(zip(source.tasks, outputs, strict=True))

    encoder = checkpoint.backbone.text_encoder(max_tokens or checkpoint.max_tokens)
    tasks = checkpoint.tasks
    batch_tokens = fastest_batch(run, encoder(texts)) if texts else BATCH_TOKENS[0]

    def logits(texts: Texts) -> dict[str, npt.NDArray[np.float32]]:
        return in_batches(run, encoder(texts), batch_tokens)

    def probabilities(texts: Texts) -> dict[str, npt.NDArray[np.float32]]:
        found = logits(texts)
        return {task.name: kind_of(task).values(task, found[task.name]) for task in tasks}

    return System(
        name=f"torch {precision}{' compiled' if compiled else ''}",
        engine="torch",
        precision=precision,
        bytes=sum(p.numel() * dtype.itemsize for p in source.parameters()),
        run=run,
        ids=encoder,
        logits=logits,
        answer=lambda text: predictions_of(tasks, probabilities([text]), checkpoint.depth)[0],
        answer_all=probabilities,
        batch_tokens=batch_tokens,
    )


def _in_bucket(input_ids: Ids, mask: Ids, max_tokens: int) -> tuple[Ids, Ids]:
    """Padded to one of a few shapes, as the runtime does on a GPU: each is compiled by itself."""
    rows, tokens = input_ids.shape
    wanted_rows, wanted_tokens = bucket_of(rows, tokens, max_tokens)
    wider = ((0, wanted_rows - rows), (0, wanted_tokens - tokens))
    input_ids, mask = np.pad(input_ids, wider), np.pad(mask, wider)
    mask[rows:, 0] = 1  # a row without tokens has no mean
    return input_ids, mask


@contextmanager
def float32_products(precision: str) -> Iterator[None]:
    """Products of float32 in TF32 (`high`) or not (`highest`); then the setting is put back."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def fastest_batch(run: Callable[[Ids, Ids], Logits], ids: Sequence[Sequence[int]]) -> int:
    """The size of batches, in tokens, in which all texts take the least time.

    Of four, one try each. The runtime's engines have theirs from such a measurement, too.
    """
    in_batches(run, ids, BATCH_TOKENS[0])  # warms up
    return min(BATCH_TOKENS, key=lambda size: wall_ms(lambda: in_batches(run, ids, size)))


def checkpoint_of(bundle: Bundle, folder: Path) -> Checkpoint:
    """The checkpoint in a folder, at the bundle's depth.

    Raises:
        CheckpointError: it is not the one that the bundle was exported from.
    """
    checkpoint = load_checkpoint(folder)
    asked = [(task.name, task.labels) for task in checkpoint.tasks]
    if asked != [(task.name, task.labels) for task in bundle.manifest.tasks]:
        raise CheckpointError(
            f"{folder} has the tasks {[name for name, _ in asked]}, and the bundle "
            f"{[task.name for task in bundle.manifest.tasks]}; give the checkpoint that it was "
            "exported from"
        )
    return checkpoint.at(bundle.manifest.depth)
