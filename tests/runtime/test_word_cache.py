"""Kept words give the ids that the tokenizer gives."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tokenizers import AddedToken, Tokenizer, normalizers, pre_tokenizers

from mtl_edge.tokens import word_cache
from mtl_edge.tokens.word_cache import word_cache_for

PIECES = [
    *"abcXYZ059 \t\n\r\x0b\x0c\x1c\x85\x00.,!?[]'\"-_@#`~^éÉßΣσςİıÅ",
    *"\u0301\u0300中文字日本語\u00a0\u2003\u3000\ufffd\u200b—“”’한국어ﬁ…🙂",
    *("[CLS]", "[SEP]", "[MASK]", "[cls]", "the ", "ing", "un", "don't", "ΑΣ ", "film"),
    *("x" * 70, "y" * 120, "  "),
]


def opened(folder: Path, most: int = 32) -> Tokenizer:
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(most)
    return tokenizer


def own(tokenizer: Tokenizer, texts: list[str]) -> list[list[int]]:
    return [encoding.ids for encoding in tokenizer.encode_batch_fast(texts)]


def odd_texts(count: int, seed: int = 0) -> list[str]:
    draw = random.Random(seed)
    texts = ["".join(draw.choices(PIECES, k=draw.randint(0, 30))) for _ in range(count)]
    # Longer than what is split at once, and than any number of tokens.
    return [*texts, "a film. " * 2000, "\x00 " * 3000 + "a", "z" * 10_000]


@pytest.mark.parametrize("lower", [True, False])
@pytest.mark.parametrize("strip", [None, True, False])
@pytest.mark.parametrize("clean", [True, False])
@pytest.mark.parametrize("most", [4, 64])
def test_ids_are_the_tokenizers_own_whatever_the_text(
    tiny_backbone: Path, lower: bool, strip: bool | None, clean: bool, most: int
) -> None:
    tokenizer = opened(tiny_backbone, most)
    tokenizer.normalizer = normalizers.BertNormalizer(
        clean_text=clean, handle_chinese_chars=clean, strip_accents=strip, lowercase=lower
    )
    kept = word_cache_for(tokenizer, most)
    assert kept is not None
    texts = odd_texts(1000)
    expected = own(tokenizer, texts)
    assert kept.ids(texts) == expected
    assert kept.ids(texts) == expected  # from what is kept by now


def test_special_tokens_that_were_added_are_found(tiny_backbone: Path) -> None:
    tokenizer = opened(tiny_backbone)
    tokenizer.add_special_tokens(["<user>", "<user>s", "[EOT]"])
    kept = word_cache_for(tokenizer, 32)
    assert kept is not None
    texts = ["hi <user>s<user> [EOT]", "<user", "a<user>b", "[EOT][EOT]"]
    assert kept.ids(texts) == own(tokenizer, texts)


@pytest.mark.parametrize(
    "token",
    [
        AddedToken("user", normalized=False),
        AddedToken("<user>", normalized=True),
        AddedToken("<user>", lstrip=True, normalized=False),
        AddedToken("<user>", single_word=True, normalized=False),
    ],
    ids=["letters", "normalized", "strips", "single word"],
)
def test_tokens_that_a_word_could_be_part_of_are_left_to_the_tokenizer(
    tiny_backbone: Path, token: AddedToken
) -> None:
    tokenizer = opened(tiny_backbone)
    tokenizer.add_tokens([token])
    assert word_cache_for(tokenizer, 32) is None


def test_tokenizers_that_read_spaces_as_part_of_words_are_left_alone(tiny_backbone: Path) -> None:
    tokenizer = opened(tiny_backbone)
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    assert word_cache_for(tokenizer, 32) is None
    tokenizer = opened(tiny_backbone)
    tokenizer.normalizer = normalizers.NFKC()
    assert word_cache_for(tokenizer, 32) is None
    tokenizer = opened(tiny_backbone)
    tokenizer.encode_special_tokens = True
    assert word_cache_for(tokenizer, 32) is None


def test_special_tokens_by_the_thousand_are_left_to_the_tokenizer(tiny_backbone: Path) -> None:
    tokenizer = opened(tiny_backbone)
    tokenizer.add_special_tokens([f"<{i}>" for i in range(1000)])
    assert word_cache_for(tokenizer, 32) is None


def test_memory_is_bounded_however_many_words_there_are(
    tiny_backbone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(word_cache, "MOST_WORDS", 50)
    tokenizer = opened(tiny_backbone)
    kept = word_cache_for(tokenizer, 32)
    assert kept is not None
    texts = [f"word{i} and {i} more{i}" for i in range(500)]
    assert kept.ids(texts) == own(tokenizer, texts)
    assert len(kept) <= 50
    assert kept.ids(["x" * 65]) == own(tokenizer, ["x" * 65])
    assert "x" * 65 not in kept


def test_threads_share_what_is_kept(tiny_backbone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(word_cache, "MOST_WORDS", 30)
    tokenizer = opened(tiny_backbone)
    kept = word_cache_for(tokenizer, 32)
    assert kept is not None
    texts = odd_texts(300, seed=1)
    expected = own(tokenizer, texts)
    with ThreadPoolExecutor(4) as pool:
        assert all(found == expected for found in pool.map(kept.ids, [texts] * 16))
