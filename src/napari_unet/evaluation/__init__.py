"""Results held against the truth: one pair, many, or several results beside each other."""
