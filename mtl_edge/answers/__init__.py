"""Answers out: logits to probabilities, probabilities to labels.

probabilities.py  softmax with a temperature
predictions.py    `Answer` and `Prediction`, as an app sees them
"""
