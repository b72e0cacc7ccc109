"""The machine's limits, and the least time that they leave a pass: a roofline."""
