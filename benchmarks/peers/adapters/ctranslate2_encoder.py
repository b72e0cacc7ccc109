"""The encoder in CTranslate2, int8, mean pooling, and a logistic regression for each task."""

import json
import os
import shutil

MODEL = "model"
BATCHES = [8, 16, 32, 64, 128]
SAMPLE = 256


def prepare(rows, backbone, folder, options):
    from ctranslate2.converters import TransformersConverter

    TransformersConverter(backbone).convert(
        os.path.join(folder, MODEL), quantization="int8", force=True
    )
    shutil.copyfile(
        os.path.join(backbone, "tokenizer.json"), os.path.join(folder, "tokenizer.json")
    )


def fit(rows, backbone, folder, options):
    from linear_heads import fastest, fit_heads

    encode = _encoder(folder, options, int(os.environ["OMP_NUM_THREADS"]))
    texts = [text for texts, _ in rows.values() for text in texts[: SAMPLE // len(rows)]]
    best = fastest(BATCHES, lambda size: encode(texts, size))
    with open(os.path.join(folder, "fastest.json"), "w", encoding="utf-8") as file:
        json.dump(best, file)
    fit_heads(lambda texts: encode(texts, best), rows, folder)


def load(folder, options, threads):
    from linear_heads import answering

    with open(os.path.join(folder, "fastest.json"), encoding="utf-8") as file:
        batch_size = json.load(file)
    encode = _encoder(folder, options, threads)
    return answering(lambda texts: encode(texts, batch_size), folder)


def _encoder(folder, options, threads):
    """Texts to the mean of their last states, `[texts, width]`."""
    import ctranslate2
    import numpy as np
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(os.path.join(folder, "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(options["max_tokens"])
    encoder = ctranslate2.Encoder(
        os.path.join(folder, MODEL), device="cpu", compute_type="int8", intra_threads=threads
    )

    def encode(texts, batch_size):
        ids = [encoding.ids for encoding in tokenizer.encode_batch_fast(texts)]
        order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
        means = None
        for start in range(0, len(order), batch_size):
            places = order[start : start + batch_size]
            batch = [ids[i] for i in places]
            states = np.array(encoder.forward_batch(batch).last_hidden_state)
            lengths = np.array([len(i) for i in batch])
            mask = np.arange(states.shape[1]) < lengths[:, None]
            if means is None:
                means = np.empty((len(ids), states.shape[2]), np.float32)
            means[places] = np.einsum("btw,bt->bw", states, mask) / lengths[:, None]
        return means

    return encode
