"""What a benchmark found, as data: the JSON that is written, read and compared.

Times are milliseconds, shares are of 1, sizes are bytes. docs/benchmarks.md explains each field.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = [
    "SCHEMA_VERSION",
    "Bulk",
    "Check",
    "Contender",
    "Estimate",
    "Histogram",
    "Machine",
    "Model",
    "Noise",
    "Pair",
    "Report",
    "Rounds",
    "Score",
    "Scores",
    "Single",
    "Speed",
    "Stream",
    "Timed",
]

SCHEMA_VERSION = 1


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure and its 95 % percentile-bootstrap interval; none where it was taken over.

    Source: Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13.
    """

    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True)
class Machine:
    """
    Attributes:
        instructions: those that int8 and bf16 products profit by.
        cores: physical ones that this process may use, at most eight.
        load_before: processes that wanted a core in the minute before; none: not told here.
    """

    processor: str
    instructions: list[str]
    cores: int
    system: str
    python: str
    versions: dict[str, str]
    load_before: float | None


@dataclass(frozen=True, slots=True)
class Model:
    """The bundle.

    Attributes:
        tasks: their labels.
        depth: layers of the encoder.
    """

    folder: str
    backbone: str
    depth: int
    max_tokens: int
    tasks: dict[str, list[str]]


@dataclass(frozen=True, slots=True)
class Contender:
    """
    Attributes:
        engine: what executes it.
        failed: why it was not timed; none: it was.
    """

    name: str
    engine: str
    precision: str
    bytes: int
    failed: str | None


@dataclass(frozen=True, slots=True)
class Check:
    """A contender's outputs against the first one's, on the texts of the stream.

    Attributes:
        same_ids: whether the token ids were identical.
        most_logit_difference: over all texts and labels; none: not finite.
        agreement: share of texts with the same label, the lowest over the tasks.
    """

    contender: str
    texts: int
    same_ids: bool
    most_logit_difference: float | None
    agreement: float | None


@dataclass(frozen=True, slots=True)
class Timed:
    """
    Attributes:
        rounds: every round's time.
        share_of_floor: the least time that the machine's limits allow, divided by the median;
            none: no floor is known.
    """

    median: float
    p10: float
    p90: float
    rounds: list[float]
    share_of_floor: float | None = None


@dataclass(frozen=True, slots=True)
class Pair:
    """How many times as fast `contender` was as `to`: the median over rounds."""

    contender: str
    to: str
    times_as_fast: Estimate


@dataclass(frozen=True, slots=True)
class Noise:
    """The first contender against itself, timed as if it were two: what no difference means.

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
    """The engines' own calls on `batch` texts of `tokens` tokens.

    Attributes:
        noise: none: not taken.
    """

    batch: int
    tokens: int
    times: dict[str, Timed]
    pairs: list[Pair]
    noise: Noise | None


@dataclass(frozen=True, slots=True)
class Single:
    """Texts answered one at a time.

    Attributes:
        hundredths: the 101 quantiles from 0 to 1.
    """

    p50: float
    p90: float
    p99: float
    mean: float
    hundredths: list[float]


@dataclass(frozen=True, slots=True)
class Histogram:
    """
    Attributes:
        edges: of the bins; the last bin has all that took longer, too.
        counts: of texts in each bin, by contender.
    """

    edges: list[float]
    counts: dict[str, list[int]]


@dataclass(frozen=True, slots=True)
class Speed:
    """What all texts in one call come to in a second."""

    ms: Timed
    texts_per_second: float
    tokens_per_second: float


@dataclass(frozen=True, slots=True)
class Bulk:
    """
    Attributes:
        torch_batch_tokens: size of the torch model's batches, the best of several; none: no torch.
    """

    speeds: dict[str, Speed]
    pairs: list[Pair]
    noise: Noise
    torch_batch_tokens: int | None


@dataclass(frozen=True, slots=True)
class Stream:
    """Texts through the whole runtime: tokenize, plan, engine, probabilities.

    Attributes:
        source: of the texts.
        texts: that were measured, evenly taken from `of`.
        passes: over them, one at a time.
        noise: of the texts one at a time.
    """

    source: list[str]
    texts: int
    of: int
    tokens: int
    median_tokens: int
    most_tokens: int
    passes: int
    single: dict[str, Single]
    histogram: Histogram
    pairs: list[Pair]
    noise: Noise
    bulk: Bulk


@dataclass(frozen=True, slots=True)
class Score:
    """
    Attributes:
        agreement: share of rows with the first contender's label.
        accuracy_to_first, macro_f1_to_first: the difference to the first contender, resampled in
            pairs.
    """

    accuracy: Estimate
    macro_f1: Estimate | None
    agreement: Estimate | None
    accuracy_to_first: Estimate | None
    macro_f1_to_first: Estimate | None


@dataclass(frozen=True, slots=True)
class Scores:
    """Accuracy on one labelled file.

    Attributes:
        measured: `now` or `at export`.
        models: contenders, and the baselines of training where the rows are the same.
    """

    task: str
    file: str
    sha256: str
    rows: int
    measured: str
    models: dict[str, Score]


@dataclass(frozen=True, slots=True)
class Report:
    """
    Attributes:
        date: ISO 8601, with the time zone.
        effort: `quick`, `default` or `full`.
        seconds: that the measuring took.
        noise: the largest spread of all parts.
        sweep: batches of growing size at the stream's median length.
        limits: of the machine, in units that their names end with; empty: not measured.
        warnings: what a reader has to know before the figures.
    """

    schema_version: int
    date: str
    command: str
    effort: str
    seconds: float
    threads: int
    machine: Machine
    model: Model
    contenders: list[Contender]
    checks: list[Check]
    shapes: list[Rounds]
    stream: Stream
    sweep: list[Rounds]
    scores: list[Scores]
    limits: dict[str, float]
    noise: float
    warnings: list[str]
