"""The repository's own experiments: each declares its systems, its inputs and its columns."""
