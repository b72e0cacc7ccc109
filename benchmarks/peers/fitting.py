"""Fitting each peer once, and what it answers; kept, so that a second run starts at timing."""

from __future__ import annotations

import hashlib
import json
import random
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mtl_edge.benchmarks.peers.environments import Environment
from mtl_edge.benchmarks.peers.process import ADAPTERS, PeerFailedError, Process
from mtl_edge.benchmarks.peers.table import BY_NAME, Peer
from mtl_edge.bundle import open_bundle
from mtl_edge.choosing import choose_graph
from mtl_edge.training.data import TaskData

__all__ = ["Fitted", "Workload", "fit", "tasks_of"]

STAMP = "fitted.json"
MOST_ALONE = 100  # texts that are also asked one by one


@dataclass(frozen=True, slots=True)
class Workload:
    """What all peers have in common.

    Attributes:
        work: where environments, models and files are kept.
        backbone: the encoder's folder, in the format of transformers.
        rows: of each task, texts and labels of its training and validation rows.
        reported: of each task, texts and labels to measure accuracy on.
        revision: changes with the backbone's weights.
    """

    work: Path
    backbone: Path
    revision: str
    rows: Mapping[str, tuple[list[str], list[str]]]
    reported: Mapping[str, tuple[list[str], list[str]]]
    threads: int
    cores: tuple[int, ...]
    max_tokens: int

    @property
    def mixed(self) -> list[str]:
        """All texts there are, shuffled: speed does not depend on which were trained on."""
        learnt = [text for texts, _ in self.rows.values() for text in texts]
        mixed = [*learnt, *self.texts]
        random.Random(0).shuffle(mixed)
        return mixed

    @property
    def texts(self) -> list[str]:
        """Those to report on, of all tasks one after the other."""
        return [text for texts, _ in self.reported.values() for text in texts]

    def file(self, content: Any) -> str:
        """A JSON file of `content`, for a child to read."""
        text = json.dumps(content)
        path = self.work / "given" / f"{hashlib.sha256(text.encode()).hexdigest()[:16]}.json"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.with_suffix(".partial").write_text(text, encoding="utf-8")
            path.with_suffix(".partial").rename(path)
        return str(path)

    def folder(self, name: str) -> Path:
        """Where the models of the peer `name` are kept."""
        return self.work / "fits" / name.replace(" ", "-")

    def options(self, peer: Peer) -> dict[str, Any]:
        return {"max_tokens": self.max_tokens, **peer.options}

    def start(self, peer: Peer, environment: Environment, folder: Path, log: str) -> Process:
        return Process(
            environment.python,
            peer.adapter,
            folder,
            self.options(peer),
            threads=self.threads,
            cores=self.cores,
            log=self.work / "logs" / f"{peer.name.replace(' ', '-')}.{log}.log",
        )


@dataclass(frozen=True, slots=True)
class Fitted:
    """A peer that can be asked.

    Attributes:
        seconds: that fitting took in here, conversion included.
        size: bytes to ship: the models, and not the environment.
        labels: of each task, the answer for each of the workload's texts in one call.
        alone: the lowest share over the tasks of texts that get the same label by themselves.
    """

    peer: Peer
    environment: Environment
    folder: Path
    seconds: float
    size: int
    labels: Mapping[str, list[str]]
    alone: float

    @property
    def fit_seconds(self) -> float | None:
        """That its models took; none where a bundle was given."""
        return self.peer.made_in if self.peer.own else self.seconds

    def accuracy(self, workload: Workload) -> dict[str, float]:
        found, start = {}, 0
        for task, (texts, labels) in workload.reported.items():
            said = self.labels[task][start : start + len(texts)]
            found[task] = _share(said, labels)
            start += len(texts)
        return found


def tasks_of(tasks: Sequence[TaskData]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Rows to learn from and rows to report on; the latter are never among the former."""
    learn, report = {}, {}
    for task in tasks:
        parts = [task.train] if task.dev is None else [task.train, task.validation]
        learn[task.name] = (
            [text for part in parts for text in part.texts],
            [label for part in parts for label in part.labels],
        )
        _, rows = task.report
        report[task.name] = (list(rows.texts), list(rows.labels))
    return learn, report


def fit(peer: Peer, environments: Mapping[str, Environment], workload: Workload) -> Fitted:
    """Fit `peer`, or take what an earlier run left if it was made from the same.

    Raises:
        PeerFailedError: it cannot be fitted or asked.
    """
    environment = environments[peer.environment]
    folder = workload.folder(peer.name)
    stamp = folder / STAMP
    made_from = _made_from(peer, environments, workload)
    if stamp.is_file():
        kept = json.loads(stamp.read_text(encoding="utf-8"))
        if kept.pop("made_from") == made_from:
            return Fitted(peer, environment, folder, **kept)
    shutil.rmtree(folder, ignore_errors=True)
    if peer.begins_with is None:
        folder.mkdir(parents=True)
    else:
        _take_over(peer.begins_with, environments, workload, folder)
    print(f"fitting {peer.name}", file=sys.stderr, flush=True)
    given: dict[str, Any] = {
        "rows": workload.file(workload.rows),
        "backbone": str(workload.backbone),
    }
    seconds = 0.0
    if peer.prepare_in is not None:
        with workload.start(peer, environments[peer.prepare_in], folder, "prepare") as process:
            seconds += process.ask("prepare", **given)["seconds"]
    with workload.start(peer, environment, folder, "fit") as process:
        learned = process.ask("fit", **given)
    # As it will be timed: from what was saved, in a process that has not seen the training.
    some = workload.texts[:: max(1, len(workload.texts) // MOST_ALONE)][:MOST_ALONE]
    with workload.start(peer, environment, folder, "answer") as process:
        process.ask("load")
        labels = process.ask("answer", texts=workload.file(workload.texts))["labels"]
        alone = process.ask("answer_singly", texts=workload.file(some))["labels"]
    if wrong := {t: len(found) for t, found in labels.items() if len(found) != len(workload.texts)}:
        raise PeerFailedError(f"answer: {len(workload.texts)} texts were asked, and came {wrong}")
    position = {text: i for i, text in enumerate(workload.texts)}
    together = {task: [found[position[text]] for text in some] for task, found in labels.items()}
    kept = {
        "seconds": seconds + learned["seconds"],
        "size": learned["bytes"] if not peer.own else _size(Path(peer.options["bundle"]), peer),
        "labels": labels,
        "alone": min(_share(alone[task], together[task]) for task in labels),
    }
    text = json.dumps({"made_from": made_from, **kept})
    stamp.with_suffix(".partial").write_text(text, encoding="utf-8")
    stamp.with_suffix(".partial").rename(stamp)
    return Fitted(peer, environment, folder, **kept)


def _take_over(
    name: str, environments: Mapping[str, Environment], workload: Workload, folder: Path
) -> None:
    """Begin with the models of the peer `name`, if they were taught on the same."""
    begun, stamp = BY_NAME[name], workload.folder(name) / STAMP
    known = stamp.is_file() and all(one in environments for one in begun.environments)
    if not known or json.loads(stamp.read_text(encoding="utf-8"))["made_from"] != _made_from(
        begun, environments, workload
    ):
        raise PeerFailedError(
            f"it begins with the models of {name!r}, which was not fitted to these data; list it "
            "with --only, too"
        )
    shutil.copytree(stamp.parent, folder, ignore=shutil.ignore_patterns(STAMP))


def _size(bundle: Path, peer: Peer) -> int:
    """Bytes of what the engine needs of a bundle."""
    opened = open_bundle(bundle, verify="size")
    return opened.size_of(choose_graph(opened.manifest, engine=peer.options["engine"]))


def _made_from(peer: Peer, environments: Mapping[str, Environment], workload: Workload) -> str:
    """A checksum of all that decides what fitting gives."""
    source = (ADAPTERS / f"{peer.adapter}.py").read_text()
    sources = [source]
    for helper in sorted(ADAPTERS.glob("*.py")):
        if helper.stem in source and helper.stem != peer.adapter:
            sources.append(helper.read_text())
    bundle = peer.options.get("bundle")
    begun = peer.begins_with and workload.folder(peer.begins_with) / STAMP
    decides = [
        sources,
        json.loads(begun.read_text())["made_from"] if begun and begun.is_file() else None,
        workload.options(peer),
        [environments[name].packages for name in peer.environments],
        environments[peer.environment].made_from,
        workload.revision,
        workload.rows,
        workload.texts,
        workload.threads,
        Path(bundle, "manifest.json").read_text() if bundle else None,
    ]
    return hashlib.sha256(json.dumps(decides).encode()).hexdigest()


def _share(one: Sequence[str], other: Sequence[str]) -> float:
    """How many are equal, of all."""
    return sum(a == b for a, b in zip(one, other, strict=True)) / len(one)
