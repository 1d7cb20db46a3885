from pathlib import Path

import pytest

from semires.cache.reader import CandidateStore
from semires.pipeline.bench.measures.memory import writing_memory


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="reads Linux's own figure")
def test_writing_memory__flat(tmp_path: Path) -> None:
    location = tmp_path / "s.zarr"
    # 40 bytes a row: 1,000 images are 26 MB of packed bits, a part 1.3 MB.
    early, late = writing_memory(
        location, num_images=1000, num_masks=8, height=80, width=320, images_per_part=50, bytes_per_part=2**22
    )
    assert len(CandidateStore(location)) == 1000
    assert late < 100, "the writer holds a part or two, never what it wrote"
    assert late - early < 15
