"""Scenarios: which parts learn, as a table.

The study behind this project names the first three. The others let the shared encoder learn too, so
that what freezing it costs, and saves, can be measured.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from mtl_edge.errors import OptionError

__all__ = ["SCENARIOS", "BackboneMode", "Learning", "Scenario", "learning_of"]

BackboneMode = Literal["frozen", "full", "top-layers", "lora"]
HeadsMode = Literal["none", "all", "named"]


@dataclass(frozen=True, slots=True)
class Scenario:
    """
    Attributes:
        heads: `named` are those named with `--learn`.
    """

    backbone: BackboneMode
    heads: HeadsMode
    summary: str


SCENARIOS: Mapping[str, Scenario] = {
    "frozen": Scenario("frozen", "none", "nothing learns: a baseline"),
    "heads": Scenario("frozen", "all", "heads learn on the frozen backbone: transfer learning"),
    "one-head": Scenario("frozen", "named", "one head learns, the others and the backbone stay"),
    "full": Scenario("full", "all", "backbone and heads learn"),
    "full-one-head": Scenario(
        "full", "named", "backbone and one head learn, the other heads stay as they are"
    ),
    "top-layers": Scenario("top-layers", "all", "the backbone's last layers and the heads learn"),
    "lora": Scenario(
        "lora", "all", "low-rank updates of the backbone, merged at the end, and heads learn"
    ),
}


@dataclass(frozen=True, slots=True)
class Learning:
    """What learns in a run.

    Attributes:
        heads: names of the tasks whose heads learn.
        top_layers: how many of the last layers learn in mode `top-layers`.
    """

    backbone: BackboneMode
    heads: frozenset[str]
    top_layers: int = 0


def learning_of(
    name: str,
    tasks: Sequence[str],
    *,
    learn: Sequence[str] = (),
    freeze: Sequence[str] = (),
    top_layers: int = 2,
    fixed: Sequence[str] = (),
) -> Learning:
    """What learns under a scenario.

    Args:
        tasks: all of the run's.
        learn: tasks whose heads learn where the scenario lets users name them.
        freeze: parts that do not learn whatever the scenario says: tasks, or `backbone`.
        fixed: tasks without rows of their own, whose heads cannot learn.

    Raises:
        OptionError: an unknown scenario, task or part, or a scenario whose heads were not named.
    """
    if name not in SCENARIOS:
        raise OptionError(f"--scenario {name!r}: unknown; there are {', '.join(SCENARIOS)}")
    scenario = SCENARIOS[name]
    for option, names, known in (
        ("--learn", learn, tasks),
        ("--freeze", freeze, [*tasks, "backbone"]),
    ):
        if unknown := [n for n in names if n not in known]:
            raise OptionError(f"{option} {unknown[0]!r}: unknown; there are {', '.join(known)}")
    if scenario.heads == "named" and not learn:
        raise OptionError(f"--scenario {name} needs --learn TASK; there are {', '.join(tasks)}")
    if scenario.heads != "named" and learn:
        raise OptionError(f"--learn goes with --scenario one-head or full-one-head, not {name}")
    if without := sorted(set(learn) & set(fixed)):
        raise OptionError(f"--learn {without[0]}: it has no rows; give them with --task")
    by_mode = {"none": (), "all": tasks, "named": learn}[scenario.heads]
    heads = frozenset(by_mode) - frozenset(freeze) - frozenset(fixed)
    backbone = "frozen" if "backbone" in freeze else scenario.backbone
    if backbone != "frozen" and not heads:
        raise OptionError(f"--scenario {name} needs a task whose head learns; none is left")
    return Learning(
        backbone,
        heads,
        top_layers if scenario.backbone == "top-layers" else 0,
    )
