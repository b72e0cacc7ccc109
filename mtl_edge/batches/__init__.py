"""Token ids to batches.

planning.py  texts of like length share a batch, as many as a token budget allows; padding
prefetch.py  a stream in windows, the next one tokenized while the last is computed
"""
