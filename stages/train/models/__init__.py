"""RES models behind one interface: LAVT, CLIPSeg, and what a model of one's own is made from.

    from semires.stages.train.models import ResModel, Tokenizer

interface.py says what a model is, build.py makes one by name, factory.py one of the user's own; of LAVT, lavt.py is the
network, visual.py, language.py, fusion.py and decoder.py its parts.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from semires.stages.train.models.interface import ResModel
    from semires.stages.train.models.tokenization import Tokenizer

__all__ = ["ResModel", "Tokenizer"]

if not TYPE_CHECKING:  # to which every name would be one of ours

    def __getattr__(name: str) -> Any:
        """Imported at its first use (PEP 562): torch takes seconds, and not all in this room needs it."""
        modules = {"ResModel": "interface", "Tokenizer": "tokenization"}
        if name not in modules:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        globals()[name] = getattr(import_module(f"{__name__}.{modules[name]}"), name)
        return globals()[name]
