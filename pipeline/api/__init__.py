"""Referring expression segmentation with SAM's candidates: what a notebook needs.

    import semires

    candidates = semires.MaskGenerator.from_pretrained("tiny")("picture.png")
    mask = semires.predict("picture.png", "small red house")
    semires.match(mask, candidates).refined

Each of the names below has an example in its docstring, and docs/api.md has them on a page. They are loaded when they
are first used: torch takes seconds, `import semires` none. This folder installs as the package `semires` itself.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from semires.cache.reader import CandidateStore
    from semires.pipeline.notebook.generating import MaskGenerator
    from semires.pipeline.notebook.matching import match
    from semires.pipeline.notebook.predicting import predict
    from semires.pipeline.notebook.referents import ReferDataset
    from semires.stages.train.models.lavt.network import Lavt

    __version__: str

__all__ = ["CandidateStore", "Lavt", "MaskGenerator", "ReferDataset", "__version__", "match", "predict"]

_MODULES = {
    "CandidateStore": "semires.cache.reader",
    "Lavt": "semires.stages.train.models.lavt.network",
    "MaskGenerator": "semires.pipeline.notebook.generating",
    "ReferDataset": "semires.pipeline.notebook.referents",
    "match": "semires.pipeline.notebook.matching",
    "predict": "semires.pipeline.notebook.predicting",
}

if not TYPE_CHECKING:  # to which every name would be one of ours

    def __getattr__(name: str) -> Any:
        """What `__all__` names, imported at its first use (PEP 562)."""
        if name == "__version__":
            from importlib.metadata import version

            value: Any = version("semires")
        elif name in _MODULES:
            value = getattr(import_module(_MODULES[name]), name)
        else:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return __all__
