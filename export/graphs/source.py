"""What every target's encoder is made from: a captured graph, calibration texts, settings."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import onnx

from mtl_edge.errors import OptionError
from mtl_edge.export.graphs.capture import capture_encoder
from mtl_edge.export.graphs.fuse import fuse
from mtl_edge.export.int8 import int8_onnx
from mtl_edge.export.int8.word_table import PLAIN, WordTable, used_tokens
from mtl_edge.export.settings import DEFAULTS, Settings
from mtl_edge.training.backbone import Backbone
from mtl_edge.training.checkpoint import Checkpoint

__all__ = ["Source", "captured"]


@dataclass(frozen=True, slots=True)
class Source:
    """
    Attributes:
        file: the plain fp32 ONNX graph of the encoder.
        depth: layers of the backbone that it has.
        calibration: token ids of real texts.
        words: how the word table of int8 graphs is stored.
    """

    file: Path
    backbone: Backbone
    depth: int
    calibration: Sequence[Sequence[int]]
    settings: Settings = DEFAULTS
    words: WordTable = PLAIN

    @property
    def width(self) -> int:
        """Of a state."""
        return self.backbone.width

    def fused(self) -> onnx.ModelProto:
        """The encoder in ONNX Runtime's operators."""
        return fuse(self.file, self.backbone, self.depth)

    def prepared(self) -> onnx.ModelProto:
        """The same in the form that int8 starts from."""
        return int8_onnx.prepare(self.fused(), self.width)


def captured(checkpoint: Checkpoint, work: Path, settings: Settings = DEFAULTS) -> Source:
    """Capture the checkpoint's encoder in the folder `work`.

    Raises:
        ExportError: it is too large for a graph in one file.
        OptionError: the vocabulary is to be trimmed and the tokenizer has no unknown token.
    """
    encoder = checkpoint.backbone.text_encoder(checkpoint.max_tokens)
    calibration = encoder([s.text for s in checkpoint.samples if s.split == "calibration"])
    file = work / "encoder.onnx"
    capture_encoder(checkpoint, file)
    words = WordTable(four_bits=settings.four_bits)
    if settings.vocabulary:
        unknown, special = _special_tokens(checkpoint.backbone)
        kept = used_tokens(encoder(settings.vocabulary), special)
        words = replace(words, kept=kept, unknown=unknown)
    return Source(file, checkpoint.backbone, checkpoint.depth, calibration, settings, words)


def _special_tokens(backbone: Backbone) -> tuple[int, Iterable[int]]:
    """The unknown token, and all special ones."""
    unknown, special = backbone.special_tokens()
    if unknown is None:
        raise OptionError(
            "--vocabulary: the backbone's tokenizer has no unknown token to stand for the others; "
            "leave the option out"
        )
    return unknown, special
