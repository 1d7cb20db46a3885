"""Benchmarks behind `semires bench …`: each measures its contestants side by side, in one process, in turns."""
