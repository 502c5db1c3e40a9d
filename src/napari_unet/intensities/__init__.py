"""What an image's intensities are, and how they are brought to a common range."""
