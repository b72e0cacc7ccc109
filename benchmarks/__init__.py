"""Honest figures: accuracy and latency side by side, in one run."""
