"""Storage: everything that touches Zarr and bytes; knows groups and columns, nothing of masks or images.

hierarchy.py is the door: a store's groups and columns at a path or URL. Behind it lie their metadata (documents.py),
opened columns (columns.py), what compresses them (codec.py), a quick way to write them, and to read them locally
(shards.py), and where the bytes lie: in a folder (local.py) or behind a URL (remote.py).
"""
