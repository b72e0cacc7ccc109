"""Labelled text to checkpoint: heads for several tasks on one frozen pretrained encoder."""
