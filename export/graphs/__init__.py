"""An encoder and its heads as graphs: captured, fused, and written in each engine's format."""
