"""Pretrained encoders: found, verified, loaded, and asked for their sizes.

Configuration, weights and tokenizer are files that anyone may exchange or change one by one. What
does not fit together would show as a crash in the middle of a run, or as answers of random numbers;
so a folder is compared with itself before anything runs.
"""

from __future__ import annotations

from mtl_edge.training.backbone.backbone import Backbone
from mtl_edge.training.backbone.find import PACKAGED
from mtl_edge.training.backbone.load import load_backbone

__all__ = ["PACKAGED", "Backbone", "load_backbone"]
