"""`mtl-edge export --budget`: its option, what goes with it, and its table."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from mtl_edge.errors import OptionError
from mtl_edge.export.budget_search.budget import EXAMPLE, QUANTITIES, Limit, parse
from mtl_edge.export.budget_search.frontier import FRONTIER, Frontier, table
from mtl_edge.table import text_table

__all__ = ["add_budget_argument", "frontier_summary", "limits_of"]

# Options that would choose for the search, or make something else than bundles to choose from.
APART = (
    "depth", "exits", "heads_only", "into", "update", "explain", "check_exits", "refit",
    "keep_worst", "with_tokenizer", "ort",
)  # fmt: skip


def add_budget_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--budget",
        metavar="LIMITS",
        help="search depths, stages and --targets on this machine for the most accurate bundle "
        f"within these limits, as {EXAMPLE}; of {', '.join(QUANTITIES)}",
    )


def limits_of(args: argparse.Namespace, given: Sequence[str]) -> tuple[Limit, ...]:
    """The limits of --budget; none: it was not given.

    Args:
        given: names of the options that are not at their default.

    Raises:
        OptionError: one that does not go with --budget; or see
            `mtl_edge.export.budget_search.budget.parse`.
    """
    if args.budget is None:
        return ()
    if wrong := [name for name in APART if name in given]:
        option = wrong[0].replace("_", "-")
        raise OptionError(
            f"--{option} does not go with --budget, which chooses depth and stages itself and "
            "writes a plain bundle; leave one out, or give it to an export of what was chosen"
        )
    return parse(args.budget)


def frontier_summary(frontier: Frontier) -> str:
    """The table of all candidates, with the chosen one marked."""
    found = table(frontier.candidates, frontier.limits, frontier.rows, frontier.chosen)
    fp32 = ", ".join(f"{task} {100 * share:.1f}" for task, share in frontier.fp32.items())
    measured = frontier.measured
    lines = [
        text_table(*found),
        "",
        f"accuracy on the validation rows; drop: points below fp32 at full depth ({fp32})",
        f"times: {measured['texts']} texts in {measured['passes']} passes through the runtime, one "
        "at a time and in one call",
        f"chosen for {frontier.budget}: {frontier.chosen.plan}; {FRONTIER} in "
        "the bundle has all of this",
    ]
    return "\n".join([*lines, *(f"left out: {one}" for one in frontier.left_out)])
