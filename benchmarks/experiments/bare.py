"""A tokenizer and an engine called by themselves: what the runtime is measured against.

The graph is compiled as the runtime compiles it, so that the difference is the runtime's own doing:
checks, batches, padding, softmax, answers. Sessions and requests are made here, with its settings.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import onnxruntime as ort
import openvino as ov
from tokenizers import Tokenizer

from mtl_edge.batches.planning import pad
from mtl_edge.bundle import TOKENIZER, Bundle, Graph
from mtl_edge.engines import Ids, Setup
from mtl_edge.engines import openvino as layout
from mtl_edge.engines.onnxruntime import session_options

__all__ = ["BARE", "Bare", "Call"]

Call = Callable[[Ids, Ids], object]


@dataclass(frozen=True, slots=True)
class Bare:
    """A graph in an engine, and its bundle's tokenizer.

    Attributes:
        single: runs `input_ids` and `attention_mask` of one text, `[1, tokens]`.
        batch: the same for `[batch, tokens]`.
        multiple: that the number of tokens of a single text has to be padded to.
        most: tokens of a text, beyond which nothing is padded.
    """

    tokenizer: Tokenizer
    single: Call
    batch: Call
    multiple: int
    most: int

    def tokens(self, texts: list[str]) -> list[list[int]]:
        """Each text's token ids, by the tokenizers library's fastest call."""
        return [encoding.ids for encoding in self.tokenizer.encode_batch_fast(texts)]

    def all(self, texts: list[str], size: int) -> None:
        """Run all texts in batches of `size` in their order, each padded to its longest text."""
        ids = self.tokens(texts)
        for start in range(0, len(ids), size):
            self.batch(*pad(ids[start : start + size]))


def _onnxruntime(bundle: Bundle, graph: Graph, threads: int) -> Bare:
    session = ort.InferenceSession(
        str(bundle.file(graph.file)), session_options(threads), providers=["CPUExecutionProvider"]
    )
    names = [output.name for output in session.get_outputs()]

    def call(input_ids: Ids, mask: Ids) -> object:
        return session.run(names, {"input_ids": input_ids, "attention_mask": mask})

    return Bare(_tokenizer(bundle), call, call, 1, bundle.manifest.max_tokens)


def _openvino(bundle: Bundle, graph: Graph, threads: int) -> Bare:
    core, most = ov.Core(), bundle.manifest.max_tokens
    setup = Setup(threads=threads, precision=graph.precision, max_tokens=most)
    model = layout.read(core, bundle.files_of(graph))

    def request(tokens: int | None) -> Call:
        made = layout.compiled(core, model, setup, tokens).create_infer_request()

        def call(input_ids: Ids, mask: Ids) -> object:
            feeds = {"input_ids": input_ids, "attention_mask": mask}
            return made.infer(feeds, share_inputs=True, share_outputs=True)

        return call

    lengths = range(layout.MULTIPLE, min(layout.FIXED_TOKENS, most) + 1, layout.MULTIPLE)
    batch = request(None)
    fixed = {tokens: request(tokens) for tokens in lengths}

    def single(input_ids: Ids, mask: Ids) -> object:
        return fixed.get(input_ids.shape[1], batch)(input_ids, mask)

    return Bare(_tokenizer(bundle), single, batch, layout.MULTIPLE, most)


BARE: Mapping[str, Callable[[Bundle, Graph, int], Bare]] = {
    "onnxruntime": _onnxruntime,
    "openvino": _openvino,
}


def _tokenizer(bundle: Bundle) -> Tokenizer:
    tokenizer = Tokenizer.from_file(str(bundle.file(TOKENIZER)))
    tokenizer.no_padding()
    tokenizer.enable_truncation(bundle.manifest.max_tokens)
    return tokenizer
