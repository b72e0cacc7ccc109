"""A backbone whose files do not belong together is refused in one line, before any work."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    AutoConfig,
    AutoModel,
    AutoTokenizer,
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    BertModel,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaModel,
)

from mtl_edge.errors import BackboneError
from mtl_edge.tokens.encoder import TextEncoder
from mtl_edge.training.backbone import load_backbone

Fails = Callable[..., str]
Change = Callable[[dict[str, Any]], object]

SIZES: dict[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "vocab_size": 30522,
}
DECODERS: dict[str, dict[str, Any]] = {
    "gpt2": {"n_embd": 16, "n_layer": 1, "n_head": 2},
    "gpt_neo": {"hidden_size": 16, "num_layers": 1, "attention_types": [[["global"], 1]]},
    "gptj": {"n_embd": 16, "n_layer": 1, "n_head": 2, "rotary_dim": 4},
    "bloom": {"hidden_size": 16, "n_layer": 1, "n_head": 2},
    "llama": SIZES,
    "mistral": {**SIZES, "num_key_value_heads": 2},
    "opt": {},
    "qwen2": {},
    "gemma": {},
    "phi": {},
}


@pytest.fixture
def folder(tiny_backbone: Path, tmp_path: Path) -> Path:
    """A copy of the tiny backbone that a test may change."""
    return Path(shutil.copytree(tiny_backbone, tmp_path / "backbone"))


def change(folder: Path, name: str, how: Change) -> None:
    file = folder / name
    content = json.loads(file.read_text(encoding="utf-8"))
    how(content)
    file.write_text(json.dumps(content), encoding="utf-8")


def with_model(folder: Path, model: Any) -> Path:
    model.save_pretrained(folder)
    return folder


def with_tokenizer(folder: Path, tokenizer: Any) -> Path:
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink(missing_ok=True)
    tokenizer.save_pretrained(folder)
    return folder


def refused(folder: Path, *parts: str) -> None:
    with pytest.raises(BackboneError) as caught:
        load_backbone(str(folder))
    assert "\n" not in str(caught.value)
    for part in parts:
        assert part in str(caught.value)


# What can be loaded, and which of it is refused.


@pytest.mark.parametrize("kind", DECODERS)
def test_a_decoder_is_refused_by_name_before_its_weights_are_read(kind: str, folder: Path) -> None:
    AutoConfig.for_model(kind, **DECODERS[kind]).save_pretrained(folder)
    (folder / "model.safetensors").unlink()
    refused(folder, f"{kind!r}, which is not supported: a decoder", "expected an encoder such as")


def test_an_encoder_that_is_told_to_decode_is_refused(folder: Path) -> None:
    change(folder, "config.json", lambda c: c.update(is_decoder=True))
    refused(folder, "'bert'", "a decoder")


@pytest.mark.parametrize("kind", ["bart", "mbart", "t5", "marian", "pegasus", "whisper"])
def test_what_has_an_encoder_and_a_decoder_is_refused(kind: str, folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps({"model_type": kind}))
    refused(folder, f"{kind!r}, which is not supported: an encoder with a decoder")


@pytest.mark.parametrize("kind", ["vit", "deit", "resnet", "wav2vec2", "dinov2", "hubert"])
def test_what_reads_no_text_is_refused(kind: str, folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps({"model_type": kind}))
    refused(folder, f"{kind!r}, which is not supported: it reads images or sounds")


def test_an_adapter_is_refused_with_what_makes_it_whole(folder: Path) -> None:
    (folder / "adapter_config.json").write_text("{}")
    refused(folder, "adapter", "merge_and_unload")
    (folder / "config.json").unlink()
    refused(folder, "adapter", "merge_and_unload")


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json"])
def test_code_that_comes_with_a_model_is_never_run(folder: Path, name: str) -> None:
    (folder / "own.py").write_text("raise SystemExit('ran')")
    auto = {"AutoConfig": "own.A", "AutoModel": "own.B", "AutoTokenizer": ["own.C", None]}
    change(folder, name, lambda c: c.update(auto_map=auto))
    refused(folder, "code of its own (auto_map), which is never run")


def test_quantized_weights_are_refused(folder: Path) -> None:
    quantized = {"quant_method": "bitsandbytes", "load_in_8bit": True}
    change(folder, "config.json", lambda c: c.update(quantization_config=quantized))
    refused(folder, "quantized weights (quantization_config)")


@pytest.mark.parametrize("content", ["", "{", "[]", "\xff"])
@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json"])
def test_a_configuration_that_is_none_is_refused(folder: Path, name: str, content: str) -> None:
    (folder / name).write_bytes(content.encode("latin-1"))
    refused(folder, name)


def test_a_folder_of_sentence_transformers_is_taken_or_says_where_its_encoder_is(
    folder: Path, tmp_path: Path
) -> None:
    outer = tmp_path / "outer"
    outer.mkdir()
    parts = [{"idx": 0, "path": ""}, {"idx": 1, "path": "1_Pooling"}]
    (folder / "modules.json").write_text(json.dumps(parts))
    assert load_backbone(str(folder)).info.layers == 2
    parts[0]["path"] = "0_Transformer"
    (outer / "modules.json").write_text(json.dumps(parts))
    shutil.move(folder, outer / "0_Transformer")
    refused(outer, f"pass --backbone {outer / '0_Transformer'}")
    assert load_backbone(str(outer / "0_Transformer")).info.layers == 2


# Weights and what the configuration says of them.


def test_sharded_weights_are_those_in_one_file(folder: Path) -> None:
    whole = load_backbone(str(folder))
    whole.encoder.save_pretrained(folder, max_shard_size="2MB")
    (folder / "model.safetensors").unlink(missing_ok=True)
    shards = sorted(folder.glob("model-*.safetensors"))
    assert len(shards) > 1
    loaded = load_backbone(str(folder))
    for name, value in whole.encoder.state_dict().items():
        assert torch.equal(loaded.encoder.state_dict()[name], value)
    tensors = safetensors.torch.load_file(shards[-1])
    name = next(iter(tensors))
    tensors[name] = tensors[name] + 1
    safetensors.torch.save_file(tensors, shards[-1], {"format": "pt"})
    assert load_backbone(str(folder)).info.sha256 != loaded.info.sha256
    shards[-1].unlink()
    refused(folder, f"lacks {shards[-1].name}")


@pytest.mark.parametrize(
    "index", ["", "[]", "{}", '{"weight_map": {}}', '{"weight_map": {"a": "../x.safetensors"}}']
)
def test_an_index_of_shards_that_is_none_is_refused(folder: Path, index: str) -> None:
    (folder / "model.safetensors").rename(folder.parent / "x.safetensors")
    (folder / "model.safetensors.index.json").write_text(index)
    refused(folder, "model.safetensors.index.json")


@pytest.mark.parametrize("kind", [BertForSequenceClassification, BertForMaskedLM])
def test_the_encoder_of_a_model_with_a_head_is_loaded_whole(kind: Any, folder: Path) -> None:
    torch.manual_seed(1)
    model = kind(BertConfig(**SIZES)).eval()
    loaded = load_backbone(str(with_model(folder, model))).encoder
    ids = torch.tensor([[101, 2023, 102]])
    torch.testing.assert_close(loaded(ids).last_hidden_state, model.bert(ids).last_hidden_state)


@pytest.mark.parametrize("kind", [BertModel, BertForMaskedLM])
def test_layers_that_the_configuration_does_not_have_are_named(kind: Any, folder: Path) -> None:
    with_model(folder, kind(BertConfig(**{**SIZES, "num_hidden_layers": 4})))
    change(folder, "config.json", lambda c: c.update(num_hidden_layers=2))
    refused(folder, "no place for: ", "encoder.layer.2.", "and 31 more")


def test_weights_under_other_names_are_missing(folder: Path) -> None:
    file = folder / "model.safetensors"
    tensors = safetensors.torch.load_file(file)
    renamed = {name.replace("layer.1", "block.1"): value for name, value in tensors.items()}
    safetensors.torch.save_file(renamed, file, {"format": "pt"})
    refused(folder, "lacks weights: encoder.layer.1.")


def test_weights_of_another_size_are_named_with_both(folder: Path) -> None:
    change(folder, "config.json", lambda c: c.update(vocab_size=30000))
    refused(folder, "embeddings.word_embeddings.weight is (30522, 64), expected (30000, 64)")


def test_constants_that_were_saved_with_the_weights_are_no_weights(folder: Path) -> None:
    file = folder / "model.safetensors"
    tensors = safetensors.torch.load_file(file)
    tensors["embeddings.position_ids"] = torch.arange(512).unsqueeze(0)
    safetensors.torch.save_file(tensors, file, {"format": "pt"})
    assert load_backbone(str(folder)).info.layers == 2


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_named(folder: Path, value: float) -> None:
    encoder = load_backbone(str(folder)).encoder
    encoder.encoder.layer[1].output.dense.weight[3, 3] = value
    refused(with_model(folder, encoder), "no numbers", "encoder.layer.1.output.dense.weight")


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_weights_in_sixteen_bits_are_computed_with_in_float32(
    folder: Path, kind: torch.dtype
) -> None:
    encoder = load_backbone(str(folder)).encoder
    loaded = load_backbone(str(with_model(folder, encoder.to(kind)))).encoder
    assert {value.dtype for value in loaded.parameters()} == {torch.float32}
    for name, value in encoder.state_dict().items():
        torch.testing.assert_close(loaded.state_dict()[name], value.float())


def test_a_configuration_without_architectures_will_do(folder: Path) -> None:
    change(folder, "config.json", lambda c: c.pop("architectures"))
    assert load_backbone(str(folder)).info.layers == 2


# The tokenizer and what the encoder knows of it.


def added(minilm: Path, *tokens: str) -> Any:
    tokenizer = AutoTokenizer.from_pretrained(str(minilm))
    tokenizer.add_tokens([*tokens])
    return tokenizer


def test_tokens_beyond_the_table_of_words_are_one_line_at_train(
    folder: Path, minilm: Path, rows: Path, tmp_path: Path, fails: Fails
) -> None:
    with_tokenizer(folder, added(minilm, "[URL]"))
    command = ["train", "--backbone", folder, "--task", f"topic={rows}", "--out", tmp_path / "out"]
    message = fails(*command)
    for part in ("30,522 rows", "'[URL]' (id 30522)", "resize_token_embeddings"):
        assert part in message
    assert not list(tmp_path.glob("out*"))
    with_tokenizer(folder, added(minilm, "[URL]", "[USER]"))
    assert "'[URL]' (id 30522) and 1 more" in fails(*command)


def test_tokens_that_the_table_has_rows_for_are_read_as_such(folder: Path, minilm: Path) -> None:
    encoder = load_backbone(str(folder)).encoder
    encoder.resize_token_embeddings(30528)  # more rows than tokens, as is usual
    with_tokenizer(with_model(folder, encoder), added(minilm, "[URL]"))
    loaded = load_backbone(str(folder))
    assert loaded.info.vocabulary == 30528
    assert loaded.text_encoder(16)(["see [URL]"]) == [[101, 2156, 30522, 102]]


def test_a_token_around_each_text_that_the_table_lacks_is_refused(folder: Path) -> None:
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))
    template = [("[CLS]", 30522), ("[SEP]", 102)]
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=template
    )
    refused(with_tokenizer(folder, tokenizer), "'[CLS]' (id 30522)")


def test_another_model_s_tokenizer_is_refused(folder: Path) -> None:
    with_model(folder, BertModel(BertConfig(**{**SIZES, "vocab_size": 1000})))
    refused(folder, "1,000 rows", "(id 1000) and 29,521 more", "the tokenizer that belongs to it")


def test_a_tokenizer_of_another_kind_than_its_file_is_refused(folder: Path) -> None:
    change(folder, "tokenizer_config.json", lambda c: c.update(tokenizer_class="RobertaTokenizer"))
    refused(folder, "tokenizer.json of the kind WordPiece", "makes one of the kind BPE")


def test_no_tokenizer_at_all_is_refused(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    refused(folder, "has no tokenizer: expected tokenizer.json or vocab.txt")


def test_a_tokenizer_that_cuts_the_beginning_is_refused(folder: Path, minilm: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(str(minilm), truncation_side="left")
    refused(with_tokenizer(folder, tokenizer), "truncation_side is 'left'", "set `tokenizer.")


@pytest.mark.parametrize(
    "model", [models.WordLevel({"a": 0, "b": 1}), models.Unigram([("a", -1.0), ("b", -2.0)])]
)
def test_a_tokenizer_that_fails_on_what_it_does_not_know_is_refused(
    folder: Path, model: models.Model
) -> None:
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(model))
    refused(
        with_tokenizer(folder, tokenizer),
        "the tokenizer fails on a text",
        "give it an unknown token",
    )


@pytest.mark.parametrize(("padding", "token"), [(101, "[CLS]"), (2023, "this")])
def test_a_padding_that_texts_hold_is_refused(folder: Path, padding: int, token: str) -> None:
    """RoBERTa gives tokens of the padding's id no position."""
    config = RobertaConfig(**SIZES, pad_token_id=padding, max_position_embeddings=4000)
    with_model(folder, RobertaModel(config))
    refused(folder, f"{padding} for the padding's id", repr(token))


@pytest.mark.parametrize("padding", [0, 1])
def test_a_padding_that_no_text_holds_will_do(folder: Path, padding: int) -> None:
    with_model(folder, RobertaModel(RobertaConfig(**SIZES, pad_token_id=padding)))
    assert load_backbone(str(folder)).max_tokens == 511 - padding


def test_types_that_the_encoder_would_not_be_told_are_refused(folder: Path) -> None:
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS]:1 $A:1 [SEP]:1", special_tokens=[("[CLS]", 101), ("[SEP]", 102)]
    )
    refused(with_tokenizer(folder, tokenizer), "types other than 0")


# Training, a checkpoint and a bundle read the same ids.


def cut_by_its_file(minilm: Path) -> Any:
    tokenizer = AutoTokenizer.from_pretrained(str(minilm))
    tokenizer.backend_tokenizer.enable_truncation(5, stride=2)
    tokenizer.backend_tokenizer.enable_padding(length=64, direction="left")
    return tokenizer


def padded_left(minilm: Path) -> Any:
    return AutoTokenizer.from_pretrained(str(minilm), padding_side="left")


def cased(minilm: Path) -> Any:
    return AutoTokenizer.from_pretrained(str(minilm), do_lower_case=False)


def without_special(minilm: Path) -> Any:
    tokenizer = Tokenizer.from_file(str(minilm / "tokenizer.json"))
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="[UNK]")


def of_bytes(_: Path) -> Any:
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    model = models.BPE({letter: n for n, letter in enumerate(["<s>", "</s>", *letters])}, [])
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel()
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 1), ("<s>", 0))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


def of_pieces(_: Path) -> Any:
    words = [("<unk>", 0.0), ("\u2581", -1.0), *((letter, -2.0) for letter in "abcdehlnortu")]
    tokenizer = Tokenizer(models.Unigram(words, unk_id=0))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>")


TEXTS = ["", " ", "a", "Hello, world [URL]! \u00e9t\u00e9 \u4e2d", "one two three " * 40, "\ua66e"]


@pytest.mark.parametrize(
    "make", [cut_by_its_file, padded_left, cased, without_special, of_bytes, of_pieces]
)
def test_ids_are_the_same_in_training_checkpoint_and_bundle(
    make: Callable[[Path], Any], folder: Path, minilm: Path, tmp_path: Path
) -> None:
    with_tokenizer(folder, make(minilm))
    loaded = load_backbone(str(folder))
    trained = loaded.text_encoder(16)
    expected, longer = trained.ids_and_truncated(TEXTS)
    assert [len(ids) for ids in expected][4] == 16
    assert longer == sum(len(ids) == 16 for ids in expected)
    assert min(map(len, expected)) >= 1
    assert trained(TEXTS) == expected
    loaded.save(tmp_path / "checkpoint")
    saved = load_backbone(str(tmp_path / "checkpoint")).text_encoder(16)
    assert saved(TEXTS) == expected
    saved.save(tmp_path / "tokenizer.json")
    bundled = TextEncoder.from_file(tmp_path / "tokenizer.json", 16, loaded.info.vocabulary)
    assert bundled(TEXTS) == expected


def test_long_texts_keep_their_beginning_whatever_the_file_says(folder: Path) -> None:
    left = {"direction": "Left", "max_length": 5, "strategy": "OnlySecond", "stride": 2}
    change(folder, "tokenizer.json", lambda c: c.update(truncation=left))
    encoder = TextEncoder.from_file(folder / "tokenizer.json", 6)
    assert encoder(["one two three four five six"]) == [[101, 2028, 2048, 2093, 2176, 102]]


def test_a_maximum_that_means_none_is_none(folder: Path) -> None:
    change(folder, "tokenizer_config.json", lambda c: c.update(model_max_length=10**30))
    assert load_backbone(str(folder)).max_tokens == 512


def test_a_vocabulary_alone_is_a_tokenizer(folder: Path, minilm: Path) -> None:
    expected = load_backbone(str(folder)).text_encoder(16)(TEXTS)
    (folder / "tokenizer.json").unlink()
    shutil.copy(minilm / "vocab.txt", folder)
    assert load_backbone(str(folder)).text_encoder(16)(TEXTS) == expected


def test_what_is_fetched_from_the_hub_has_all_that_is_read(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub.utils import filter_repo_objects

    kept: list[str] = []

    def download(_: str, allow_patterns: list[str], ignore_patterns: list[str]) -> str:
        files = [
            *("config.json", "tokenizer.json", "vocab.txt", "adapter_config.json", "modules.json"),
            *("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin"),
            *("model-00001-of-00002.safetensors", "onnx/model.onnx", "own.py"),
        ]
        kept.extend(
            filter_repo_objects(
                files, allow_patterns=allow_patterns, ignore_patterns=ignore_patterns
            )
        )
        return str(folder)

    monkeypatch.setattr("mtl_edge.training.backbone.find.snapshot_download", download)
    assert load_backbone("someone/encoder").info.layers == 2
    assert {"model-00001-of-00002.safetensors", "model.safetensors.index.json"} < {*kept}
    assert not {"pytorch_model.bin", "onnx/model.onnx", "own.py"} & {*kept}


def test_every_kind_that_is_supported_loads(folder: Path) -> None:
    for kind in ("bert", "electra", "roberta", "xlm-roberta", "camembert", "mpnet", "deberta-v2"):
        model = AutoModel.from_config(AutoConfig.for_model(kind, **SIZES))
        loaded = load_backbone(str(with_model(folder, model)))
        assert loaded.info.architecture == kind
