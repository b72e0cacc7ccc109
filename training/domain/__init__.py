"""Whether a text is of the kind that a task was taught: its domain.

gate.py       what is exported: for each task a linear map of the mean state and of how certain the
              task's own logits are
solve.py      the map and its threshold, from own texts and foreign ones

The texts are gathered in `mtl_edge.training.run.domains`.
It is answered as a task of kind `multi`, whose labels are the tasks that have a domain: see
`mtl_edge.bundle.Manifest.domain`.
"""
