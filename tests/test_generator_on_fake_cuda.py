"""Stage one on CUDA tensors that hold nothing: a tensor on the wrong device or a wait for the GPU too many fails here.

FakeTensorMode knows shapes, types and devices. What needs a value (`item`, a branch on a tensor) raises in it; so do
operands on two devices. Counts that are read and copies to the host are listed.
"""

import traceback
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from segment_anything.modeling import Sam
from torch import Tensor
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import (
    AutoTokenizer,
    Sam2Model,
    Sam3Model,
    Sam3TrackerModel,
    Sam3VideoConfig,
    SamHQConfig,
    SamHQModel,
)

from semires.stages.cache_sam.generator import mask_generator, selection
from semires.stages.cache_sam.generator.mask_generator import MaskGenerator
from semires.stages.cache_sam.generator.settings import GeneratorSettings
from semires.stages.cache_sam.models.proposers import proposer_of
from semires.stages.cache_sam.models.sam3_concepts import Sam3, Sam3Concepts, Sam3Grid
from semires.stages.cache_sam.models.tiny_sam import build_tiny_sam

IMAGE = np.zeros((96, 128, 3), dtype=np.uint8)
NUM_PASSING = 3  # masks of each batch that pass the predicted IoU, of which as many are stable
SETTINGS = GeneratorSettings(points_per_side=4, points_per_batch=8)  # two batches of prompts
WAITS = ["_search_batch: nonzero", "_search_batch: copy", "select: nonzero"]


def calling_function() -> str:
    """The generator's function that is running."""
    folder = Path(mask_generator.__file__).parent
    return next(frame.name for frame in reversed(traceback.extract_stack()) if Path(frame.filename).parent == folder)


class HostCopies(TorchDispatchMode):
    """Adds to `waits` each operation that makes a CPU tensor of a CUDA one."""

    def __init__(self, waits: list[str]) -> None:
        super().__init__()
        self.waits = waits

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        returned = func(*args, **(kwargs or {}))
        given, made = (
            {value.device.type for value in tree_leaves(values) if isinstance(value, Tensor)}
            for values in (args, returned)
        )
        if "cuda" in given and "cpu" in made:
            self.waits.append(f"{calling_function()}: copy")
        return returned


@pytest.fixture
def fake_cuda(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Tensors that are made are fake; autocast to bfloat16 works although no GPU is here."""
    monkeypatch.setattr("torch.cuda.amp.common.amp_definitely_not_available", lambda: False)
    monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda *args, **kwargs: True)
    with FakeTensorMode(), torch.no_grad():
        yield


@pytest.fixture
def sam(fake_cuda: None) -> Sam:
    with torch.device("cuda"):
        sam = build_tiny_sam()
    for module in sam.modules():
        for name, buffer in module.named_buffers(recurse=False):
            setattr(module, name, buffer.to("cuda"))  # SAM makes its own on the CPU
    return sam


@pytest.fixture
def sam2(small_sam2_config: Any, fake_cuda: None) -> Any:
    """Of transformers' buffers none stays on the CPU."""
    with torch.device("cuda"):
        return Sam2Model(small_sam2_config).eval()


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The waits of what runs; those for counts that depend on the masks are given counts, so that they pass.

    NMS, whose waits are torchvision's, keeps all.
    """
    found: list[str] = []
    nonzero, unique = Tensor.nonzero, Tensor.unique

    def counted_nonzero(tensor: Tensor) -> Tensor:
        name = calling_function()
        if name not in ("_search_batch", "select"):
            return nonzero(tensor)
        found.append(f"{name}: nonzero")
        return torch.zeros(NUM_PASSING, tensor.ndim, dtype=torch.int64, device=tensor.device)

    def counted_unique(tensor: Tensor, **options: Any) -> Any:
        if tensor.device.type != "cpu":
            return unique(tensor, **options)
        return torch.zeros(NUM_PASSING - 1, dtype=torch.int64), torch.zeros_like(tensor)

    monkeypatch.setattr(Tensor, "nonzero", counted_nonzero)
    monkeypatch.setattr(Tensor, "unique", counted_unique)
    keep_all: Callable[..., Tensor] = lambda boxes, *_: torch.arange(len(boxes), device=boxes.device)  # noqa: E731
    monkeypatch.setattr(mask_generator, "suppress", keep_all)
    return found


@pytest.fixture
def sam_hq(fake_cuda: None) -> SamHQModel:
    vision = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 3, "image_size": 128, "patch_size": 8}
    vision |= {"output_channels": 32, "num_pos_feats": 16, "window_size": 4, "global_attn_indexes": [1]}
    config = SamHQConfig(
        vision_config=vision,
        prompt_encoder_config={"hidden_size": 32, "image_size": 128, "patch_size": 8},
        mask_decoder_config={"hidden_size": 32, "mlp_dim": 64, "vit_dim": 48},
    )
    with torch.device("cuda"):
        return SamHQModel(config).eval()


@pytest.fixture
def sam3(sam3_folder: Path, fake_cuda: None, monkeypatch: pytest.MonkeyPatch) -> Sam3:
    """But for what transformers' own decoder reads back in each of its layers, the two numbers of its grid's sides."""
    monkeypatch.setattr("transformers.pytorch_utils.is_torchdynamo_compiling", lambda: True)  # else a cache over tests

    def coordinates(self: Any, height: Tensor, width: Tensor, dtype: torch.dtype, device: torch.device) -> Any:
        return (torch.arange(6, device=device, dtype=dtype) / 6,) * 2

    monkeypatch.setattr("transformers.models.sam3.modeling_sam3.Sam3DetrDecoder._get_coords", coordinates)
    config = Sam3VideoConfig.from_pretrained(sam3_folder)
    with torch.device("cuda"):
        text, tracker = Sam3Model(config.detector_config).eval(), Sam3TrackerModel(config).eval()
    return Sam3(text=text, tokenizer=AutoTokenizer.from_pretrained(sam3_folder), tracker=tracker)


def make_generator(model: Any, precision: str) -> MaskGenerator:
    """With the prompts of images like `IMAGE` made: SAM's prompt encoder waits at each new size, not at each image."""
    proposer = proposer_of(model, precision)
    generator = MaskGenerator(proposer, SETTINGS)
    points = SETTINGS.points_per_side**2
    output_tokens = proposer._decoder.output_tokens  # type: ignore[attr-defined]
    tokens = torch.zeros(points, len(output_tokens) + 2, output_tokens.shape[1], device="cuda")
    prompts = mask_generator.Prompts(
        points_xy=torch.zeros(points, 2, dtype=torch.float64, device="cuda"), tokens=(tokens, tokens)
    )
    generator._prompts.of_crop = lambda size, layer: prompts  # type: ignore[method-assign]
    return generator


def make_generator_of_sam2(sam2: Any, precision: str, **changes: Any) -> MaskGenerator:
    """The prompts are the proposer's own: made once a size of image, but without a wait."""
    return MaskGenerator(proposer_of(sam2, precision), replace(SETTINGS, **changes))


def search(generator: MaskGenerator, waits: list[str]) -> Any:
    with HostCopies(waits):
        (embedding,) = generator._encode_all([IMAGE])
        return generator._search(0, IMAGE, embedding)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("kind", ["sam", "sam_hq"])
def test_search__waits_for_the_gpu_twice_a_batch_and_stays_on_it(
    request: pytest.FixtureRequest, waits: list[str], kind: str, precision: str
) -> None:
    found = search(make_generator(request.getfixturevalue(kind), precision), waits)
    assert waits == WAITS * 2
    assert {value.device.type for value in vars(found).values()} == {"cuda"}
    assert found.bits.shape == (2 * NUM_PASSING, 96, 16)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_search__sam2_waits_no_more(sam2: Any, waits: list[str], precision: str) -> None:
    found = search(make_generator_of_sam2(sam2, precision), waits)
    assert waits == WAITS * 2
    assert {value.device.type for value in vars(found).values()} == {"cuda"}


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_search__sam2_refines_on_the_gpu(sam2: Any, waits: list[str], precision: str) -> None:
    """One wait more a batch: for which of the refined masks pass."""
    found = search(make_generator_of_sam2(sam2, precision, use_m2m=True), waits)
    assert waits == [*WAITS[:2], WAITS[0], WAITS[2]] * 2
    assert {value.device.type for value in vars(found).values()} == {"cuda"}


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_search__words_wait_no_more_than_points(sam3: Sam3, waits: list[str], precision: str) -> None:
    concepts = Sam3Concepts(sam3, precision)
    of_words = MaskGenerator(concepts, replace(SETTINGS, points_per_batch=2), words={0: ["a", "b", "c"]})
    grid = MaskGenerator(Sam3Grid(sam3, concepts), SETTINGS, beside=of_words)
    for prompt in ("a", "b", "c"):
        concepts.embed_word(prompt)
    with HostCopies(waits):
        (embedding,) = grid._encode_all([IMAGE])
        parts = [generator._search(0, IMAGE, embedding) for generator in (grid, of_words)]
    assert waits == WAITS * 4
    assert {value.device.type for found in parts for value in vars(found).values()} == {"cuda"}


def test_search__the_first_wait_is_for_the_masks_that_pass(
    sam: Sam, monkeypatch: pytest.MonkeyPatch, waits: list[str]
) -> None:
    """Without a count given, what runs ends there."""
    generator = make_generator(sam, "fp32")
    monkeypatch.undo()
    with pytest.raises(DynamicOutputShapeException) as caught:
        search(generator, waits)
    assert [entry.name for entry in caught.traceback if Path(entry.path) == Path(mask_generator.__file__)][-1] == (
        "_search_batch"
    )


@pytest.mark.parametrize(
    ("boxes_of", "error", "text"),
    [
        (lambda masks: torch.zeros(int(masks.sum()), 4), DataDependentOutputException, "_local_scalar_dense"),
        (lambda masks: masks & torch.ones_like(masks, device="cpu"), RuntimeError, "device"),
    ],
    ids=["a value", "another device"],
)
def test_search__a_fault_is_found(
    sam: Sam,
    monkeypatch: pytest.MonkeyPatch,
    waits: list[str],
    boxes_of: Callable[[Tensor], Tensor],
    error: type[Exception],
    text: str,
) -> None:
    monkeypatch.setattr(selection, "boxes_of", boxes_of)
    with pytest.raises(error, match=text):
        search(make_generator(sam, "fp32"), waits)


def test_search__a_wait_too_many_is_found(sam: Sam, monkeypatch: pytest.MonkeyPatch, waits: list[str]) -> None:
    boxes_of, pack = selection.boxes_of, mask_generator.pack
    monkeypatch.setattr(selection, "boxes_of", lambda masks: boxes_of(masks[masks[:, 0, 0]]))  # a boolean index
    monkeypatch.setattr(mask_generator, "pack", lambda masks, frame: pack(masks.cpu(), frame).cuda())
    search(make_generator(sam, "fp32"), waits)
    assert waits == [*WAITS[:2], "select: nonzero", "select: nonzero", "_search_batch: copy"] * 2
