"""Proposers: segment-anything's SAM, SAMs in transformers' format, and the tiny SAM in the package."""
