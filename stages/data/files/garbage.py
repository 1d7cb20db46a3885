"""The garbage collector, out of the way of loading."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def paused_garbage_collection() -> Iterator[None]:
    """No search for reference cycles meanwhile: while some hundred thousand records come into being, of which none is
    part of a cycle, it takes half of the time."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
