"""The candidate store: bit-packed masks in immutable Zarr parts; imports nothing of ours."""
