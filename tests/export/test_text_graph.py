"""Text in the graph: the ids and logits of a string graph are those of the Python tokenizer."""

from __future__ import annotations

import csv
import random
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
import openvino as ov
import pytest
from tokenizers import AddedToken, Tokenizer, normalizers, pre_tokenizers

from mtl_edge import EdgeClassifier
from mtl_edge.bundle import TOKENIZER, read_manifest
from mtl_edge.engines.onnxruntime import session_options
from mtl_edge.errors import ExportError, MissingPackageError
from mtl_edge.export.graphs.capture import INPUTS
from mtl_edge.export.graphs.ort_format import write_ort
from mtl_edge.export.text.text_graph import TEXT, with_tokenizer_onnx, with_tokenizer_openvino
from mtl_edge.tokens.encoder import TextEncoder
from tests.conftest import DEMO, REAL, needs_real_data

extensions = pytest.importorskip("onnxruntime_extensions")
openvino_tokenizers = pytest.importorskip("openvino_tokenizers")

GRAPH, OUT = "model.int8.onnx", "model.int8.text.onnx"
IR = "openvino.tokenizer.xml"
BATCH = 64

Table = npt.NDArray[np.int64]
Ids = Callable[[Sequence[str]], list[list[int]]]

# Alphabets that odd texts draw from, first and last character of each.
SCRIPTS = {
    "ascii": (0x20, 0x7E),
    "control": (0x01, 0x1F),
    "latin": (0x80, 0x24F),
    "combining": (0x300, 0x36F),
    "greek and cyrillic": (0x370, 0x52F),
    "hebrew and arabic": (0x590, 0x6FF),
    "indic": (0x900, 0xDFF),
    "georgian, jamo, ethiopic": (0x10A0, 0x137F),
    "extended latin and greek": (0x1E00, 0x1FFF),
    "punctuation, spaces, joiners": (0x2000, 0x206F),
    "symbols": (0x20A0, 0x2BFF),
    "kana and bopomofo": (0x3000, 0x31FF),
    "ideographs": (0x3400, 0x9FFF),
    "hangul": (0xAC00, 0xD7A3),
    "private": (0xE000, 0xF8FF),
    "compatibility": (0xF900, 0xFFFF),
    "deseret": (0x10400, 0x104FF),
    "musical": (0x1D100, 0x1D7FF),
    "emoji": (0x1F000, 0x1FAFF),
    "rare ideographs": (0x20000, 0x2FA1F),
    "any": (0x01, 0x10FFFF),
}
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[sep]", "[ SEP ]", "[unused1]", "##ing"]


def odd_texts(count: int, seed: int) -> Iterator[str]:
    """Texts that nobody writes, and some attackers do."""
    yield from ["", " ", "\t\n\r ", "\u200b", "\u0301", "[SEP]", "[CLS][SEP]", "x[SEP", "\ufdd0"]
    yield from ("a" * n for n in (99, 100, 101, 5000))
    yield from ("\u044f" * n for n in (99, 100, 101))
    yield from (" ".join([word] * 400) for word in ("word", "[MASK]", "\u4e2d", "e\u0301"))
    rng = random.Random(seed)
    for _ in range(count):
        names = rng.sample(list(SCRIPTS), rng.choice((1, 1, 2, 3)))
        parts = []
        for _ in range(rng.choice((1, 2, 5, 12))):
            first, last = SCRIPTS[rng.choice(names)]
            length = rng.choice((1, 1, 2, 4, 9, 30))
            parts.append("".join(_character(rng, first, last) for _ in range(length)))
            parts.append(
                rng.choice(("", " ", " ", "a", "the", "\u0301", "7", ".", rng.choice(SPECIAL)))
            )
        yield "".join(parts)


def _character(rng: random.Random, first: int, last: int) -> str:
    point = rng.randint(first, last)
    return "?" if 0xD800 <= point < 0xE000 else chr(point)


def cut_texts(texts: Sequence[str], count: int, seed: int) -> Iterator[str]:
    """Real texts, their pieces and what pieces of several make together."""
    rng = random.Random(seed)
    yield from texts
    for _ in range(count):
        parts = []
        for text in rng.choices(texts, k=rng.choice((1, 1, 2, 4))):
            start = rng.randrange(len(text))
            parts.append(text[start : start + rng.choice((5, 20, 60, 200))])
        text = rng.choice(("", " ", "\n")).join(parts)
        yield rng.choice((str, str, str.upper, str.title, str.swapcase))(text)


def texts_of(file: Path) -> list[str]:
    with file.open(newline="", encoding="utf-8") as source:
        return [row["text"] for row in csv.DictReader(source)]


@pytest.fixture(scope="module")
def folder(shared_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with both string graphs written into it."""
    folder = Path(shutil.copytree(shared_bundle, tmp_path_factory.mktemp("text") / "bundle"))
    max_tokens = read_manifest(folder).max_tokens
    with_tokenizer_onnx(folder, GRAPH, OUT, max_tokens)
    with_tokenizer_openvino(folder, IR, max_tokens)
    return folder


@pytest.fixture(scope="module")
def encoder(folder: Path) -> TextEncoder:
    return TextEncoder.from_file(folder / TOKENIZER, read_manifest(folder).max_tokens)


def session(file: Path) -> ort.InferenceSession:
    options = session_options()
    options.register_custom_ops_library(extensions.get_library_path())
    options.intra_op_num_threads = 1
    return ort.InferenceSession(str(file), options)


def onnx_ids(folder: Path) -> Ids:
    """Ids that the ONNX graph in a folder computes before its encoder takes them."""
    model = onnx.load(str(folder / OUT), load_external_data=False)
    nodes = [node for node in model.graph.node if node.name.startswith("text/")]
    constants = [value for value in model.graph.initializer if value.name.startswith("text/")]
    outputs = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.INT64, ["batch", "tokens"])
        for name in INPUTS
    ]
    del model.graph.node[:], model.graph.initializer[:], model.graph.output[:]
    model.graph.node.extend(nodes)
    model.graph.initializer.extend(constants)
    model.graph.output.extend(outputs)
    del model.graph.value_info[:]
    onnx.save(model, str(folder / "ids.onnx"))
    running = session(folder / "ids.onnx")

    def ids(texts: Sequence[str]) -> list[list[int]]:
        return unpadded(*running.run(list(INPUTS), {TEXT: np.array(texts, object)}))

    return ids


def openvino_ids(folder: Path) -> Ids:
    """Ids that the OpenVINO graph in a folder computes."""
    compiled = ov.Core().compile_model(str(folder / IR), "CPU")

    def ids(texts: Sequence[str]) -> list[list[int]]:
        values = compiled({TEXT: list(texts)})
        return unpadded(*(values[name] for name in INPUTS))

    return ids


def unpadded(ids: Table, mask: Table) -> list[list[int]]:
    """Rows of a batch without their padding, which must be zeros at the end."""
    lengths = mask.sum(1)
    assert (mask == (np.arange(mask.shape[1]) < lengths[:, None])).all()
    assert not ids[mask == 0].any()
    assert mask.shape[1] == lengths.max(), "padded no further than the longest text"
    return [row[:length].tolist() for row, length in zip(ids, lengths, strict=True)]


ENGINES = pytest.mark.parametrize("ids_of", [onnx_ids, openvino_ids], ids=["onnx", "openvino"])


def require_same(ids: Ids, encoder: TextEncoder, texts: Sequence[str]) -> None:
    """Fail with the first text that is not tokenized as `encoder` does."""
    different = []
    for start in range(0, len(texts), BATCH):
        batch = texts[start : start + BATCH]
        pairs = zip(batch, ids(batch), encoder(batch), strict=True)
        different += [(text, got, expected) for text, got, expected in pairs if got != expected]
    assert not different, f"{len(different)} of {len(texts)}, such as {different[0]}"


@ENGINES
def test_real_texts_get_the_same_ids(
    ids_of: Callable[[Path], Ids], folder: Path, encoder: TextEncoder
) -> None:
    texts = list(cut_texts(texts_of(DEMO / "train.csv"), 5000, seed=1))
    require_same(ids_of(folder), encoder, texts)


@ENGINES
def test_odd_texts_get_the_same_ids(
    ids_of: Callable[[Path], Ids], folder: Path, encoder: TextEncoder
) -> None:
    require_same(ids_of(folder), encoder, list(odd_texts(6000, seed=2)))


@ENGINES
def test_a_text_gets_the_same_ids_alone(
    ids_of: Callable[[Path], Ids], folder: Path, encoder: TextEncoder
) -> None:
    ids = ids_of(folder)
    for text in odd_texts(200, seed=3):
        assert ids([text]) == encoder([text]), text


@pytest.mark.slow
@needs_real_data
@ENGINES
@pytest.mark.parametrize("name", ["sentiment", "topic"])
def test_all_of_a_real_data_set_gets_the_same_ids(
    name: str, ids_of: Callable[[Path], Ids], folder: Path, encoder: TextEncoder
) -> None:
    texts = list(cut_texts(texts_of(REAL / name / "train.csv"), 10_000, seed=4))
    require_same(ids_of(folder), encoder, texts)


@pytest.mark.slow
@ENGINES
def test_many_odd_texts_get_the_same_ids(
    ids_of: Callable[[Path], Ids], folder: Path, encoder: TextEncoder
) -> None:
    require_same(ids_of(folder), encoder, list(odd_texts(20_000, seed=5)))


@pytest.mark.slow
@ENGINES
def test_every_character_gets_the_same_ids(
    ids_of: Callable[[Path], Ids], folder: Path, tmp_path: Path
) -> None:
    (tmp_path / GRAPH).write_bytes((folder / GRAPH).read_bytes())
    (tmp_path / TOKENIZER).write_bytes((folder / TOKENIZER).read_bytes())
    with_tokenizer_onnx(tmp_path, GRAPH, OUT, 512)
    with_tokenizer_openvino(tmp_path, IR, 512)
    encoder = TextEncoder.from_file(tmp_path / TOKENIZER, 512)
    # Of the planes without assigned characters, which are treated in long runs, one of sixteen.
    points = [*range(1, 0x40000), *range(0x40000, 0xE0000, 16), *range(0xE0000, 0xF0000)]
    points += range(0xF0000, sys.maxunicode + 1, 16)
    characters = [chr(n) for n in points if not 0xD800 <= n < 0xE000]
    texts = [
        " ".join(f"a{character}s" for character in characters[start : start + 64])
        for start in range(0, len(characters), 64)
    ]
    require_same(ids_of(tmp_path), encoder, texts)


def test_a_zero_character_ends_a_text_in_onnx_only(folder: Path, encoder: TextEncoder) -> None:
    text = "good\0bye, everyone"
    assert openvino_ids(folder)([text]) == encoder([text]) == encoder(["goodbye, everyone"])
    assert onnx_ids(folder)([text]) == encoder(["good"])


@ENGINES
def test_a_long_text_is_cut_and_keeps_its_end(ids_of: Callable[[Path], Ids], bundle: Path) -> None:
    max_tokens = 16
    with_tokenizer_onnx(bundle, GRAPH, OUT, max_tokens)
    with_tokenizer_openvino(bundle, IR, max_tokens)
    encoder = TextEncoder.from_file(bundle / TOKENIZER, max_tokens)
    ids = ids_of(bundle)
    texts = ["word " * n for n in (0, 1, 2, 13, 14, 15, 500)]
    assert ids(texts) == encoder(texts)
    assert len(ids(texts)[-1]) == max_tokens


def test_a_text_gets_the_logits_that_the_bundle_gives_it(folder: Path) -> None:
    texts = [
        *texts_of(DEMO / "dev.csv")[:60],
        "",
        "[SEP] \u00c9T\u00c9 \u4e2d\u6587",
        "word " * 300,
    ]
    running = session(folder / OUT)
    names = [output.name for output in running.get_outputs()]
    with EdgeClassifier.load(folder, target="onnx-int8") as classifier:
        expected = classifier.logits(texts)
    assert names == list(expected)
    together = running.run(names, {TEXT: np.array(texts, object)})
    alone = [running.run(names, {TEXT: np.array([text], object)}) for text in texts]
    for n, name in enumerate(names):
        np.testing.assert_allclose(together[n], expected[name], rtol=0, atol=1e-4)
        rows = np.concatenate([values[n] for values in alone])
        np.testing.assert_allclose(rows, expected[name], rtol=0, atol=1e-4)


def test_openvino_takes_what_its_tokenizer_gives(folder: Path) -> None:
    texts = texts_of(DEMO / "dev.csv")[:20]
    compiled = ov.Core().compile_model(str(folder / IR), "CPU")
    with EdgeClassifier.load(folder, target="openvino-int8") as classifier:
        expected = classifier.logits(texts)
        values = compiled({TEXT: texts})
        got = classifier._running().engine.run(*(values[name] for name in INPUTS))
    for name, logits in expected.items():
        np.testing.assert_allclose(got[name], logits, rtol=0, atol=1e-4)


def test_the_string_graph_is_small_and_shares_the_weights(folder: Path) -> None:
    former = onnx.load(str(folder / GRAPH), load_external_data=False)
    model = onnx.load(str(folder / OUT), load_external_data=False)
    assert (folder / OUT).stat().st_size < 2_000_000
    assert {v.name for v in model.graph.input} == {TEXT}
    assert [v.name for v in model.graph.output] == [v.name for v in former.graph.output]
    kept = [value for value in model.graph.initializer if not value.name.startswith("text/")]
    assert kept == list(former.graph.initializer)
    assert any(value.external_data for value in kept)


def test_the_same_bundle_gives_the_same_files(folder: Path, bundle: Path) -> None:
    max_tokens = read_manifest(bundle).max_tokens
    with_tokenizer_onnx(bundle, GRAPH, OUT, max_tokens)
    with_tokenizer_openvino(bundle, IR, max_tokens)
    for name in (OUT, IR, IR.replace(".xml", ".bin")):
        assert (bundle / name).read_bytes() == (folder / name).read_bytes(), name


def test_a_string_graph_goes_into_onnx_runtimes_own_format(folder: Path) -> None:
    written, operators = write_ort(folder, OUT, Path(extensions.get_library_path()))
    names = [output.name for output in session(folder / OUT).get_outputs()]
    feed = {TEXT: np.array(["a quiet triumph", "dull"], object)}
    pairs = zip(
        session(folder / OUT).run(names, feed),
        session(folder / written).run(names, feed),
        strict=True,
    )
    for expected, got in pairs:
        np.testing.assert_allclose(got, expected, rtol=0, atol=1e-4)
    assert "ai.onnx.contrib;1;" in (folder / operators).read_text()


@pytest.mark.parametrize("write", [
    lambda folder: with_tokenizer_onnx(folder, GRAPH, OUT, 128),
    lambda folder: with_tokenizer_openvino(folder, IR, 128),
], ids=["onnx", "openvino"])  # fmt: skip
class TestWhatCannotBeWritten:
    def test_another_kind_of_tokenizer(self, write: Callable[[Path], None], bundle: Path) -> None:
        tokenizer = Tokenizer.from_file(str(bundle / TOKENIZER))
        tokenizer.normalizer = normalizers.NFKC()
        tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
        tokenizer.save(str(bundle / TOKENIZER))
        with pytest.raises(ExportError, match="WordPiece, NFKC, Whitespace, and text in the graph"):
            write(bundle)

    def test_a_special_token_that_takes_spaces_along(
        self, write: Callable[[Path], None], bundle: Path
    ) -> None:
        tokenizer = Tokenizer.from_file(str(bundle / TOKENIZER))
        tokenizer.add_special_tokens([AddedToken("<user>", lstrip=True, normalized=False)])
        tokenizer.save(str(bundle / TOKENIZER))
        with pytest.raises(ExportError, match="'<user>' that depends on its context"):
            write(bundle)

    def test_a_package_that_is_missing(
        self, write: Callable[[Path], None], bundle: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sys.modules, "onnxruntime_extensions", None)
        monkeypatch.setitem(sys.modules, "openvino_tokenizers", None)
        with pytest.raises(MissingPackageError, match=r"pip install 'mtl-edge\[text\]'"):
            write(bundle)


@pytest.mark.slow
@ENGINES
@pytest.mark.parametrize("options", [
    {"lowercase": False},
    {"lowercase": True, "strip_accents": False},
    {"lowercase": False, "strip_accents": True},
    {"handle_chinese_chars": False},
    {"clean_text": False},
], ids=str)  # fmt: skip
def test_other_settings_of_the_normalizer_are_followed(
    options: dict[str, bool], ids_of: Callable[[Path], Ids], bundle: Path
) -> None:
    tokenizer = Tokenizer.from_file(str(bundle / TOKENIZER))
    tokenizer.normalizer = normalizers.BertNormalizer(**options)
    tokenizer.save(str(bundle / TOKENIZER))
    with_tokenizer_onnx(bundle, GRAPH, OUT, 128)
    with_tokenizer_openvino(bundle, IR, 128)
    encoder = TextEncoder.from_file(bundle / TOKENIZER, 128)
    require_same(ids_of(bundle), encoder, list(odd_texts(1500, seed=6)))
