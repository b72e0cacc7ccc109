"""Checkpoint to bundle: capture, fuse, quantize, prove, write."""
