"""Faces of the package in the napari viewer: they collect inputs, start a job and show its result."""
