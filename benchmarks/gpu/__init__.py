"""The same questions on an NVIDIA GPU: what each way to run the model takes, and its limits."""
