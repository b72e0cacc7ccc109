"""`Answer` and `Prediction`: what a classifier returns for a text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

__all__ = ["Answer", "Prediction"]


@dataclass(frozen=True, slots=True)
class Answer:
    """One task's answer to one text.

    Attributes:
        label: the most probable one, also where a text may have several or none; empty for a score.
        probability: the label's; 0 for a score.
        probabilities: of every label, in the task's order. Of a `single` task they sum to 1; of a
            `multi` task each is by itself.
        sure: false where the probability is below the threshold that was fitted for the label: an
            app should abstain then. Always true if no threshold was fitted.
        labels: all that the text has, in the task's order: of a `single` task the one, of a
            `multi` task those whose probability reaches their threshold, maybe none.
        score: of a `score` task, the number.
        spread: of a `score` task, the root mean squared error on validation rows.
        in_domain: false where the text is of a kind that the task was not taught, so that none of
            its answers applies. Always true if that was not fitted: see `train --in-domain`.
        domain_probability: that the text is in the task's domain, in texts as training had them;
            None if it was not fitted.
    """

    label: str
    probability: float
    probabilities: Mapping[str, float]
    sure: bool = True
    labels: tuple[str, ...] = ()
    score: float | None = None
    spread: float | None = None
    in_domain: bool = True
    domain_probability: float | None = None


@dataclass(frozen=True, slots=True)
class Prediction(Mapping[str, Answer]):
    """All tasks' answers to one text, by the task's name.

    Attributes:
        depth: layers of the encoder that the answering stage ran.
    """

    answers: Mapping[str, Answer]
    depth: int

    def __getitem__(self, task: str) -> Answer:
        return self.answers[task]

    def __iter__(self) -> Iterator[str]:
        return iter(self.answers)

    def __len__(self) -> int:
        return len(self.answers)
