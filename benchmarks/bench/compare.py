"""Two records side by side: what became faster, and whether that is more than noise."""

from __future__ import annotations

import math
from dataclasses import replace

from mtl_edge.benchmarks.core.measure import ONE
from mtl_edge.benchmarks.core.record import Noise, Record, Timed
from mtl_edge.benchmarks.core.tables import Table

__all__ = ["compare", "remarks"]


def compare(old: Record, new: Record) -> Table:
    """Each system of both, on each input of both: how many times as fast it is now.

    The noise of a ratio of two runs is the two spreads together, as of independent errors: the root
    of the sum of their squares. Only a ratio beyond it is called faster or slower.
    """
    texts = ("source", "texts", "tokens")
    same = all(old.inputs.get(key) == new.inputs.get(key) for key in texts)
    rows = []
    for name in new.timed:
        for now in new.rounds:
            then = next((one for one in old.rounds if one.name == now.name), None)
            comparable = same or now.tokens is not None
            if then is None or name not in then.times or now.noise is None or not comparable:
                continue
            noise = _noise(then.noise, now.noise)
            quantiles = ("p50", "p99") if now.name == ONE else ("",)
            for which in quantiles:
                before, after = (_of(one.times[name], which) for one in (then, now))
                ratio = before / after
                certain = max(ratio, 1 / ratio) > 1 + noise
                verdict = "" if not certain else "faster" if ratio > 1 else "slower"
                rows.append(
                    [name, f"{now.name} {which}".strip(), f"{before:.2f}", f"{after:.2f}",
                     f"{ratio:.2f}x", f"±{100 * noise:.0f} %", verdict]
                )  # fmt: skip
    return Table(
        "New against old", ["model", "what", "old ms", "new ms", "times as fast", "noise", ""],
        rows, "noise: both runs' first system against itself; without a word: within it",
    )  # fmt: skip


def _of(time: Timed, which: str) -> float:
    return time.p99 if which == "p99" else time.median


def _noise(*found: Noise | None) -> float:
    return math.hypot(*(noise.spread for noise in found if noise is not None))


def remarks(old: Record, new: Record) -> list[str]:
    """Why the two may not be comparable."""
    found = []
    models = [one.model and replace(one.model, folder="") for one in (old, new)]
    for what, before, now in (
        ("model", *models),
        ("processor", old.machine.processor, new.machine.processor),
        ("instructions", old.machine.instructions, new.machine.instructions),
        ("accelerator", old.machine.accelerator, new.machine.accelerator),
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
