"""What is measured: the environments, and the ways to answer two tasks with one small encoder.

Every setting is the one that the project's own pages recommend for speed on a CPU; where they leave
a number open (a batch size), fitting tries a few and keeps the fastest.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["BY_NAME", "ENVIRONMENTS", "OWN", "PEERS", "REFERENCE", "WITHOUT", "Peer"]

TORCH = "torch==2.13.0"
OWN = "mtl_edge_bundle"  # the adapter of this project's bundles

# Pinned, from the registry. `mtl-edge` gets this repository's wheel besides.
ENVIRONMENTS: Mapping[str, tuple[str, ...]] = {
    "mtl-edge": ("openvino==2026.4.1", "onnxruntime==1.32.0", "tokenizers==0.23.3", "numpy==2.4.6"),
    "transformers": (TORCH, "transformers==5.24.0", "scikit-learn==1.9.1"),
    "optimum": (
        TORCH,
        "transformers==4.57.6",
        "optimum==2.1.0",
        "optimum-onnx[onnxruntime]==0.1.0",
        "sentence-transformers==5.7.0",
        "scikit-learn==1.9.1",
    ),
    "openvino": (
        TORCH,
        "optimum-intel[openvino]==2.2.0",
        "sentence-transformers==6.2.0",
        "datasets==5.0.1",
        "scikit-learn==1.9.1",
    ),
    "setfit": (TORCH, "setfit==1.2.0", "scikit-learn==1.9.1"),
    "ctranslate2-convert": (TORCH, "ctranslate2==4.8.5", "transformers==4.57.6"),
    "ctranslate2": ("ctranslate2==4.8.5", "tokenizers==0.23.3", "scikit-learn==1.9.1"),
    "fastembed": ("fastembed==0.9.1", "scikit-learn==1.9.1"),
    "model2vec-distill": (TORCH, "model2vec[distill,train]==0.10.0", "scikit-learn==1.9.1"),
    "model2vec": ("model2vec[inference]==0.10.0", "scikit-learn==1.9.1"),
    "scikit-learn": ("scikit-learn==1.9.1",),
    "fasttext": ("fasttext-wheel==0.9.2", "numpy==1.26.4"),
}

# What is removed again: optimum-intel asks for torchvision, whose build in the registry does not
# load beside torch's build for CPUs, and then transformers does not either; no text needs it.
WITHOUT: Mapping[str, tuple[str, ...]] = {"openvino": ("torchvision",)}


@dataclass(frozen=True, slots=True)
class Peer:
    """One way to answer all tasks, ours or another project's.

    Attributes:
        name: short; of its folder, of options, and in the picture.
        title: what it is, for the table.
        environment: of `ENVIRONMENTS`; it answers there.
        adapter: a file of `adapters/`, which fits, loads and asks it.
        source: where its project recommends this.
        prepare_in: the environment that converts its model, where that needs packages that
            answering does not.
        begins_with: the name of an earlier one whose models it takes over as they were fitted.
        made_in: seconds that its models took, where they were made before they came here.
    """

    name: str
    title: str
    environment: str
    adapter: str
    source: str
    options: Mapping[str, Any] = field(default_factory=dict)
    prepare_in: str | None = None
    begins_with: str | None = None
    made_in: float | None = None

    @property
    def own(self) -> bool:
        """Whether it is a bundle of this project."""
        return self.adapter == OWN

    @property
    def environments(self) -> tuple[str, ...]:
        return (self.environment,) if self.prepare_in is None else (
            self.prepare_in, self.environment)  # fmt: skip


PIPELINES = "https://huggingface.co/docs/transformers/pipeline_tutorial"
SENTENCES = "https://sbert.net/docs/sentence_transformer/usage/efficiency.html"
MODEL2VEC = "https://github.com/MinishLab/model2vec"
SCIKIT_LEARN = "https://scikit-learn.org/stable/auto_examples/text/plot_document_classification_20newsgroups.html"
FASTTEXT = "https://fasttext.cc/docs/en/supervised-tutorial.html"

# What the others' speed is compared with.
REFERENCE = "pipelines fp32"

# fmt: off
PEERS: tuple[Peer, ...] = (
    Peer(REFERENCE, "transformers, a pipeline per task, torch fp32",
         "transformers", "transformers_pipelines", PIPELINES,
         {"dtype": "float32"}),
    Peer("pipelines bf16", "transformers, a pipeline per task, torch bf16",
         "transformers", "transformers_pipelines", PIPELINES,
         {"dtype": "bfloat16"}, begins_with=REFERENCE),
    Peer("pipelines compiled",
         "transformers, a pipeline per task, torch fp32, torch.compile(dynamic=True)",
         "transformers", "transformers_pipelines", "https://huggingface.co/docs/transformers/perf_torch_compile",
         {"dtype": "float32", "compile": True}, begins_with=REFERENCE),
    Peer("optimum int8", "optimum, ONNX Runtime, a dynamic int8 model per task",
         "optimum", "optimum_onnx", "https://huggingface.co/docs/optimum-onnx/onnxruntime/usage_guides/quantization",
         begins_with=REFERENCE),
    Peer("sbert onnx int8",
         "sentence-transformers, ONNX Runtime, dynamic int8 + logistic regression",
         "optimum", "sentence_encoder", SENTENCES,
         {"backend": "onnx"}),
    Peer("sbert openvino int8",
         "sentence-transformers, OpenVINO, static int8 + logistic regression",
         "openvino", "sentence_encoder", SENTENCES,
         {"backend": "openvino"}),
    Peer("setfit", "SetFit, body frozen, a model per task, torch fp32",
         "setfit", "setfit_models", "https://huggingface.co/docs/setfit/how_to/classification_heads"),
    Peer("ctranslate2 int8", "CTranslate2, int8 + logistic regression",
         "ctranslate2", "ctranslate2_encoder", "https://opennmt.net/CTranslate2/guides/transformers.html",
         prepare_in="ctranslate2-convert"),
    Peer("fastembed int8", "fastembed, own model, ONNX Runtime, dynamic int8 + logistic regression",
         "fastembed", "fastembed_encoder", "https://qdrant.github.io/fastembed/",
         prepare_in="optimum"),
    Peer("model2vec", "model2vec, distilled + logistic regression",
         "model2vec", "model2vec_static", MODEL2VEC,
         {"head": "logistic"}, prepare_in="model2vec-distill"),
    Peer("model2vec tuned", "model2vec, distilled, its own classifier per task",
         "model2vec", "model2vec_static", MODEL2VEC,
         {"head": "classifier"}, prepare_in="model2vec-distill"),
    Peer("tf-idf", "scikit-learn, TF-IDF of words 1-2 and characters 2-5 + logistic regression",
         "scikit-learn", "bag_of_words", SCIKIT_LEARN,
         {"features": "all"}),
    Peer("tf-idf words", "scikit-learn, TF-IDF of words 1-2 + logistic regression",
         "scikit-learn", "bag_of_words", SCIKIT_LEARN,
         {"features": "words"}),
    Peer("fasttext", "fastText, supervised, bigrams, a model per task",
         "fasttext", "fasttext_models", FASTTEXT,
         {"quantized": False}),
    Peer("fasttext quantized", "fastText, supervised, bigrams, a model per task, quantized",
         "fasttext", "fasttext_models", "https://fasttext.cc/docs/en/cheatsheet.html",
         {"quantized": True}),
)
# fmt: on

BY_NAME: Mapping[str, Peer] = {peer.name: peer for peer in PEERS}
