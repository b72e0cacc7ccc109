"""Two reports side by side: what became faster, and whether that is more than noise."""

from __future__ import annotations

import math
from dataclasses import replace

from mtl_edge.benchmarks.bench.cells import Table
from mtl_edge.benchmarks.bench.schema import Noise, Report

__all__ = ["compare", "remarks"]


def compare(old: Report, new: Report) -> Table:
    """Each contender of both, at each shape and on the stream: how many times as fast it is now.

    The noise of a ratio of two runs is the two spreads together, as of independent errors: the root
    of the sum of their squares. Only a ratio beyond it is called faster or slower.
    """
    rows = []
    for name in new.stream.single:
        if name not in old.stream.single:
            continue
        for title, (before, after, noise) in _times(old, new, name).items():
            ratio = before / after
            certain = max(ratio, 1 / ratio) > 1 + noise
            verdict = "" if not certain else "faster" if ratio > 1 else "slower"
            rows.append(
                [name, title, f"{before:.2f}", f"{after:.2f}", f"{ratio:.2f}x",
                 f"±{100 * noise:.0f} %", verdict]
            )  # fmt: skip
    return Table(
        "New against old", ["model", "what", "old ms", "new ms", "times as fast", "noise", ""],
        rows, "noise: both runs' first contender against itself; without a word: within it",
    )  # fmt: skip


def _times(old: Report, new: Report, name: str) -> dict[str, tuple[float, float, float]]:
    """By what was timed in both: milliseconds before and now, and the noise of their ratio."""
    before = {(r.batch, r.tokens): r for r in old.shapes}
    times = {}
    for now in new.shapes:
        then = before.get((now.batch, now.tokens))
        if then is not None:
            times[f"{now.batch}x{now.tokens}"] = (
                then.times[name].median, now.times[name].median, _noise(then.noise, now.noise),
            )  # fmt: skip
    one, other = old.stream, new.stream
    if (one.source, one.texts, one.tokens) == (other.source, other.texts, other.tokens):
        noise = _noise(one.noise, other.noise)
        times["stream p50"] = one.single[name].p50, other.single[name].p50, noise
        times["stream p99"] = one.single[name].p99, other.single[name].p99, noise
        times["stream in one call"] = (
            one.bulk.speeds[name].ms.median,
            other.bulk.speeds[name].ms.median,
            _noise(one.bulk.noise, other.bulk.noise),
        )
    return times


def _noise(*found: Noise | None) -> float:
    return math.hypot(*(noise.spread for noise in found if noise is not None))


def remarks(old: Report, new: Report) -> list[str]:
    """Why the two may not be comparable."""
    found = []
    for what, before, now in (
        ("model", replace(old.model, folder=""), replace(new.model, folder="")),
        ("processor", old.machine.processor, new.machine.processor),
        ("instructions", old.machine.instructions, new.machine.instructions),
        ("number of threads", old.threads, new.threads),
        ("system", old.machine.system, new.machine.system),
    ):
        if before != now:
            found.append(f"another {what}: the ratios are not of the code alone")
    changed = [
        f"{name} {old.machine.versions.get(name, 'not installed')} to {version}"
        for name, version in new.machine.versions.items()
        if old.machine.versions.get(name) != version
    ]
    return [*found, *([f"versions: {', '.join(changed)}"] if changed else [])]
