"""A model for each task in ONNX Runtime through optimum, quantized dynamically to int8.

The folder holds the models in torch, as `transformers_pipelines` saved them.
"""

import os
import shutil

import onnxruntime
from classifier_models import tasks_of
from optimum.onnxruntime import ORTModelForSequenceClassification, ORTQuantizer
from optimum.onnxruntime.configuration import AutoQuantizationConfig
from transformers import AutoTokenizer, pipeline
from tuned_pipelines import answering, tune


def fit(rows, backbone, folder, options):
    for task in tasks_of(folder):
        source = os.path.join(folder, task)
        target = source + ".quantized"
        model = ORTModelForSequenceClassification.from_pretrained(source, export=True)
        config = AutoQuantizationConfig.avx512_vnni(is_static=False, per_channel=True)
        ORTQuantizer.from_pretrained(model).quantize(save_dir=target, quantization_config=config)
        AutoTokenizer.from_pretrained(source).save_pretrained(target)
        shutil.rmtree(source)
        os.rename(target, source)
    tune(_pipelines(folder, int(os.environ["OMP_NUM_THREADS"])), rows, folder)


def load(folder, options, threads):
    return answering(_pipelines(folder, threads), folder)


def _pipelines(folder, threads):
    session = onnxruntime.SessionOptions()
    session.intra_op_num_threads = threads
    made = {}
    for task in tasks_of(folder):
        path = os.path.join(folder, task)
        model = ORTModelForSequenceClassification.from_pretrained(
            path, file_name="model_quantized.onnx", session_options=session
        )
        made[task] = pipeline(
            "text-classification", model=model, tokenizer=AutoTokenizer.from_pretrained(path)
        )
    return made
