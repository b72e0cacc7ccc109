"""`mtl-edge bench`: every graph of a bundle, and the torch model, measured side by side."""
