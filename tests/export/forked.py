"""A command run again and again in processes of its own, forked from one that imported once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

SERVER = """
import json, os, sys
import mtl_edge.export.cli.command, mtl_edge.export.cli.modes
from mtl_edge.cli import main

{prepare}

for line in sys.stdin:
    number, command = json.loads(line)
    read, write = os.pipe()
    child = os.fork()
    if not child:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.dup2(write, 2)
        os.close(write)
        prepare(number)
        code = main(command)
        sys.stderr.flush()
        os._exit(code)
    os.close(write)
    with os.fdopen(read, errors="replace") as errors:
        said = errors.read()
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    print(json.dumps([code, said]), flush=True)
"""

Run = Callable[[int, list[str]], tuple[int, str]]


@contextmanager
def forked(prepare: str, env: Mapping[str, str] | None = None) -> Iterator[Run]:
    """A function from a number and a command to its exit code and what it said of errors.

    Args:
        prepare: Python source of a function `prepare(number)`, called before the command.
        env: added to the environment.
    """
    server = subprocess.Popen(
        [sys.executable, "-c", SERVER.format(prepare=prepare)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parent,
        env={**os.environ, **(env or {})},
    )

    def run(number: int, command: list[str]) -> tuple[int, str]:
        assert server.stdin is not None
        assert server.stdout is not None
        server.stdin.write(json.dumps([number, command]) + "\n")
        server.stdin.flush()
        code, said = json.loads(server.stdout.readline())
        return code, said

    with server:
        yield run
        server.communicate()
    assert server.returncode == 0
