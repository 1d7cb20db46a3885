"""The confidence filter that the paper compares with (Table 4): the least confident 5% of pseudo-labels take no part.

The paper does not say of what the 5% are. Here they are pixels, those of each label whose probability is nearest to a
half, so that what a label loses does not depend on the batch or the process it is in.
"""

import torch
from torch import Tensor


@torch.no_grad()
def confident_pixels(prob: Tensor, dropped: float) -> Tensor:
    """The pixels that are kept, bool [B, S, S]: all but the share `dropped` of each label's with the least |p - 0.5|.

    prob: float [B, S, S] in [0, 1], on any device; the host reads nothing back. dropped: in [0, 1). Of pixels that are
    equally sure, at the boundary, all are kept: of a label that is sure everywhere nothing is dropped.
    """
    distance = (prob - 0.5).abs().flatten(1)
    num_dropped = int(dropped * distance.shape[1])
    least = distance.kthvalue(num_dropped + 1, dim=1, keepdim=True).values
    return (distance >= least).view_as(prob)
