"""`mtl-edge bench` in parts: what takes part, how it is measured, what is written and shown."""
