"""Manifests that say which tasks a text is in the domain of."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mtl_edge.answers.kinds import predictions_of
from mtl_edge.bundle import DOMAIN, Manifest, Task, read_manifest
from mtl_edge.bundle.validation import check_manifest

DOMAINS = Task(DOMAIN, ("topic",), thresholds=(0.25,), kind="multi")


@pytest.fixture
def manifest(shared_bundle: Path) -> Manifest:
    return replace(read_manifest(shared_bundle), domain=DOMAINS)


def test_a_manifest_without_a_domain_or_with_a_fitting_one_is_read(manifest: Manifest) -> None:
    check_manifest(manifest)
    check_manifest(replace(manifest, domain=None))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"name": "other"}, "domain is 'other'"),
        ({"kind": "single"}, "of kind single"),
        ({"labels": ("weather",)}, "no task"),
        ({"labels": ()}, "none at all"),
        ({"thresholds": ()}, "needs a threshold for each label"),
        ({"thresholds": (-0.5,)}, "threshold of 0 or more"),
        ({"temperature": 0.0}, "temperature"),
    ],
)
def test_a_domain_that_does_not_fit_the_tasks_is_refused(
    manifest: Manifest, change: dict[str, object], said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        check_manifest(replace(manifest, domain=replace(DOMAINS, **change)))  # type: ignore[arg-type]


def test_no_task_can_have_the_domain_s_name(manifest: Manifest) -> None:
    tasks = (replace(manifest.tasks[0], name=DOMAIN), *manifest.tasks[1:])
    with pytest.raises(ValueError, match="cannot name a task"):
        check_manifest(replace(manifest, domain=None, tasks=tasks))


def test_a_task_without_a_domain_is_answered_as_ever(manifest: Manifest) -> None:
    values = {task.name: np.full((2, 2), 0.5, np.float32) for task in manifest.tasks}
    values[DOMAIN] = np.array([[0.2], [0.3]], np.float32)
    tasks = [replace(task, labels=("a", "b")) for task in manifest.tasks]
    far, near = predictions_of(tasks, values, 2, DOMAINS)
    assert [far["topic"].in_domain, near["topic"].in_domain] == [False, True]
    assert near["topic"].domain_probability == pytest.approx(0.3)
    assert far["sentiment"].in_domain
    assert far["sentiment"].domain_probability is None
