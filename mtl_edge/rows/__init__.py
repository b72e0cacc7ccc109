"""Rows with texts, in and out of files of any size.

    model.py      a chunk of rows, and what else readers and writers share
    lines.py, jsonl.py, delimited.py, parquet.py, parquet_writer.py   kinds of files
    formats.py    the table of them, by the ending of a file's name
    source.py     an input: opened, looked through, told from another
    answers.py    predictions as columns
    output.py     an output that survives being killed

Memory holds a chunk at a time. Each chunk becomes bytes that are appended to the output, so an
output can be cut after any chunk and gone on with.
"""
