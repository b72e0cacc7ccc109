"""Answers out: logits to probabilities or scores, and these to labels.

probabilities.py  softmax and sigmoid with a temperature
kinds.py          the table of kinds of tasks: what their logits mean
predictions.py    `Answer` and `Prediction`, as an app sees them
"""
