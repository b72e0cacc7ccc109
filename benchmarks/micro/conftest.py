"""What the micro-benchmarks run on: `--bundle`, or the demo's, or one that is made for them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mtl_edge.benchmarks.demo import DATA
from mtl_edge.bundle import TOKENIZER, open_bundle
from mtl_edge.classifier import EdgeClassifier
from mtl_edge.io.labelled import read_texts
from mtl_edge.tokens.encoder import TextEncoder

DEMO = Path("build/demo/bundle")
MANY = 256


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--bundle", type=Path, help="default: the demo's, or one that is made")


@pytest.fixture(scope="session")
def bundle(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    given: Path | None = request.config.getoption("--bundle")
    if given is not None:
        return given
    if DEMO.is_dir():
        return DEMO
    from mtl_edge.benchmarks.experiments import example

    return example.write(tmp_path_factory.mktemp("example"))[1]


@pytest.fixture(scope="session")
def new_encoder(bundle: Path) -> Callable[[], TextEncoder]:
    """Makes encoders that have seen nothing yet."""
    opened = open_bundle(bundle, verify="size")
    file, most = opened.file(TOKENIZER), opened.manifest.max_tokens
    return lambda: TextEncoder.from_file(file, most)


@pytest.fixture(scope="session")
def encoder(new_encoder: Callable[[], TextEncoder]) -> TextEncoder:
    return new_encoder()


@pytest.fixture(scope="session")
def texts() -> list[str]:
    """Some of the demo's reviews."""
    return read_texts(DATA / "train.csv")[0][:MANY]


@pytest.fixture(scope="session", params=["onnxruntime", "openvino"])
def classifier(request: pytest.FixtureRequest, bundle: Path) -> Iterator[EdgeClassifier]:
    """Each engine that the bundle has a graph for."""
    held = {graph.engine for graph in open_bundle(bundle, verify="size").manifest.graphs}
    if request.param not in held:
        pytest.skip(f"the bundle has no graph for {request.param}")
    with EdgeClassifier.load(bundle, engine=request.param, verify="size") as loaded:
        yield loaded
