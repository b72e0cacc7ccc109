"""Answers for streams of any length, synchronous or not, a window of texts at a time."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Iterator

from mtl_edge.answers.predictions import Prediction
from mtl_edge.batches.prefetch import prefetched, windows
from mtl_edge.cascade.outputs import predictions
from mtl_edge.cascade.session import Session
from mtl_edge.errors import OptionError, TextError

__all__ = ["answer_async_stream", "answer_stream", "require_window"]


def answer_stream(session: Session, texts: Iterator[str], window: int) -> Iterator[Prediction]:
    """A prediction for each text, in the stream's order.

    Args:
        window: texts that are read, planned into batches and held at a time. While one window is
            computed the next is tokenized; a window of 1 is answered before the next text is read.

    Raises:
        TextError, EngineError: see `Session.answer_texts`; positions count from the stream's start.
    """

    def token_ids(numbered: tuple[int, list[str]]) -> list[list[int]]:
        number, texts = numbered
        return session.token_ids(texts, number * window, stream=True)

    numbered = enumerate(windows(texts, window))
    for ids in map(token_ids, numbered) if window == 1 else prefetched(token_ids, numbered):
        yield from predictions(session.answer_ids(ids))


async def answer_async_stream(
    session: Session, texts: AsyncIterable[str], window: int
) -> AsyncIterator[Prediction]:
    """The same for an asynchronous stream; a window's answers come once it is full.

    Raises:
        TextError: also where `texts` is no asynchronous stream.
    """
    from asyncio import to_thread

    if not hasattr(texts, "__aiter__"):
        raise TextError(
            f"expected an asynchronous stream of texts, got {type(texts).__name__}; give "
            "predict_iter or apredict what is not asynchronous"
        )
    waiting, done = list[str](), 0

    def answers() -> list[Prediction]:
        ids = session.token_ids(waiting, done, stream=True)
        return predictions(session.answer_ids(ids))

    async for text in texts:
        waiting.append(text)
        if len(waiting) == window:
            for prediction in await to_thread(answers):
                yield prediction
            done += len(waiting)
            waiting.clear()
    if waiting:
        for prediction in await to_thread(answers):
            yield prediction


def require_window(window: int) -> None:
    """
    Raises:
        OptionError: the window is not positive.
    """
    if window < 1:
        raise OptionError(f"window is {window}, expected 1 or more")
