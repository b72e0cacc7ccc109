"""Texts to token ids.

tokenizer_file.py  a `tokenizers` tokenizer from a file that a stranger may have written
encoder.py         texts to ids, cut to the maximum, the same in training, export and runtime
word_cache.py      ids by word, so that a frequent word is tokenized once
"""
