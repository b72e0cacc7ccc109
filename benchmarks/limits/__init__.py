"""What the machine can do at most, and the least time that a pass through a graph takes on it."""
