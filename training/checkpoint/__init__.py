"""What training leaves: a folder of safetensors and JSON.

checkpoint.json      tasks, heads, recipe, figures, versions; every file's size and sha256
heads.safetensors    the heads' weights, as `0.mix`, `0.query.weight`, ... in the tasks' order
depth-N.safetensors  the same for heads on the first N layers, if they were trained
folds.safetensors    per task, out-of-fold logits, if `--exits` was given: `0.right`,
                     `0.depth-6`, ...
domains.safetensors  the tasks' gates, if `--in-domain` was given: `0.depth-6`, ...
backbone/            configuration, weights and tokenizer, as transformers writes them
samples.jsonl        texts for calibrating int8 and for comparing what export makes
config.toml          the options of the run: `mtl-edge train --config` repeats it
metrics.jsonl        losses and accuracies by epoch
curves.png, confusion.png   the same as pictures, and the reported rows' confusion matrices; drawn
                     when all else is there, and no part of what is checked
"""

from __future__ import annotations

from mtl_edge.training.checkpoint.checkpoint import Checkpoint, Sample, Samples
from mtl_edge.training.checkpoint.layout import RECORD
from mtl_edge.training.checkpoint.load import load_checkpoint
from mtl_edge.training.checkpoint.save import save_checkpoint

__all__ = ["RECORD", "Checkpoint", "Sample", "Samples", "load_checkpoint", "save_checkpoint"]
