"""A supervised fastText model for each task, with bigrams, as its tutorial does it.

Option quantized: also product quantization. Learning rate and epochs of the tutorial's ranges are
chosen on a tenth of the rows.
"""

import json
import os
import re
import tempfile

import fasttext

TRIED = [(rate, epochs) for rate in (0.1, 0.5, 1.0) for epochs in (5, 25)]
SEED = 0
PUNCTUATION = re.compile(r"([.!?,'/()\"])")
FILE = "tasks.json"


def fit(rows, backbone, folder, options):
    for number, (texts, labels) in enumerate(rows.values()):
        lines = [
            f"__label__{label.replace(' ', '_')} {_normalized(text)}\n"
            for text, label in zip(texts, labels, strict=True)
        ]
        with tempfile.TemporaryDirectory() as data:
            every, learn, judge = (os.path.join(data, name) for name in ("all", "learn", "judge"))
            _write(every, lines)
            _write(learn, [line for i, line in enumerate(lines) if i % 10])
            _write(judge, lines[::10])
            best = max(TRIED, key=lambda tried: _taught(learn, tried).test(judge)[1])
            model = _taught(every, best)
            if options["quantized"]:
                model.quantize(input=every, qnorm=True, retrain=True, cutoff=100_000)
            model.save_model(_file(folder, number, options))
    with open(os.path.join(folder, FILE), "w", encoding="utf-8") as file:
        known = {task: sorted(set(labels)) for task, (_, labels) in rows.items()}
        json.dump(known, file)


def load(folder, options, threads):
    with open(os.path.join(folder, FILE), encoding="utf-8") as file:
        known = json.load(file)
    models = {}
    for number, (task, labels) in enumerate(known.items()):
        names = {f"__label__{label.replace(' ', '_')}": label for label in labels}
        models[task] = fasttext.load_model(_file(folder, number, options)), names

    def answers(texts):
        lines = [_normalized(text) for text in texts]
        found = {}
        for task, (model, names) in models.items():
            labels, probabilities = model.predict(lines)
            found[task] = [names[label[0]] for label in labels], [p[0] for p in probabilities]
        return found

    return answers


def _taught(file, tried):
    rate, epochs = tried
    settings = {"lr": rate, "epoch": epochs, "wordNgrams": 2, "bucket": 200_000, "dim": 50}
    return fasttext.train_supervised(input=file, seed=SEED, verbose=0, **settings)


def _file(folder, number, options):
    return os.path.join(folder, f"{number}.{'ftz' if options['quantized'] else 'bin'}")


def _normalized(text):
    """Lower case, marks apart, one line, as the tutorial's `sed` and `tr` do."""
    return " ".join(PUNCTUATION.sub(r" \1 ", text.lower()).split())


def _write(path, lines):
    with open(path, "w", encoding="utf-8") as file:
        file.writelines(lines)
