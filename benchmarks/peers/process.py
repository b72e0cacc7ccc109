"""A child process that fits, loads and answers, seen from the driver."""

from __future__ import annotations

import json
import os
import subprocess
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

__all__ = ["PeerFailedError", "Process"]

CHILD = Path(__file__).with_name("child.py")
ADAPTERS = Path(__file__).with_name("adapters")
LINES_OF_A_LOG = 6
SECONDS = 1800  # for one command; fitting takes minutes
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS")
# No library may look for a network, or for what a shell of ours points at.
SETTINGS = {
    "CUDA_VISIBLE_DEVICES": "",
    "HF_DATASETS_OFFLINE": "1",
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TOKENIZERS_PARALLELISM": "true",
    "TRANSFORMERS_VERBOSITY": "error",
}


class PeerFailedError(Exception):
    """A peer that could not be fitted, loaded or asked; says what its process said."""


class Process:
    """One peer at work in its environment, on given cores.

    with Process(python, adapter, folder, options, threads=2, cores=[0, 1], log=file) as process:
        process.ask("load")
    """

    def __init__(
        self,
        python: str,
        adapter: str,
        folder: Path,
        options: Mapping[str, Any],
        *,
        threads: int,
        cores: Sequence[int],
        log: Path,
    ) -> None:
        environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
        environment |= SETTINGS | dict.fromkeys(THREADS, str(threads))
        log.parent.mkdir(parents=True, exist_ok=True)
        self._log = log
        with log.open("wb") as errors:
            self._child = subprocess.Popen(
                # -P: modules beside the script are not libraries; -u: the log has all that was said
                [python, "-u", "-P", str(CHILD), str(ADAPTERS / f"{adapter}.py"), str(folder),
                 json.dumps(dict(options)), str(threads), ",".join(map(str, cores))],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env=environment,
                cwd=log.parent,
            )  # fmt: skip

    def ask(self, command: str, /, *, seconds: float = SECONDS, **rest: Any) -> dict[str, Any]:
        """What the child answers.

        Raises:
            PeerFailedError: it answers with an error, not in time, or is gone.
        """
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        late = threading.Timer(seconds, self._child.kill)
        late.start()
        try:
            self._child.stdin.write(json.dumps({"do": command, **rest}) + "\n")
            self._child.stdin.flush()
            line = self._child.stdout.readline()
        except BrokenPipeError:
            line = ""
        finally:
            late.cancel()
        if not line:
            self._child.wait()
            raise PeerFailedError(
                f"{command}: the process ended with {self._child.returncode}\n{self._said()}"
            )
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise PeerFailedError(f"{command}: {answer['error']}")
        return answer

    def close(self) -> None:
        """End the child."""
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        self._child.kill()
        self._child.wait()
        self._child.stdout.close()
        try:
            self._child.stdin.close()
        except BrokenPipeError:  # what was not read any more
            return

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _said(self) -> str:
        lines = self._log.read_text(errors="replace").strip().splitlines()
        return "\n".join(lines[-LINES_OF_A_LOG:])
