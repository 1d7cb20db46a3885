"""Bit-packed masks as tensors: packing, unpacking, 64-bit words and counting bits without an instruction for it.

A mask of S x S pixels is P = ceil(S * S / 8) bytes, row-major, first pixel in the highest bit (``numpy.packbits``),
bits after the last pixel zero. On the CPU numpy does the work, elsewhere torch's integer operators, without a copy from
the host.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


def as_words(packed: Tensor) -> Tensor:
    """View packed masks, uint8 [N, P], as int64 [N, ceil(P / 8)]; zero bytes fill the last word.

    Costs nothing where P is a multiple of 8 and rows follow each other from an aligned start (480x480, 64x64), one copy
    otherwise; the words are contiguous either way. Popcount and the bitwise operators do not care in which order a word
    holds its bytes.
    """
    num_rows, num_bytes = packed.shape
    # An array of numpy without rows may come with strides that view refuses: it takes the copy too.
    if num_bytes % 8 or num_rows == 0:
        padded = packed.new_zeros(num_rows, num_bytes + -num_bytes % 8)
        padded[:, :num_bytes] = packed
        packed = padded
    # A single row is contiguous whatever its stride says, but view wants whole words in that too.
    elif not packed.is_contiguous() or packed.storage_offset() % 8 or packed.stride(0) % 8:
        packed = packed.clone(memory_format=torch.contiguous_format)
    return packed.view(torch.int64)


def popcount_by_shifts(words: Tensor) -> Tensor:
    """Set bits of each row of words, int64 [N, W] -> int64 [N], on any device.

    Adds neighbouring bits, pairs and nibbles, then bytes in one multiplication; eight times slower than the CPU's own
    instruction.
    """
    # Shifts of negative words drag the sign bit in; each mask drops it, and a byte sum of 64 at most stays positive.
    pairs = words - ((words >> 1) & 0x5555555555555555)
    nibbles = (pairs & 0x3333333333333333) + ((pairs >> 2) & 0x3333333333333333)
    octets = (nibbles + (nibbles >> 4)) & 0x0F0F0F0F0F0F0F0F
    return ((octets * 0x0101010101010101) >> 56).sum(dim=1)


def pack_bits(masks: Tensor) -> Tensor:
    """Pack masks, bool [N, S, S] -> uint8 [N, ceil(S * S / 8)], as numpy.packbits does with each mask laid flat."""
    if masks.device.type == "cpu":
        # numpy alone: for one mask at 480x480 torch's own calls would take as long as the packing.
        return torch.from_numpy(np.packbits(masks.numpy().reshape(len(masks), masks.shape[1:].numel()), axis=1))
    flat = masks.flatten(1)
    octets = F.pad(flat, (0, -flat.shape[1] % 8)).unflatten(1, (-1, 8))
    return (octets.to(torch.uint8) << _bit_shifts(flat.device)).sum(dim=2, dtype=torch.uint8)


def unpack_bits(packed: Tensor, size: int) -> Tensor:
    """Unpack masks, uint8 [N, P] with P >= ceil(S * S / 8) -> bool [N, S, S], S = size; surplus bytes are ignored."""
    num_pixels = size * size
    if packed.device.type == "cpu":
        bits = np.unpackbits(packed.numpy(), axis=1, count=num_pixels).view(np.bool_)
        return torch.from_numpy(bits.reshape(len(packed), size, size))
    flat = ((packed[..., None] >> _bit_shifts(packed.device)) & 1).bool().flatten(1)
    return flat[:, :num_pixels].reshape(len(packed), size, size)


def _bit_shifts(device: torch.device) -> Tensor:
    """The shifts 7 .. 0 of a byte's pixels, uint8 [8]; made on the device, without a copy from the host."""
    return torch.arange(7, -1, -1, dtype=torch.uint8, device=device)
