"""Weights in and out: the layouts of other programs, and the folder that holds a whole model."""
