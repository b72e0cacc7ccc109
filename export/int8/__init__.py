"""Graphs in int8: calibration, word tables, noise, and heads fitted on quantized states."""
