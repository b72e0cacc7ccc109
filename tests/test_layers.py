"""Imports go one way: the runtime needs nothing that makes bundles, and no library a command."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# A package of the repository, and what none of its modules may import.
FORBIDDEN = {
    "mtl_edge": (
        "mtl_edge.training",
        "mtl_edge.export",
        "mtl_edge.benchmarks",
        "nncf",
        "optimum",
        "sklearn",
        "torch",
        "transformers",
    ),
    "training": ("mtl_edge.export", "mtl_edge.benchmarks"),
    "export": ("mtl_edge.benchmarks",),
}


def imports_of(path: Path) -> Iterator[str]:
    """Every module that a file imports, wherever in the file."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            yield node.module
            yield from (f"{node.module}.{name.name}" for name in node.names)


def imported_from(path: Path, packages: tuple[str, ...]) -> list[str]:
    return [
        name for name in imports_of(path) if any(f"{name}.".startswith(f"{p}.") for p in packages)
    ]


@pytest.mark.parametrize("package", FORBIDDEN)
def test_a_package_imports_only_what_comes_behind_it(package: str) -> None:
    wrong = {
        file.relative_to(ROOT).as_posix(): found
        for file in sorted((ROOT / package).rglob("*.py"))
        if (found := imported_from(file, FORBIDDEN[package]))
    }
    assert not wrong


def test_the_runtime_is_usable_without_its_command_line() -> None:
    wrong = [
        file.relative_to(ROOT).as_posix()
        for file in sorted((ROOT / "mtl_edge").rglob("*.py"))
        if "cli" not in file.relative_to(ROOT / "mtl_edge").parts
        and imported_from(file, ("mtl_edge.cli",))
    ]
    assert not wrong


@pytest.mark.parametrize("package", ["training", "export"])
def test_training_and_exporting_are_usable_without_the_command_line(package: str) -> None:
    """Only modules that define options or a command import the command line."""
    wrong = []
    for file in sorted((ROOT / package).rglob("*.py")):
        functions = [
            node.name
            for node in ast.parse(file.read_text("utf-8")).body
            if isinstance(node, ast.FunctionDef)
        ]
        of_a_command = "cli" in file.parts or any(
            name.startswith("add_") or name == "main" for name in functions
        )
        if imported_from(file, ("mtl_edge.cli",)) and not of_a_command:
            wrong.append(file.relative_to(ROOT).as_posix())
    assert not wrong
