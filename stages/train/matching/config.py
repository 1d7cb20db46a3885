"""What matching is told and what it answers: `MatchConfig` and `MatchResult`, shared by every backend."""

from dataclasses import dataclass
from typing import Literal, get_args

from torch import Tensor

from semires.stages.data.errors import InputError

Strategy = Literal["iom", "cpi", "cpi-u", "cpi-o"]


@dataclass(frozen=True, kw_only=True)
class MatchConfig:
    """How a pseudo-label P is refined by the candidates S_k of its image; the defaults are the paper's headline.

    strategy: "iom" (eq. 6) replaces P by the one candidate of highest IoU. The others replace P by the union of all
    candidates that qualify (Algorithm 1): "cpi-u" by s1 = |P and S_k| / |P| (eq. 7), "cpi-o" by
    s2 = |P and S_k| / |S_k| (eq. 8), "cpi" by either.
    iou_rate: IOM's threshold on the IoU. inter1: the threshold on s1. inter2: the threshold on s2.

    Every threshold lies in [0, 1] and must be strictly exceeded. Raises InputError otherwise.
    """

    strategy: Strategy = "cpi-u"
    iou_rate: float = 0.5
    inter1: float = 0.7
    inter2: float = 0.7

    def __post_init__(self) -> None:
        known = get_args(Strategy)
        if self.strategy not in known:
            raise InputError(f"expected a matching strategy out of {', '.join(known)}, found {self.strategy!r}")
        for name in ("iou_rate", "inter1", "inter2"):
            value = getattr(self, name)
            if not 0.0 <= value <= 1.0:
                raise InputError(f"expected {name} between 0 and 1, found {value}: choose a share such as 0.7")

    @property
    def no_choice(self) -> int:
        """What `MatchResult.chosen` holds for an unmatched label: -1 with IOM, 0 with the CPI family."""
        return -1 if self.strategy == "iom" else 0


@dataclass(frozen=True, kw_only=True)
class MatchResult:
    """What matching made of B pseudo-labels and the M candidates of their images; on the device of the candidates.

    refined: bool [B, S, S], the refined label; the pseudo-label itself where nothing qualified.
    matched: bool [B], whether a candidate qualified.
    chosen: int64 [B]. IOM: the index, within its image, of the candidate that replaced the label, -1 where none did.
    CPI family: the number of candidates united, 0 where none qualified.
    scores: float64 [M] where asked for (float32 on a device without float64), else None: what each candidate was judged
    by. iom: IoU (eq. 6); cpi-u: s1 (eq. 7); cpi-o: s2 (eq. 8); cpi: the larger of s1 and s2, which decides alone
    only where inter1 = inter2. A candidate that shares no pixel with the label scores 0.
    """

    refined: Tensor
    matched: Tensor
    chosen: Tensor
    scores: Tensor | None = None
