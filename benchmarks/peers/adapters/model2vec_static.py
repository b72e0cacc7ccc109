"""model2vec: the encoder distilled to one vector a token.

Option head: `logistic`, one logistic regression a task on shared embeddings; or `classifier`, the
library's own, which teaches the vectors too, so that each task has a model.
"""

import json
import os

STATIC = "static"
SAVED_TASKS = "tasks.json"


def prepare(rows, backbone, folder, options):
    from model2vec.distill import distill

    static = os.path.join(folder, STATIC)
    distill(model_name=backbone, pca_dims=256).save_pretrained(static)
    if options["head"] == "classifier":
        import shutil

        from model2vec.train import StaticModelForClassification

        for task, (texts, labels) in rows.items():
            classifier = StaticModelForClassification.from_pretrained(model_name=static)
            classifier.fit(texts, labels)
            classifier.to_pipeline().save_pretrained(os.path.join(folder, task))
        shutil.rmtree(static)
        with open(os.path.join(folder, SAVED_TASKS), "w", encoding="utf-8") as file:
            json.dump(list(rows), file)


def fit(rows, backbone, folder, options):
    if options["head"] == "logistic":
        from linear_heads import fit_heads

        fit_heads(_static(folder, options), rows, folder)


def load(folder, options, threads):
    if options["head"] == "logistic":
        from linear_heads import answering

        return answering(_static(folder, options), folder)
    from model2vec.inference import StaticModelPipeline

    with open(os.path.join(folder, SAVED_TASKS), encoding="utf-8") as file:
        pipelines = {
            task: StaticModelPipeline.from_pretrained(os.path.join(folder, task))
            for task in json.load(file)
        }

    def answers(texts):
        found = {}
        for task, classifier in pipelines.items():
            probabilities = classifier.predict_proba(texts)
            found[task] = classifier.classes_[probabilities.argmax(1)], probabilities.max(1)
        return found

    return answers


def _static(folder, options):
    from model2vec import StaticModel

    model = StaticModel.from_pretrained(os.path.join(folder, STATIC))
    return lambda texts: model.encode(texts, max_length=options["max_tokens"])
