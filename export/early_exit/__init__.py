"""Early exits: thresholds that keep a promise, which depths pay, and the proof."""
