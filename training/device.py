"""Where training runs."""

from __future__ import annotations

import torch

__all__ = ["device"]


def device() -> torch.device:
    """A GPU if there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
