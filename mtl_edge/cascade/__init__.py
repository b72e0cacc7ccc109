"""Early exit: a bundle's graphs in a row, from the cheapest to the deepest.

`opening`    from a bundle's folder to a session
`session`    an open bundle with an engine running for each stage: texts in, answers out
`streaming`  answers for streams of any length
`early_exit` each text's answer by the first stage that is sure of it, within a deadline if asked
`stage`      one graph, its engine, and when a text may exit there
`outputs`    what a stage computed, and all of a call's as its answers
`info`       what a session runs, and why
`latency`    estimates what a stage's next batch takes

A bundle without early exits has one stage, and goes the same way.
"""
