"""docs/importing-masks.md, typed as it stands: every format's example is run, and its store holds what it says."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from semires.cache.interchange.importing import FORMATS
from semires.cache.reader import CandidateStore
from semires.stages.data.images import image_id_of

DOG, CAT = image_id_of("dog.png"), image_id_of("cats/1.png")


def test_page__every_example(typed_page: Callable[[str], Any], tmp_path: Path) -> None:
    formats = {"semires"}  # its example is README's, which needs RefCOCO
    for arguments, finished in typed_page("docs/importing-masks.md")[1]:
        assert (finished.code, finished.err) == (0, ""), (arguments, finished)
        if arguments[1] == "import":
            formats.add(arguments[arguments.index("--format") + 1] if "--format" in arguments else "coco")
    assert formats == set(FORMATS)

    found = {}
    for path in tmp_path.glob("*.zarr"):
        store = CandidateStore(path)
        found[path.stem] = {number: store[number].area.tolist() for number in store.image_ids.tolist()}
    assert found == {
        "coco": {DOG: [20], CAT: []},
        "results": {7: [4], 9: [4]},
        "sa1b": {7: [4]},
        "amg": {DOG: [4]},
        "copy": {DOG: [4]},
        "masks": {CAT: [16, 16]},
        "labels": {DOG: [9, 12]},
        "npy": {DOG: [9, 12], CAT: [9, 12]},
    }
    detected = CandidateStore(tmp_path / "results.zarr")[7]
    assert detected.boxes_xyxy.tolist() == [[1, 1, 2, 5]]
    assert abs(float(detected.predicted_iou[0]) - 0.9) < 1e-6
