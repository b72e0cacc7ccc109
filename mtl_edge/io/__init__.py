"""Rows in and out: one layer for everything that reads texts or labels, or writes answers.

    model.py      options of reading, a chunk of rows, what counts as its texts
    text.py       plain lines and JSONL, by the standard library
    delimited.py  CSV and TSV, by the standard library
    columnar.py   Parquet, Arrow, data frames and data sets of the Hub, by pyarrow
    source.py     an input of any kind: found, unpacked, opened
    labels.py     what a label may be, and the order of a task's labels
    labelled.py   labelled rows, as training, export and bench use them
    writers.py    rows and answers as CSV, TSV, JSONL and Parquet
    store.py      answers kept until their file is whole, so that a stopped run goes on

A file gives the same rows to whoever reads it. Reading holds a chunk at a time.
"""
