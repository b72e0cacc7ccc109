"""Fuzzing at length: `python -m tests.fuzz.long --bundle BUNDLE --cases N [--kind KIND ...]`.

Prints what became of the cases of each kind, and writes those that are faults to
`tests/fuzz/corpus`, where `test_fuzz.py` replays them.
"""

from __future__ import annotations

import argparse
import hashlib
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, Verbosity, given, seed, settings
from hypothesis import strategies as st

from tests.fuzz.cases import KINDS, base_of, texts
from tests.fuzz.worker import Outcome, Worker

CORPUS = Path(__file__).parent / "corpus"


def strategy_of(kind: str, base: Path) -> st.SearchStrategy[Any]:
    """Cases of a kind, made from a bundle's files."""
    if kind == "text":
        return texts
    bases = {file.name: file.read_bytes() for file in base.iterdir()}
    return KINDS[kind].strategy(bases)


def fuzz(
    kind: str,
    base: Path,
    worker: Worker,
    cases: int,
    number: int,
    fault: Callable[[Any, Outcome], None],
) -> tuple[Counter[str], float]:
    """Run cases of one kind; returns how many had which outcome, and the longest's seconds."""
    outcomes: Counter[str] = Counter()
    longest = 0.0

    @seed(number)
    @settings(
        max_examples=cases,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        verbosity=Verbosity.quiet,
        suppress_health_check=list(HealthCheck),
    )
    @given(strategy_of(kind, base))
    def run(case: Any) -> None:
        nonlocal longest
        outcome = worker.run(kind, case)
        outcomes[outcome.name] += len(case) if kind == "text" else 1
        longest = max(longest, outcome.seconds)
        if outcome.fault:
            fault(case, outcome)

    run()
    return outcomes, longest


def keep(kind: str, case: Any, outcome: Outcome) -> None:
    """Write a fault down, with what it did on standard output."""
    data = case if isinstance(case, bytes) else "\n".join(case).encode("utf-8", "surrogatepass")
    name = f"{kind}-{hashlib.sha256(data).hexdigest()[:8]}"
    print(f"{kind}: {outcome.name} {outcome.detail} -> {name}", flush=True)
    CORPUS.mkdir(exist_ok=True)
    (CORPUS / name).write_bytes(data)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundle", type=Path, required=True, help="with a graph for each engine")
    parser.add_argument("--cases", type=int, default=1000, help="of each kind")
    parser.add_argument("--kind", action="append", choices=[*KINDS, "text"], help="default: all")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        base = base_of(args.bundle, Path(work) / "base")
        worker = Worker(base)
        for kind in args.kind or [*KINDS, "text"]:
            started = time.monotonic()
            outcomes, longest = fuzz(
                kind, base, worker, args.cases, args.seed,
                lambda case, outcome, kind=kind: keep(kind, case, outcome),  # type: ignore[misc]
            )  # fmt: skip
            seconds = time.monotonic() - started
            print(
                f"{kind}: {outcomes.total():,} cases in {seconds:.0f} s, the longest "
                f"{longest:.2f} s: {dict(outcomes.most_common())}",
                flush=True,
            )
        worker.close()


if __name__ == "__main__":
    main()
