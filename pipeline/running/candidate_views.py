"""The views of a store as commands derive them: with progress, and a word where an outdated one makes room."""

from pathlib import Path
from typing import Any

from semires.cache.views import build_view
from semires.pipeline.progress import OnProgress, console, counting


def derive_view(store: str | Path, size: int, on_progress: OnProgress, **options: Any) -> None:
    """Derive what the view of `size` lacks; `options` as `build_view` takes them."""

    def say_outdated(path: str) -> None:
        console.print(f"{path}: resampled by another rule than masks are, derived anew", soft_wrap=True)

    description = f"candidates at {size}x{size}"
    build_view(store, size, counting(on_progress, description), on_outdated=say_outdated, **options)
