"""A bundle of this project in its runtime; made before, so that nothing is fitted here."""

import numpy as np

from mtl_edge import EdgeClassifier


def load(folder, options, threads):
    classifier = EdgeClassifier.load(options["bundle"], engine=options["engine"], threads=threads)
    labels = {task: np.array(names) for task, names in classifier.classes_.items()}

    def answers(texts):
        found = {}
        for task, probabilities in classifier.predict_proba(texts).items():
            best = probabilities.argmax(1)
            found[task] = labels[task][best], probabilities[np.arange(len(best)), best]
        return found

    return answers
