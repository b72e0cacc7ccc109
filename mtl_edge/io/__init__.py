"""Rows in and out: one layer for everything that reads texts or labels, or writes answers.

    read_options.py  options of reading a file
    chunks.py        an opened table, its rows in chunks, and each row's text
    text.py          plain lines and JSONL, by the standard library
    delimited.py     CSV and TSV, by the standard library
    columnar.py      Parquet, Arrow, data frames and data sets of the Hub, by pyarrow
    source.py        an input of any kind: found, unpacked, opened
    in_memory.py     texts that an app holds: a list, any iterable, a column
    limits.py        limits on the texts of one call
    labels.py        what a label may be, and the order of a task's labels
    labelled.py      labelled rows, as training, export and bench use them
    writers.py       rows and answers as CSV, TSV, JSONL and Parquet
    store.py         answers kept until their file is whole, so that a stopped run goes on
    changes.py       where the settings of two runs differ
    folders.py       folders written whole or not at all

A file gives the same rows to whoever reads it. Reading holds a chunk at a time.
"""
