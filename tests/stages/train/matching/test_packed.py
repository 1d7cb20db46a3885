"""Packed masks as tensors: both ways of counting, packing there and back, words of any length."""

import numpy as np
import pytest
import torch

from semires.stages.train.matching.packed import as_words, pack_bits, popcount_by_shifts, unpack_bits


def test_popcount_by_shifts__counts_every_bit() -> None:
    generator = torch.Generator().manual_seed(0)
    words = torch.randint(-(2**63), 2**63 - 1, (20, 7), generator=generator)
    words[0], words[1], words[2] = -1, 0, -(2**63)
    expected = torch.tensor([sum((int(word) % 2**64).bit_count() for word in line) for line in words])
    assert torch.equal(popcount_by_shifts(words), expected)


@pytest.mark.parametrize("size", [1, 3, 8, 13])
def test_pack_bits__round_trip(size: int) -> None:
    masks = torch.rand(3, size, size, generator=torch.Generator().manual_seed(size)) < 0.5
    packed = pack_bits(masks)
    assert torch.equal(packed, torch.from_numpy(np.packbits(masks.flatten(1).numpy(), axis=1)))
    assert torch.equal(unpack_bits(packed, size), masks)


@pytest.mark.parametrize("num_bytes", [1, 7, 8, 11])
def test_as_words__keeps_every_bit(num_bytes: int) -> None:
    packed = torch.arange(3 * num_bytes, dtype=torch.uint8).reshape(3, num_bytes)
    words = as_words(packed)
    assert words.shape == (3, -(-num_bytes // 8))
    expected = torch.tensor([sum(int(byte).bit_count() for byte in line) for line in packed])
    assert torch.equal(popcount_by_shifts(words), expected)


@pytest.mark.parametrize("num_rows", [1, 3])
@pytest.mark.parametrize("num_bytes", [15, 16])
def test_as_words__any_strides(num_rows: int, num_bytes: int) -> None:
    wide = torch.arange(2 * num_rows * 19, dtype=torch.uint8).view(2 * num_rows, 19)
    repeated = wide[:1, :num_bytes].expand(num_rows, -1)
    for packed in (wide[:num_rows, :num_bytes], wide[::2, 3 : 3 + num_bytes], repeated):
        words = as_words(packed)
        assert words.is_contiguous()
        assert torch.equal(words.view(torch.uint8)[:, :num_bytes], packed)


def test_as_words__views_where_it_can() -> None:
    packed = torch.zeros(2, 16, dtype=torch.uint8)
    assert as_words(packed).data_ptr() == packed.data_ptr()
