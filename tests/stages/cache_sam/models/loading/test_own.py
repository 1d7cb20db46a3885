import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from semires.stages.cache_sam.generator.mask_generator import MaskGenerator
from semires.stages.cache_sam.generator.settings import GeneratorSettings
from semires.stages.cache_sam.models.loading.own import load_own
from semires.stages.cache_sam.models.proposers import proposer_of
from semires.stages.data.errors import InputError

CPU = torch.device("cpu")


@pytest.fixture
def example(documented: Callable[[str], str]) -> str:
    """The proposer in the documentation."""
    return documented("own-proposer.md")


def test_example__of_the_documentation_finds_what_has_one_colour(
    write_module: Callable[[str, str], Path], example: str
) -> None:
    write_module("documented_proposer", example)
    proposer, _ = load_own("documented_proposer:build", CPU)
    image = np.full((90, 120, 3), 30, dtype=np.uint8)
    image[20:60, 50:100] = (220, 40, 40)
    settings = GeneratorSettings(points_per_side=6)
    candidates = MaskGenerator(proposer_of(proposer), settings).generate(1, image)
    expected = np.zeros((90, 120), dtype=bool)
    expected[20:60, 50:100] = True
    masks = candidates.masks()
    ious = (masks & expected).sum((1, 2)) / (masks | expected).sum((1, 2))
    assert ious.max() > 0.9
    assert candidates.num_masks == 2  # and what is around it


def test_load_own__digest_is_of_the_source_and_of_what_it_says_of_its_weights(
    write_module: Callable[[str, str], Path], example: str
) -> None:
    source = example
    path = write_module("digested_proposer", source)
    sha256 = load_own("digested_proposer:build", CPU)[1]
    assert sha256 == hashlib.sha256(path.read_bytes() + b"no weights").hexdigest()
    other = write_module("other_proposer", source.replace('"no weights"', '"other weights"'))
    assert load_own("other_proposer:build", CPU)[1] == hashlib.sha256(other.read_bytes() + b"other weights").hexdigest()
    silent = write_module("silent_proposer", source.replace('        self.sha256 = "no weights"\n', ""))
    assert load_own("silent_proposer:build", CPU)[1] == hashlib.sha256(silent.read_bytes()).hexdigest()


def test_load_own__digest_is_of_the_file_that_a_factory_comes_from(
    write_module: Callable[[str, str], Path], example: str
) -> None:
    path = write_module("first_home", example)
    write_module("second_home", "import functools\nimport first_home\nbuild = functools.partial(first_home.build)\n")
    assert load_own("second_home:build", CPU)[1] == hashlib.sha256(path.read_bytes() + b"no weights").hexdigest()


BROKEN = {
    "nothing": ("return MagicWand(device)", "return 3", "to return a Proposer, found int"),
    "side": ('"fp32", 128', '"fp32", 0.5', "with side a whole number from 1 on, found 0.5"),
    "precision": ('"fp32", 128', '"fp8", 128', "with precision fp32, bf16, fp16, found 'fp8'"),
    "device": ("self.device = device", 'self.device = torch.device("meta")', "on cpu, found meta"),
    "pixels": ("return torch.cat([", "return torch.stack([", r"whose load gives torch\.float32 \[1, 3, 128, 128\]"),
    "encode": ("return (pixels,)", "return [pixels]", "whose encode gives a tuple of tensors of 1 rows"),
    "embed": (
        "return (in_square.long()",
        "return (in_square[:1].long()",
        r"whose embed .* 2 rows, found .*\[1, 2\]",
    ),
    "decode": ("iou=torch.full((len(colours), len", "iou=torch.full((1, len", r"iou gives torch\.float32 \[2, 3\]"),
    "logits": ("distances)\n", "distances)[:, :9]\n", r"whose logits gives .*\[6, 128, 128\], found .* \[6, 9, 128\]"),
    "sha256": ('self.sha256 = "no weights"', "self.sha256 = 17", "with sha256 as text, found int"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_load_own__something_else(write_module: Callable[[str, str], Path], case: str, example: str) -> None:
    before, after, message = BROKEN[case]
    source = example
    assert before in source
    name = f"broken_{case}"
    write_module(name, source.replace(before, after))
    with pytest.raises(InputError, match=message) as caught:
        load_own(f"{name}:build", CPU)
    assert str(caught.value).startswith("--sam: expected ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("not_there_at_all:build", "expected a module not_there_at_all, found none"),
        (".relative:build", "expected a module's full name"),
        ("json:loadz", "expected a function 'loadz'"),
        ("sys:nothing", "expected a function 'nothing' in sys"),
        (":build", "PACKAGE.MODULE:FACTORY"),
        ("json:", "PACKAGE.MODULE:FACTORY"),
    ],
)
def test_load_own__is_not_there(name: str, message: str) -> None:
    with pytest.raises(InputError, match=f"--sam: .*{message}"):
        load_own(name, CPU)


def test_load_own__errors_of_its_own_keep_their_traceback(write_module: Callable[[str, str], Path]) -> None:
    write_module("failing_proposer", "def build(device):\n    raise RuntimeError('of its own')\n")
    with pytest.raises(RuntimeError, match="of its own"):
        load_own("failing_proposer:build", CPU)
