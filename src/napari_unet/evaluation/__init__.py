"""Results compared with the ground truth: one pair, or folders of them."""
