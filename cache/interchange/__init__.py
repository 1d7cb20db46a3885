"""Interchange: candidates out of a store as other programs' files, and into one from those.

coco.py writes and reads SA-1B's JSON with COCO run lengths, run_lengths.py reads the public SemiRES code's folder. The
store knows nothing of either: only the commands import this package.
"""
