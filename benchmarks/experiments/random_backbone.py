"""A backbone of DistilBERT's real size with random weights, where the real ones are out of reach.

    python -m mtl_edge.benchmarks.experiments.random_backbone FOLDER

Its latency and memory are DistilBERT's; its answers mean nothing. The tokenizer is that of the
packaged MiniLM, whose vocabulary is bert-base-uncased's and so DistilBERT's too.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from transformers import AutoTokenizer, DistilBertConfig, DistilBertModel

from mtl_edge.io.folders import staged_folder
from mtl_edge.training.backbone import load_backbone

__all__ = ["write"]


def write(folder: Path) -> None:
    """
    Raises:
        OutputExistsError: `folder` exists.
    """
    torch.manual_seed(0)
    with staged_folder(folder) as stage:
        DistilBertModel(DistilBertConfig()).save_pretrained(stage)
        AutoTokenizer.from_pretrained(str(load_backbone("minilm").folder)).save_pretrained(stage)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m mtl_edge.benchmarks.experiments.random_backbone FOLDER")
    write(Path(sys.argv[1]))
