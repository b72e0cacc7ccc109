"""How parts learn: epochs, rates, mixing, weighting."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from mtl_edge.errors import OptionError

__all__ = ["Recipe", "require_positive"]

FEWEST_STEPS = 500


@dataclass(frozen=True, slots=True)
class Recipe:
    """AdamW on a one-cycle schedule (Smith & Topin 2018, arXiv:1708.07120).

    Attributes:
        epochs: none: 8 for heads on a frozen backbone, or as many more as 500 steps take where
            there are few rows; 3 where the backbone learns.
        backbone_learning_rate: where the backbone learns; low-rank updates take ten times as much.
        class_weights: whether a label's loss is weighted by how rare it is.
        mix, mix_temperature: of tasks where the backbone learns, see `mtl_edge.training.batches`.
        weighting: of their losses, see `mtl_edge.training.weighting`.
        task_weights: by task, of its loss; a task that is not here has 1.
        patience: epochs without an improvement on the validation rows that stop learning early;
            none: all epochs are run.

    Raises:
        OptionError: a number is not above 0.
    """

    epochs: int | None = None
    batch_size: int = 32
    learning_rate: float = 1.5e-3
    backbone_learning_rate: float = 5e-5
    weight_decay: float = 0.01
    label_smoothing: float = 0.05
    class_weights: bool = False
    mix: str = "proportional"
    mix_temperature: float = 2.0
    weighting: str = "fixed"
    task_weights: Mapping[str, float] = field(default_factory=dict)
    patience: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        require_positive("epochs", self.epochs)
        require_positive("batch_size", self.batch_size)
        require_positive("learning_rate", self.learning_rate)
        require_positive("backbone_learning_rate", self.backbone_learning_rate)
        require_positive("mix_temperature", self.mix_temperature)
        for weight in self.task_weights.values():
            require_positive("task_weight", weight)
        require_positive("patience", self.patience)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def epochs_of(self, steps: int) -> int:
        """Epochs of a head on frozen states if one of them takes `steps` steps."""
        return self.epochs or max(8, -(-FEWEST_STEPS // steps))


def require_positive(option: str, value: float | None) -> None:
    """
    Raises:
        OptionError: the option's value is given and not above 0.
    """
    if value is not None and not value > 0:
        raise OptionError(f"--{option.replace('_', '-')} is {value}, expected more than 0")
