"""RES models behind one interface: LAVT, CLIPSeg, and what a model of one's own is made from.

    from semires.stages.train.models import ResModel, Tokenizer

interface.py says what a model is, build.py makes one by name, factory.py one of the user's own; of LAVT, lavt.py is the
network, visual.py, language.py, fusion.py and decoder.py its parts.
"""

from semires.stages.train.models.interface import ResModel
from semires.stages.train.models.tokenization import Tokenizer

__all__ = ["ResModel", "Tokenizer"]
