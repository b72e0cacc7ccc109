"""The best bundle within a budget: what a checkpoint could become, measured, and chosen from."""
