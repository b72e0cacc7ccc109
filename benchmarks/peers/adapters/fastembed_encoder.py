"""fastembed with a model of one's own, in int8, and a logistic regression for each task.

The graph is what sentence-transformers exports and quantizes; fastembed has no exporter.
"""

import json
import os
import shutil

NAME = "local/minilm"
GRAPH = "model.onnx"
FILES = ("config.json", "tokenizer.json", "special_tokens_map.json")
TRIED = [(batch, ordered) for batch in (8, 32, 64, 256) for ordered in (False, True)]
SAMPLE = 256


def prepare(rows, backbone, folder, options):
    import sentence_transformers
    from sentence_transformers import SentenceTransformer

    exported = os.path.join(folder, "exported")
    model = SentenceTransformer(backbone, backend="onnx", model_kwargs={"export": True})
    sentence_transformers.export_dynamic_quantized_onnx_model(model, "avx512_vnni", exported)
    os.replace(
        os.path.join(exported, "onnx", "model_qint8_avx512_vnni.onnx"), os.path.join(folder, GRAPH)
    )
    shutil.rmtree(exported)
    for name in FILES:
        shutil.copyfile(os.path.join(backbone, name), os.path.join(folder, name))
    with open(os.path.join(backbone, "tokenizer_config.json"), encoding="utf-8") as file:
        config = json.load(file)
    for key in ("max_length", "model_max_length"):
        config[key] = options["max_tokens"]
    with open(os.path.join(folder, "tokenizer_config.json"), "w", encoding="utf-8") as file:
        json.dump(config, file)


def fit(rows, backbone, folder, options):
    from linear_heads import fastest, fit_heads

    encode = _encoder(folder, options, int(os.environ["OMP_NUM_THREADS"]))
    texts = [text for texts, _ in rows.values() for text in texts[: SAMPLE // len(rows)]]
    best = fastest(TRIED, lambda how: encode(texts, *how))
    with open(os.path.join(folder, "fastest.json"), "w", encoding="utf-8") as file:
        json.dump(best, file)
    fit_heads(lambda texts: encode(texts, *best), rows, folder)


def load(folder, options, threads):
    from linear_heads import answering

    with open(os.path.join(folder, "fastest.json"), encoding="utf-8") as file:
        best = json.load(file)
    encode = _encoder(folder, options, threads)
    return answering(lambda texts: encode(texts, *best), folder)


def _encoder(folder, options, threads):
    import numpy as np
    from fastembed import TextEmbedding
    from fastembed.common.model_description import ModelSource, PoolingType
    from linear_heads import by_length

    with open(os.path.join(folder, "config.json"), encoding="utf-8") as file:
        width = json.load(file)["hidden_size"]
    TextEmbedding.add_custom_model(
        model=NAME,
        pooling=PoolingType.MEAN,
        normalization=True,
        sources=ModelSource(hf=NAME),
        dim=width,
        model_file=GRAPH,
    )
    embedder = TextEmbedding(NAME, specific_model_path=folder, threads=threads)

    def encode(texts, batch_size, ordered):
        def embed(some):
            return list(embedder.embed(some, batch_size=batch_size))

        return np.stack(by_length(texts, embed) if ordered else embed(texts))

    return encode
