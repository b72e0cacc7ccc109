"""Streams, event loops, columns, limits and tasks: what may be given, and what comes of it."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections import UserDict
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from mtl_edge import EdgeClassifier, Limits
from mtl_edge.errors import LimitError, OptionError, TextError

TEXTS = [f"text number {i} " + "and so on " * (i % 9) for i in range(50)]


@pytest.fixture(scope="module", params=["onnxruntime", "openvino"])
def classifier(request: pytest.FixtureRequest, shared_bundle: Path) -> Iterator[EdgeClassifier]:
    with EdgeClassifier.load(shared_bundle, engine=request.param, fixed_tokens=0) as loaded:
        yield loaded


@pytest.fixture
def limited(shared_bundle: Path) -> Callable[..., EdgeClassifier]:
    def load(**limits: Any) -> EdgeClassifier:
        return EdgeClassifier.load(
            shared_bundle, target="onnx-int8", limits=Limits(**limits), warm=False
        )

    return load


def of_ours() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("mtl-edge")]


# --- streams


@pytest.mark.parametrize("window", [1, 7, 50, 1000])
def test_a_stream_gets_the_answers_of_a_list_in_its_order(
    classifier: EdgeClassifier, window: int
) -> None:
    expected = classifier.predict(TEXTS)
    streamed = list(classifier.predict_iter(iter(TEXTS), window))
    assert [p["topic"].label for p in streamed] == [p["topic"].label for p in expected]
    np.testing.assert_allclose(
        [p["topic"].probability for p in streamed],
        [p["topic"].probability for p in expected],
        atol=1e-4,
    )


def test_a_stream_without_texts_has_no_answers(classifier: EdgeClassifier) -> None:
    assert list(classifier.predict_iter([])) == []


def test_an_endless_stream_is_read_two_windows_ahead_at_most(classifier: EdgeClassifier) -> None:
    read = 0

    def endless() -> Iterator[str]:
        nonlocal read
        for read in itertools.count(1):
            yield f"text {read}"

    answers = classifier.predict_iter(endless(), window=10)
    most = 0
    for given, _ in enumerate(itertools.islice(answers, 200)):
        most = max(most, read - given)
    assert 10 < most <= 30
    answers.close()  # type: ignore[attr-defined]
    assert not of_ours()


def test_a_window_of_one_answers_before_it_reads_on(classifier: EdgeClassifier) -> None:
    events: list[str] = []

    def talk() -> Iterator[str]:
        for i in range(3):
            events.append(f"read {i}")
            yield "a text"

    for i, _ in enumerate(classifier.predict_iter(talk(), window=1)):
        events.append(f"answer {i}")
    assert events == ["read 0", "answer 0", "read 1", "answer 1", "read 2", "answer 2"]


def test_a_stream_that_is_left_leaves_no_thread(classifier: EdgeClassifier) -> None:
    for _ in classifier.predict_iter(itertools.repeat("a text"), window=5):
        break
    answers = classifier.predict_iter(itertools.repeat("a text"), window=5)
    next(answers)
    assert of_ours()
    del answers
    assert not of_ours()


def test_a_source_that_fails_is_heard(classifier: EdgeClassifier) -> None:
    def source() -> Iterator[str]:
        yield from TEXTS
        raise ConnectionResetError("the line is dead")

    for window in (1, 10):
        with pytest.raises(ConnectionResetError, match="the line is dead"):
            list(classifier.predict_iter(source(), window))
    assert not of_ours()
    assert len(classifier.predict(TEXTS)) == len(TEXTS)


@pytest.mark.parametrize("window", [1, 10])
def test_what_is_no_text_is_named_by_its_place_in_the_stream(
    classifier: EdgeClassifier, window: int
) -> None:
    answers = classifier.predict_iter([*TEXTS[:35], None], window)  # type: ignore[list-item]
    given = 0
    with pytest.raises(TextError, match="item 35 is NoneType"):
        for _ in answers:
            given += 1
    assert given == 35 // window * window


@pytest.mark.parametrize("window", [0, -1])
def test_a_window_holds_a_text_at_least(classifier: EdgeClassifier, window: int) -> None:
    with pytest.raises(OptionError, match=f"window is {window}, expected 1 or more"):
        classifier.predict_iter(TEXTS, window)


@pytest.mark.parametrize(
    "texts", ["one", b"one", {"a": "text"}, pd.DataFrame({"a": ["text"]}), 3, None]
)
def test_a_stream_is_of_texts_and_not_a_text(classifier: EdgeClassifier, texts: Any) -> None:
    with pytest.raises(TextError, match=r"expected (several )?texts, got"):
        classifier.predict_iter(texts)


def test_a_stream_goes_on_when_its_classifier_is_closed(shared_bundle: Path) -> None:
    classifier = EdgeClassifier.load(shared_bundle, target="onnx-int8")
    answers = classifier.predict_iter(TEXTS, window=5)
    next(answers)
    classifier.close()
    assert len(list(answers)) == len(TEXTS) - 1


# --- event loops


def test_an_event_loop_goes_on_meanwhile(classifier: EdgeClassifier) -> None:
    async def main() -> tuple[int, int]:
        ticks, done = 0, asyncio.Event()

        async def tick() -> None:
            nonlocal ticks
            while not done.is_set():
                ticks += 1
                await asyncio.sleep(0.001)

        ticking = asyncio.create_task(tick())
        predicted = await classifier.apredict(TEXTS * 20)
        await classifier.apredict_proba(TEXTS * 20)
        done.set()
        await ticking
        return ticks, len(predicted)

    ticks, count = asyncio.run(main())
    assert count == len(TEXTS) * 20
    assert ticks >= 10


def test_many_calls_at_once_get_their_own_answers(classifier: EdgeClassifier) -> None:
    expected = [classifier.predict(text)["topic"] for text in TEXTS]

    async def main() -> list[Any]:
        return await asyncio.gather(*map(classifier.apredict, TEXTS))

    assert [p["topic"] for p in asyncio.run(main())] == expected


def test_a_call_that_is_cancelled_leaves_the_classifier_as_it_was(
    classifier: EdgeClassifier,
) -> None:
    async def main() -> None:
        call = asyncio.create_task(classifier.apredict(TEXTS * 20))
        await asyncio.sleep(0.01)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert (await classifier.apredict("a text"))["topic"].probability > 0

    asyncio.run(main())


async def arriving(texts: list[Any]) -> AsyncIterator[Any]:
    for text in texts:
        await asyncio.sleep(0)
        yield text


@pytest.mark.parametrize("window", [1, 7, 100])
def test_an_asynchronous_stream_gets_its_answers_in_order(
    classifier: EdgeClassifier, window: int
) -> None:
    async def main() -> list[str]:
        answers = classifier.apredict_iter(arriving(TEXTS), window)
        return [prediction["topic"].label async for prediction in answers]

    assert asyncio.run(main()) == [p["topic"].label for p in classifier.predict(TEXTS)]


def test_an_asynchronous_stream_says_what_is_wrong_and_where(classifier: EdgeClassifier) -> None:
    async def first(texts: Any, window: int = 1) -> None:
        async for _ in classifier.apredict_iter(texts, window):
            pass

    with pytest.raises(TextError, match="item 3 is int"):
        asyncio.run(first(arriving(["a", "b", "c", 4]), 2))
    with pytest.raises(TextError, match="an asynchronous stream of texts, got list"):
        asyncio.run(first(["a"]))
    with pytest.raises(OptionError, match="window is 0"):
        asyncio.run(first(arriving(["a"]), 0))


# --- columns

COLUMNS: dict[str, Callable[[list[str]], Any]] = {
    "tuple": tuple,
    "generator": iter,
    "dictionary's keys": lambda texts: dict.fromkeys(texts).keys(),
    "numpy": np.array,
    "numpy of objects": lambda texts: np.array(texts, object),
    "pandas": pd.Series,
    "pandas of objects": lambda texts: pd.Series(
        texts, dtype=object, index=range(9, 9 + len(texts))
    ),
    "pandas of strings": lambda texts: pd.Series(texts, dtype="string"),
    "pandas categories": lambda texts: pd.Series(texts, dtype="category"),
    "pandas index": pd.Index,
    "polars": pl.Series,
    "arrow": pa.array,
    "arrow in chunks": lambda texts: pa.chunked_array([texts[:20], texts[20:]]),
}


@pytest.mark.parametrize("kind", COLUMNS)
def test_columns_of_any_library_are_texts(classifier: EdgeClassifier, kind: str) -> None:
    expected = classifier.predict_proba(TEXTS)["topic"]
    make = COLUMNS[kind]
    np.testing.assert_array_equal(classifier.predict_proba(make(TEXTS))["topic"], expected)
    assert len(classifier.predict(make(TEXTS))) == len(TEXTS)
    assert len(list(classifier.predict_iter(make(TEXTS)))) == len(TEXTS)
    assert classifier.predict(make([])) == []


def test_a_set_is_answered_in_the_order_that_it_is_read(classifier: EdgeClassifier) -> None:
    texts = set(TEXTS)
    for text, prediction in zip(texts, classifier.predict(texts), strict=True):
        assert prediction["topic"].label == classifier.predict(text)["topic"].label


def test_a_numpy_string_is_one_text(classifier: EdgeClassifier) -> None:
    one = np.array(TEXTS)[3]
    assert classifier.predict(one)["topic"] == classifier.predict(TEXTS[3])["topic"]


@pytest.mark.parametrize(
    "column",
    [
        pd.Series(["a", np.nan, "b"]),
        pd.Series(["a", None, "b"], dtype=object),
        pd.Series(["a", pd.NA, "b"], dtype="string"),
        pl.Series(["a", None, "b"]),
        pa.array(["a", None, "b"]),
        pa.chunked_array([["a"], [None, "b"]]),
        np.array(["a", None, "b"], object),
    ],
    ids=lambda column: (
        f"{type(column).__module__}.{column.dtype if hasattr(column, 'dtype') else ''}"
    ),
)
def test_a_missing_value_is_named_by_its_position(classifier: EdgeClassifier, column: Any) -> None:
    for ask in (classifier.predict, classifier.predict_proba, classifier.logits):
        with pytest.raises(TextError, match=r"item 1 is .*expected str; drop or convert missing"):
            ask(column)
    with pytest.raises(TextError, match="item 1 is"):
        list(classifier.predict_iter(column))


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (pd.DataFrame({"text": ["a"]}), "got DataFrame; give the column"),
        (pl.DataFrame({"text": ["a"]}), "got DataFrame; give the column"),
        (pa.table({"text": ["a"]}), "got Table; give the column"),
        (np.array([["a"]]), "got ndarray; give the column"),
        (np.array("a"), "got ndarray; give the column"),
        ({"text": ["a"]}, "got dict; give the column"),
        (UserDict(text=["a"]), "got UserDict; give the column"),
        (b"a", "got one bytes; put it in a list"),
        (bytearray(b"a"), "got one bytearray"),
        (None, "got NoneType; give a string, a list of strings"),
        (3, "got int; give a string"),
        ([b"a"], "item 0 is bytes"),
        (np.array([b"a"]), "item 0 is bytes"),
        (np.array([1.5]), "item 0 is float"),
        ([["a"]], "item 0 is list"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_holds_no_texts_is_refused_with_advice(
    classifier: EdgeClassifier, texts: Any, message: str
) -> None:
    for ask in (classifier.predict, classifier.predict_proba, classifier.logits):
        with pytest.raises(TextError, match=message):
            ask(texts)


def test_a_mistake_in_the_app_s_own_generator_stays_its_own(classifier: EdgeClassifier) -> None:
    def broken() -> Iterator[str]:
        yield "a"
        raise TypeError("a mistake of the app")

    with pytest.raises(TypeError, match="a mistake of the app"):
        classifier.predict(broken())


# --- limits


def test_a_text_beyond_the_bytes_is_named(limited: Callable[..., EdgeClassifier]) -> None:
    classifier = limited(text_bytes=20)
    assert len(classifier.predict(["x" * 20, "é" * 10])) == 2
    for text, size in (("x" * 21, 21), ("é" * 11, 22)):
        with pytest.raises(LimitError, match=rf"item 1 has {size} bytes, at most 20 are allowed"):
            classifier.predict(["fine", text])
        with pytest.raises(LimitError, match=rf"item 3 has {size} bytes"):
            list(classifier.predict_iter(["a", "b", "c", text], window=2))
        with pytest.raises(LimitError, match=rf"item 0 has {size} bytes"):
            classifier.predict(text)


def test_too_many_texts_are_refused_and_no_endless_iterable_is_read_up(
    limited: Callable[..., EdgeClassifier],
) -> None:
    classifier = limited(texts=5)
    assert len(classifier.predict(["a"] * 5)) == 5
    read = itertools.count()
    for texts in (["a"] * 6, pd.Series(["a"] * 6), (f"{i}" for i in read)):
        with pytest.raises(LimitError, match="6 or more texts in one call, at most 5"):
            classifier.predict(texts)
    assert next(read) < 8


def test_all_texts_together_have_a_limit(limited: Callable[..., EdgeClassifier]) -> None:
    classifier = limited(total_bytes=100)
    assert len(classifier.predict(["x" * 10] * 10)) == 10
    with pytest.raises(LimitError, match="the texts have 110 bytes, at most 100 are allowed"):
        classifier.predict(["x" * 10] * 11)


def test_a_stream_may_have_any_number_of_texts(limited: Callable[..., EdgeClassifier]) -> None:
    classifier = limited(texts=5, total_bytes=50)
    assert len(list(classifier.predict_iter(["x" * 10] * 100))) == 100

    async def main() -> int:
        return len([p async for p in classifier.apredict_iter(arriving(["x" * 10] * 20), 20)])

    assert asyncio.run(main()) == 20


def test_tokens_cut_a_text(limited: Callable[..., EdgeClassifier]) -> None:
    classifier = limited(tokens=5)
    assert classifier.info.max_tokens == 5
    short, long, other = classifier.logits(["one two three", "one two three four", "one two 3"])[
        "topic"
    ]
    np.testing.assert_array_equal(short, long)
    assert not np.array_equal(short, other)
    assert limited(tokens=10**6).info.max_tokens == classifier.manifest.max_tokens


def test_batches_stay_within_their_tokens(
    shared_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for engine in ("onnxruntime", "openvino"):
        limits = Limits(batch_tokens=64)
        classifier = EdgeClassifier.load(
            shared_bundle, engine=engine, limits=limits, fixed_tokens=0
        )
        loaded = classifier._running()
        sizes: list[int] = []
        run = type(loaded.engine).run

        def seen(self: Any, ids: Any, mask: Any, run: Any = run, sizes: list[int] = sizes) -> Any:
            sizes.append(ids.size if len(ids) > 1 else 0)
            return run(self, ids, mask)

        monkeypatch.setattr(type(loaded.engine), "run", seen)
        classifier.predict(TEXTS)
        assert len(sizes) > 5
        assert 0 < max(sizes) <= 64


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("text_bytes", 0),
        ("texts", -1),
        ("total_bytes", 0),
        ("tokens", 2),
        ("batch_tokens", 0),
        ("tokens", "12"),
        ("texts", 1.5),
        ("texts", None),
    ],
)
def test_a_limit_that_lets_nothing_through_is_refused(name: str, value: Any) -> None:
    with pytest.raises(OptionError, match=rf"limit {name} is {value!r}, expected an integer"):
        Limits(**{name: value})


# --- tasks


def test_tasks_are_answered_in_the_order_asked_for(shared_bundle: Path) -> None:
    both = EdgeClassifier.load(shared_bundle, target="onnx-int8")
    assert list(both.classes_) == ["sentiment", "topic"]
    turned = EdgeClassifier.load(
        shared_bundle, target="onnx-int8", tasks=["topic", "sentiment", "topic"]
    )
    assert list(turned.predict("a text")) == ["topic", "sentiment"]
    assert turned.info.tasks == ("topic", "sentiment")
    for one in ("topic", ["topic"], iter(["topic"])):
        classifier = EdgeClassifier.load(shared_bundle, target="onnx-int8", tasks=one)  # type: ignore[arg-type]
        assert list(classifier.predict("a text")) == ["topic"]
        assert list(classifier.predict_proba("a text")) == list(classifier.classes_) == ["topic"]
        assert list(classifier.logits([])) == ["topic"]
        assert classifier.predict("a text")["topic"] == both.predict("a text")["topic"]
        classifier.reload()
        assert [task.name for task in classifier.tasks] == ["topic"]


def test_a_task_that_the_bundle_lacks_is_named(shared_bundle: Path) -> None:
    for tasks in (["mood"], ["topic", "mood"], "mood"):
        with pytest.raises(OptionError, match="no task 'mood'; it has sentiment, topic"):
            EdgeClassifier.load(shared_bundle, tasks=tasks)
    with pytest.raises(OptionError, match="tasks is empty, expected some of sentiment, topic"):
        EdgeClassifier.load(shared_bundle, tasks=[])
