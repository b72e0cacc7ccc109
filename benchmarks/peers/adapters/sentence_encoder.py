"""sentence-transformers with an int8 graph, and a logistic regression for each task.

Options: backend (`onnx` or `openvino`), max_tokens. The batch size is the one that was fastest on
some of the training texts; the library sorts texts by length itself.
"""

import csv
import json
import os
import tempfile

import sentence_transformers
from linear_heads import answering, fastest, fit_heads
from sentence_transformers import SentenceTransformer

BATCHES = [8, 16, 32, 64, 128]
SAMPLE = 256
CALIBRATION = 300  # texts, what the library's own default takes
ONNX = "model_qint8_avx512_vnni.onnx"
OPENVINO = "openvino_model_qint8_quantized.xml"


def fit(rows, backbone, folder, options):
    {"onnx": _quantize_onnx, "openvino": _quantize_openvino}[options["backend"]](
        backbone, folder, rows
    )
    encoder = _encoder(folder, options, int(os.environ["OMP_NUM_THREADS"]))
    texts = [text for texts, _ in rows.values() for text in texts[: SAMPLE // len(rows)]]
    best = fastest(BATCHES, lambda size: encoder.encode(texts, batch_size=size))
    with open(os.path.join(folder, "fastest.json"), "w", encoding="utf-8") as file:
        json.dump(best, file)
    fit_heads(_encode(encoder, best), rows, folder)


def load(folder, options, threads):
    with open(os.path.join(folder, "fastest.json"), encoding="utf-8") as file:
        batch_size = json.load(file)
    return answering(_encode(_encoder(folder, options, threads), batch_size), folder)


def _encode(encoder, batch_size):
    return lambda texts: encoder.encode(texts, batch_size=batch_size, show_progress_bar=False)


def _quantize_onnx(backbone, folder, rows):
    model = SentenceTransformer(backbone, backend="onnx", model_kwargs={"export": True})
    model.save_pretrained(folder)
    sentence_transformers.export_dynamic_quantized_onnx_model(model, "avx512_vnni", folder)
    os.remove(os.path.join(folder, "onnx", "model.onnx"))


def _quantize_openvino(backbone, folder, rows):
    """Static int8; calibrated on training texts, since the default is a data set of the hub."""
    model = SentenceTransformer(backbone, backend="openvino", model_kwargs={"export": True})
    model.save_pretrained(folder)
    texts = [text for texts, _ in rows.values() for text in texts[: CALIBRATION // len(rows)]]
    with tempfile.TemporaryDirectory() as data:
        with open(os.path.join(data, "train.csv"), "w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([["text"], *([text] for text in texts)])
        sentence_transformers.export_static_quantized_openvino_model(
            model,
            quantization_config=None,
            model_name_or_path=folder,
            dataset_name=data,
            dataset_config_name="default",
            dataset_split="train",
            column_name="text",
        )
    for ending in ("xml", "bin"):
        os.remove(os.path.join(folder, "openvino", f"openvino_model.{ending}"))


def _encoder(folder, options, threads):
    if options["backend"] == "onnx":
        import onnxruntime

        session = onnxruntime.SessionOptions()
        session.intra_op_num_threads = threads
        settings = {
            "file_name": ONNX,
            "provider": "CPUExecutionProvider",
            "session_options": session,
        }
    else:
        settings = {"file_name": OPENVINO, "ov_config": {"INFERENCE_NUM_THREADS": str(threads)}}
    encoder = SentenceTransformer(folder, backend=options["backend"], model_kwargs=settings)
    encoder.max_seq_length = options["max_tokens"]
    return encoder
