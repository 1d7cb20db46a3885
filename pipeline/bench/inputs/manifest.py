"""What the stores of benchmarks say of themselves."""

from semires.cache.schema import Manifest


def bench_manifest() -> Manifest:
    """A manifest for stores that only a benchmark reads."""
    return Manifest(split="bench", sam="none", sam_sha256="0" * 64, generator={}, num_images=None)
