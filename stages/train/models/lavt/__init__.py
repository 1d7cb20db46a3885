"""LAVT (Yang et al., CVPR 2022): network.py puts visual.py, language.py, fusion.py and decoder.py together.

from semires.stages.train.models.lavt import Lavt

lavt = Lavt.from_pretrained("folder")
"""

from semires.stages.train.models.lavt.config import LAVT_SIZES, LavtConfig
from semires.stages.train.models.lavt.network import Lavt

__all__ = ["LAVT_SIZES", "Lavt", "LavtConfig"]
