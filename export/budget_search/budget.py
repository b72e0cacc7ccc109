"""A budget, as `--budget "p95<1ms, size<25MB, drop<0.5"` says it: quantities and their limits."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from mtl_edge.errors import OptionError

__all__ = ["EXAMPLE", "QUANTITIES", "Limit", "Quantity", "parse"]


@dataclass(frozen=True, slots=True)
class Quantity:
    """Something that a budget may limit.

    Attributes:
        units: what one of each is, in the unit that figures are kept in; the empty name: none is
            written.
        at_most: whether less is better, so that a limit is from above.
        show: a figure with its unit, for people.
        meaning: what it is, for messages.
        speed: whether it says how fast something is.
    """

    units: Mapping[str, float]
    at_most: bool
    show: Callable[[float], str]
    meaning: str
    speed: bool = False


def _time(ms: float) -> str:
    if ms < 1:
        return f"{1e3 * ms:.3g} µs" if ms < 0.1 else f"{1e3 * ms:.0f} µs"
    return f"{ms:.2f} ms" if ms < 1e3 else f"{ms / 1e3:.2f} s"


# The unit that figures are kept in: milliseconds, bytes, points of accuracy, texts a second.
TIMES = {"us": 1e-3, "µs": 1e-3, "ms": 1.0, "s": 1e3}
SIZES = {"kB": 1e3, "MB": 1e6}

QUANTITIES: Mapping[str, Quantity] = {
    **{
        name: Quantity(TIMES, True, _time, f"latency of a single text, {name}", speed=True)
        for name in ("p50", "p95", "p99")
    },
    "texts/s": Quantity(
        {"": 1.0}, False, lambda rate: f"{rate:,.0f}", "texts a second in one call", speed=True
    ),
    "size": Quantity(SIZES, True, lambda size: f"{size / 1e6:.2f} MB", "bytes that an app ships"),
    "drop": Quantity(
        {"": 1.0}, True, lambda points: f"{points:.2f}", "points below fp32 at full depth"
    ),
}
EXAMPLE = '"p95<1ms, size<25MB, drop<0.5, texts/s>2000"'

COMPARISONS: Mapping[str, Callable[[float, float], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
LIMIT = re.compile(
    r"\s*(?P<name>[^\s<>=]+)\s*(?P<sign><=|>=|<|>)\s*(?P<number>\d+(\.\d+)?|\.\d+)\s*(?P<unit>\S*)\s*"
)


@dataclass(frozen=True, slots=True)
class Limit:
    """What one quantity has to keep to.

    Attributes:
        name: of `QUANTITIES`.
        sign: of `COMPARISONS`.
        value: in the unit that figures are kept in.
        text: as the user wrote it.
    """

    name: str
    sign: str
    value: float
    text: str

    @property
    def quantity(self) -> Quantity:
        return QUANTITIES[self.name]

    def kept(self, figure: float) -> bool:
        """Whether a figure is within it."""
        return COMPARISONS[self.sign](figure, self.value)

    def excess(self, figure: float) -> float:
        """How far beyond it a figure is, as a share of the limit; 0 within it."""
        if self.kept(figure):
            return 0.0
        return abs(figure - self.value) / (self.value or 1.0)

    def __str__(self) -> str:
        return self.text


def parse(text: str) -> tuple[Limit, ...]:
    """The limits of a budget, in its order.

    Raises:
        OptionError: it is malformed, empty, or limits a quantity twice or from the wrong side.
    """
    limits: list[Limit] = []
    for part in text.split(","):
        limit = _limit(part, text)
        if limit.name in [known.name for known in limits]:
            raise OptionError(
                f"--budget {text!r} limits {limit.name} twice; name each quantity once"
            )
        limits.append(limit)
    return tuple(limits)


def _limit(part: str, text: str) -> Limit:
    found = LIMIT.fullmatch(part)
    if found is None:
        raise OptionError(
            f"--budget {text!r}: {part.strip()!r} is no limit; expected a quantity, one of "
            f"{', '.join(COMPARISONS)}, and a number with its unit, separated by commas, as in "
            f"{EXAMPLE}"
        )
    name, sign = found["name"].lower(), found["sign"]
    quantity = QUANTITIES.get(name)
    if quantity is None:
        raise OptionError(
            f"--budget {text!r}: unknown quantity {found['name']!r}; there are "
            f"{', '.join(QUANTITIES)}"
        )
    if quantity.at_most != sign.startswith("<"):
        expected = "<" if quantity.at_most else ">"
        raise OptionError(
            f"--budget {text!r}: {name} ({quantity.meaning}) takes {expected} or {expected}=, "
            f"not {sign}"
        )
    # Not of the case of letters, and of the two signs for micro either will do.
    units = {unit.casefold(): scale for unit, scale in quantity.units.items()}
    scale = units.get(found["unit"].casefold())
    if scale is None:
        wanted = ", ".join(filter(None, quantity.units))
        came = f"{found['unit']!r}" if found["unit"] else "none"
        expected = f"one of the units {wanted}" if wanted else "a number without a unit"
        raise OptionError(
            f"--budget {text!r}: {name} ({quantity.meaning}) takes {expected}, got {came}; write "
            f"it as in {EXAMPLE}"
        )
    value = float(found["number"]) * scale
    if value == 0 and name != "drop":
        raise OptionError(f"--budget {text!r}: the limit of {name} is 0, expected more")
    return Limit(name, sign, value, part.strip())
