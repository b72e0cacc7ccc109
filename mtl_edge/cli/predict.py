"""`mtl-edge predict`: texts from arguments, a file or standard input; a table or JSON lines out."""

from __future__ import annotations

import argparse
import io
import json
import shutil
import sys
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

from mtl_edge.classifier import Answer, EdgeClassifier, Prediction
from mtl_edge.errors import DataError, OptionError
from mtl_edge.table import clip, text_table

__all__ = ["add_arguments", "run"]

CHUNK = 2048


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundle", type=Path, help="a bundle's folder")
    parser.add_argument("texts", nargs="*", help="texts; none: lines of --file or standard input")
    parser.add_argument("--file", type=Path, help="one text a line, UTF-8")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.add_argument("--engine", default="auto", help="auto, onnxruntime or openvino")
    parser.add_argument("--target", help="the graph to run, as `mtl-edge info` lists them")
    parser.add_argument("--threads", type=int, help="default: all cores")
    parser.add_argument(
        "--device",
        default="CPU",
        help="CPU, or what the engine calls another: CUDA, CoreML, ... in ONNX Runtime, GPU or "
        "NPU in OpenVINO; default: %(default)s",
    )


def run(args: argparse.Namespace) -> None:
    if args.texts and args.file:
        raise OptionError("texts came both as arguments and with --file; give one of the two")
    with EdgeClassifier.load(
        args.bundle,
        engine=args.engine,
        target=args.target,
        threads=args.threads,
        device=args.device,
    ) as classifier:
        show = _print_json if args.json else _print_table
        texts = args.texts or _lines(args.file)
        for chunk in _chunks(texts):
            show(chunk, classifier.predict(chunk))


def _lines(file: Path | None) -> Iterator[str]:
    """Lines without their end; bytes that are not UTF-8 become U+FFFD."""
    if file is None:
        if sys.stdin.isatty():
            print("one text a line; end with Ctrl-D", file=sys.stderr)
        yield from _read(sys.stdin.buffer)
        return
    try:
        stream = file.open("rb")
    except OSError as error:
        raise DataError(f"cannot read {file}: {error.strerror}; give a text file") from None
    with stream:
        yield from _read(stream)


def _read(stream: Iterable[bytes]) -> Iterator[str]:
    # Lines end at a line feed alone: a text may hold any other separator that Unicode knows.
    for line in stream:
        yield line.decode("utf-8", "replace").removesuffix("\n").removesuffix("\r")


def _chunks(texts: Iterable[str]) -> Iterator[list[str]]:
    iterator = iter(texts)
    while chunk := list(islice(iterator, CHUNK)):
        yield chunk


def _print_json(texts: list[str], predictions: list[Prediction]) -> None:
    out = io.StringIO()
    for text, prediction in zip(texts, predictions, strict=True):
        answers = {
            task: {
                "label": answer.label,
                "probability": round(answer.probability, 6),
                "sure": answer.sure,
                "probabilities": {k: round(v, 6) for k, v in answer.probabilities.items()},
            }
            for task, answer in prediction.items()
        }
        # ASCII: what a text holds, lone surrogates included, survives any terminal or pipe.
        out.write(json.dumps({"text": text, **answers}) + "\n")
    print(out.getvalue(), end="")


def _print_table(texts: list[str], predictions: list[Prediction]) -> None:
    tasks = list(predictions[0])
    room = shutil.get_terminal_size().columns - 26 * len(tasks)
    rows = [
        [
            clip(text, max(24, min(72, room))),
            *(_short(prediction[t]) for t in tasks),
        ]
        for text, prediction in zip(texts, predictions, strict=True)
    ]
    print(text_table(["text", *tasks], rows))


def _short(answer: Answer) -> str:
    return f"{answer.label} {answer.probability:.0%}{'' if answer.sure else ' (unsure)'}"
