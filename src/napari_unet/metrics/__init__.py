"""Scores from tables of counts, from boundaries and from intensities; nothing here opens a file."""
