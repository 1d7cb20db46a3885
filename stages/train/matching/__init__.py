"""Pseudo-label refinement against cached candidate masks: IOM and the CPI family, on packed bits.

    from semires.stages.train.matching import MatchConfig, match

    found = match(candidates, offsets, teacher_label, MatchConfig(strategy="cpi-u", inter1=0.7))

dispatch.py holds `match`, which chooses a backend; reference.py says in loops what every backend computes.
"""

from semires.stages.train.matching.config import MatchConfig, MatchResult, Strategy
from semires.stages.train.matching.dispatch import match
from semires.stages.train.matching.oblong import match_oblong
from semires.stages.train.matching.packed import pack_bits, unpack_bits

__all__ = ["MatchConfig", "MatchResult", "Strategy", "match", "match_oblong", "pack_bits", "unpack_bits"]
