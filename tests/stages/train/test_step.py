"""Parts of a batch are its whole: rows, gradients, losses; and no step waits for a device."""

import pytest

from semires.stages.train.step import _even_parts


@pytest.mark.parametrize("num_labeled", [1, 3, 4, 16])
@pytest.mark.parametrize("num_unlabeled", [0, 3, 12])
@pytest.mark.parametrize("num_parts", [1, 2, 3, 4])
def test_even_parts__each_sample_once_in_parts_alike(num_labeled: int, num_unlabeled: int, num_parts: int) -> None:
    if num_parts > num_labeled + num_unlabeled:
        return
    parts = _even_parts(num_labeled, num_unlabeled, num_parts)
    assert len(parts) == num_parts
    for kind, num in ((0, num_labeled), (1, num_unlabeled)):
        assert [row for part in parts for row in range(num)[part[kind]]] == list(range(num))
    sizes = [sum(part.stop - part.start for part in both) for both in parts]
    assert max(sizes) - min(sizes) <= 1
    labeled = [part.stop - part.start for part, _ in parts]
    assert max(labeled) - min(labeled) <= 2


def test_even_parts__mixed_as_the_whole() -> None:
    assert _even_parts(4, 12, 4) == [(slice(n, n + 1), slice(3 * n, 3 * n + 3)) for n in range(4)]
