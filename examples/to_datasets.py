"""Referents as a Hugging Face data set: python examples/to_datasets.py refshapes val OUTPUT (pip install datasets)"""

import sys
from collections.abc import Iterator
from typing import Any

from datasets import Dataset, Features, Image, List, Value

import semires

FEATURES = Features({"image": Image(), "expressions": List(Value("string")), "mask": Image()})


def rows(name: str, split: str) -> Iterator[dict[str, Any]]:
    """A row a referent; masks as pictures, 255 where it is."""
    for referent in semires.ReferDataset(name, split):
        mask = referent.mask().astype("uint8") * 255
        yield {"image": str(referent.image_path), "expressions": list(referent.expressions), "mask": mask}


def main(name: str, split: str, output: str) -> None:
    """Write the data set to the folder `output`, which datasets.load_from_disk opens; made.push_to_hub shares it."""
    made = Dataset.from_generator(rows, gen_kwargs={"name": name, "split": split}, features=FEATURES)
    made.save_to_disk(output)


if __name__ == "__main__":
    main(*sys.argv[1:])
