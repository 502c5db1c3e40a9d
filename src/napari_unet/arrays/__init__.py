"""Arrays that are read lazily: stacks with named axes, cuts of them, and what is computed as it is read."""
