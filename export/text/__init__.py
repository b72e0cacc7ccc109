"""Graphs that take strings: a tokenizer in front of the encoder."""
