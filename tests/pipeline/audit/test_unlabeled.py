import itertools
from collections.abc import Callable

import numpy as np

from semires.pipeline.audit.unlabeled import whole_images
from semires.stages.train.reading.samples import RefSamples


def test_whole_images__every_ref_once_with_its_first_expressions(samples_of: Callable[..., RefSamples]) -> None:
    samples = samples_of()
    num, image_ids = samples.num_expressions, samples.image_ids.numpy()
    for most, batch_size in itertools.product((1, 2, None), (1, 4, 1000)):
        plan = whole_images(samples, most, batch_size)
        keys = np.concatenate(plan)
        assert keys[:, 0].tolist() == list(range(len(samples)))
        for ref, *read in keys.tolist():
            asked = min(num[ref], most or num[ref])
            assert [number for number in read if number >= 0] == list(range(asked))
            assert read[:asked] == list(range(asked))
        images = [set(image_ids[batch[:, 0]].tolist()) for batch in plan]
        assert sum(map(len, images)) == len(set(image_ids.tolist()))  # none is in two batches
        assert all(len(batch) >= batch_size for batch in plan[:-1])
        if batch_size == 1:
            assert all(len(found) == 1 for found in images)
