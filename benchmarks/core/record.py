"""What a measurement leaves, as data: the JSON that all experiments write, read and compare.

Times are milliseconds, shares are of 1, sizes are bytes. docs/benchmarks.md explains each field.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

__all__ = [
    "SCHEMA_VERSION",
    "Check",
    "Estimate",
    "Machine",
    "Model",
    "Noise",
    "Pair",
    "Record",
    "Rounds",
    "Score",
    "Scores",
    "SystemInfo",
    "Timed",
]

SCHEMA_VERSION = 2


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure and its 95 % percentile-bootstrap interval, or null where only the figure is known.

    Source: Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13.
    """

    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True)
class Machine:
    """Where it was measured.

    Attributes:
        instructions: those that int8 and bf16 products profit by.
        cores: physical ones that this process may use, at most eight.
        load_before: processes that wanted a core in the minute before; null: not told here.
        accelerator: the GPU; null: none took part.
    """

    processor: str
    instructions: list[str]
    cores: int
    system: str
    python: str
    versions: dict[str, str]
    load_before: float | None
    accelerator: str | None = None


@dataclass(frozen=True, slots=True)
class Model:
    """The bundle that was measured: `tasks` with their labels, `depth` layers of the encoder."""

    folder: str
    backbone: str
    depth: int
    max_tokens: int
    tasks: dict[str, list[str]]


@dataclass(frozen=True, slots=True)
class SystemInfo:
    """A system under test.

    Attributes:
        engine: what executes it.
        bytes: on disk.
        failed: why it was not timed; null: it was.
        title: what it is, where its name does not say.
        source: where its project recommends this way; empty for this project's own.
    """

    name: str
    engine: str
    precision: str
    bytes: int
    failed: str | None = None
    title: str = ""
    source: str = ""


@dataclass(frozen=True, slots=True)
class Check:
    """A system's outputs against the first one's.

    Attributes:
        same_ids: whether the token ids were identical.
        largest_difference: of the logits, over all texts and labels; null: not finite.
        agreement: share of texts with the same label, the lowest over the tasks.
    """

    system: str
    texts: int
    same_ids: bool
    largest_difference: float | None
    agreement: float | None


@dataclass(frozen=True, slots=True)
class Timed:
    """Times of one system.

    Attributes:
        p10: null: not kept.
        count: how many were taken.
        values: each of them in its order or, of more than 200, their 101 quantiles from 0 to 1.
        share_of_roofline: the least time that the machine allows, divided by the median; null: not
            known.
    """

    median: float
    p10: float | None
    p90: float
    p99: float
    count: int
    values: list[float]
    share_of_roofline: float | None = None


@dataclass(frozen=True, slots=True)
class Pair:
    """How many times as fast `system` was as `to`: the median over rounds."""

    system: str
    to: str
    times_as_fast: Estimate


@dataclass(frozen=True, slots=True)
class Noise:
    """The first system against itself, timed as if it were two (an A/A test).

    Attributes:
        median, p25, p75: of the ratio, which is 1 where nothing disturbs.
        spread: how far the quartiles lie from 1, the farther of them.
    """

    median: float
    p25: float
    p75: float
    spread: float


@dataclass(frozen=True, slots=True)
class Rounds:
    """Systems timed in interleaved rounds on one input.

    Attributes:
        name: of the input, as `1x32` (texts x tokens) or `one at a time`.
        texts: in a call.
        tokens: of each text, padded; null: texts of several lengths.
        times: by system.
        noise: null: not taken.
    """

    name: str
    texts: int
    tokens: int | None
    times: dict[str, Timed]
    pairs: list[Pair]
    noise: Noise | None


@dataclass(frozen=True, slots=True)
class Score:
    """How right one system is on one file.

    Attributes:
        agreement: share of rows with the first system's label.
        accuracy_to_first, macro_f1_to_first: the difference to the first system, resampled in
            pairs.
    """

    accuracy: Estimate
    macro_f1: Estimate | None = None
    agreement: Estimate | None = None
    accuracy_to_first: Estimate | None = None
    macro_f1_to_first: Estimate | None = None


@dataclass(frozen=True, slots=True)
class Scores:
    """Accuracy on one labelled file.

    Attributes:
        measured: `now` or `at export`.
        models: by system, and the baselines of training where the rows are the same.
    """

    task: str
    file: str
    sha256: str
    rows: int
    measured: str
    models: dict[str, Score]


@dataclass(frozen=True, slots=True)
class Record:
    """One run of one experiment.

    Attributes:
        experiment: its name.
        command: that repeats it.
        date: ISO 8601, with the time zone.
        seconds: that measuring took.
        inputs: what was measured on, by name: texts, files, settings.
        rounds: everything that was timed.
        figures: what else was measured: by quantity with its unit, then by system.
        limits: of the machine, in units that their names end with; empty: not measured.
        noise: the largest spread of all parts; null: not taken.
        warnings: what a reader has to know before the figures.
    """

    schema_version: int
    experiment: str
    command: str
    date: str
    seconds: float
    threads: int
    machine: Machine
    model: Model | None
    inputs: dict[str, Any]
    systems: list[SystemInfo]
    checks: list[Check] = field(default_factory=list)
    rounds: list[Rounds] = field(default_factory=list)
    figures: dict[str, dict[str, float]] = field(default_factory=dict)
    scores: list[Scores] = field(default_factory=list)
    limits: dict[str, float] = field(default_factory=dict)
    noise: float | None = None
    warnings: list[str] = field(default_factory=list)

    @property
    def timed(self) -> list[str]:
        """Names of the systems that did not fail."""
        return [system.name for system in self.systems if system.failed is None]

    def on(self, name: str) -> Rounds:
        """The rounds on the input of this name."""
        return next(rounds for rounds in self.rounds if rounds.name == name)

    def shapes(self) -> list[Rounds]:
        """The rounds of engines' own calls on `texts x tokens`, those of a sweep left out."""
        return [r for r in self.rounds if r.name == f"{r.texts}x{r.tokens}"]
