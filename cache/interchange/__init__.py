"""Interchange: candidates out of a store as other programs' files, and into one from those.

importing.py is the way in, whatever the format, and a format is a module with one function, `look_through`; export.py
is the way out. The store knows nothing of either: only the commands import this package.
"""
