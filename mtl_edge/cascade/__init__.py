"""Early exit: a bundle's graphs in a row, from the cheapest to the deepest.

    session.py  an open bundle with an engine running for each stage
    stages.py   each text's answer by the first stage that is sure of it, within a deadline if asked
    latency.py  what a stage's next batch will take, estimated from those that ran

A bundle without early exits has one stage, and goes the same way.
"""
