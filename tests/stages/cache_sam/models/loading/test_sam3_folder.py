import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import Sam3Model, Sam3TrackerModel

from semires.stages.cache_sam.models.loading import transformers_folder
from semires.stages.cache_sam.models.loading.sam3_folder import read_sam3
from semires.stages.cache_sam.models.loading.transformers_folder import weight_files
from semires.stages.cache_sam.models.sam import load_sam3, sha256_of
from semires.stages.cache_sam.models.sam2_proposer import GENERATOR_SETTINGS
from semires.stages.data.errors import InputError

CPU = torch.device("cpu")


@pytest.fixture
def folder(tmp_path: Path, sam3_folder: Path) -> Path:
    """A copy that a test may spoil."""
    return Path(shutil.copytree(sam3_folder, tmp_path / "sam3-small"))


@pytest.fixture
def without_tracker(folder: Path) -> Path:
    """As `Sam3Model.save_pretrained` writes it."""
    model = Sam3Model.from_pretrained(folder)
    shutil.rmtree(folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "processor_config.json"):
        assert not (folder / name).exists()
    model.save_pretrained(folder)
    return folder


def set_config(folder: Path, **changes: object) -> None:
    content = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(content | changes))


def test_load_sam3__with_its_tracker(sam3_folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    loaded = load_sam3(str(sam3_folder), CPU, with_tracker=True)
    assert capfd.readouterr() == ("", "")
    assert (type(loaded.sam.text), type(loaded.sam.tracker)) == (Sam3Model, Sam3TrackerModel)
    assert not loaded.sam.text.training
    assert not loaded.sam.tracker.training
    assert (loaded.name, loaded.sha256) == ("sam3-small", sha256_of(*weight_files(sam3_folder)))
    assert loaded.settings == GENERATOR_SETTINGS
    # One ViT, but necks of their own.
    assert loaded.sam.tracker.vision_encoder.backbone is loaded.sam.text.vision_encoder.backbone
    necks = [model.vision_encoder.neck.fpn_layers[0].proj1.weight for model in (loaded.sam.text, loaded.sam.tracker)]
    assert not torch.equal(*necks)
    assert loaded.sam.text.pixel_mean == pytest.approx([0.5] * 3)


def test_load_sam3__the_tracker_s_vit_is_the_other_s(sam3_folder: Path) -> None:
    """So that one is enough: transformers reads both from the same weights."""
    sam3 = read_sam3(sam3_folder, with_tracker=True)
    text, tracker = (model.vision_encoder.backbone.state_dict() for model in (sam3.text, sam3.tracker))
    assert text.keys() == tracker.keys()
    assert all(torch.equal(text[name], tracker[name]) for name in text)


def test_load_sam3__without_a_tracker(without_tracker: Path, sam3_folder: Path) -> None:
    with pytest.raises(InputError, match="--concepts: expected a tokenizer"):
        load_sam3(str(without_tracker), CPU, with_tracker=False)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(sam3_folder / name, without_tracker)
    assert load_sam3(str(without_tracker), CPU, with_tracker=False).sam.tracker is None
    with pytest.raises(InputError, match=r"--concepts beside: .*'sam3_video'.* found 'sam3': .*--concepts only"):
        load_sam3(str(without_tracker), CPU, with_tracker=True)


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (lambda folder: set_config(folder, model_type="sam2"), "expected a model_type of sam3, sam3_video in "),
        (lambda folder: (folder / "model.safetensors").unlink(), "expected model.safetensors"),
        (lambda folder: (folder / "tokenizer.json").write_text("{"), "expected a tokenizer in "),
        (lambda folder: add_tokens(folder), "--concepts: expected a tokenizer of 54 tokens in "),
    ],
    ids=["sam2", "no weights", "broken tokenizer", "larger tokenizer"],
)
def test_load_sam3__refused(folder: Path, spoil: Callable[[Path], object], expected: str) -> None:
    spoil(folder)
    with pytest.raises(InputError) as caught:
        load_sam3(str(folder), CPU, with_tracker=False)
    assert expected in str(caught.value)
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)


def add_tokens(folder: Path) -> None:
    content = json.loads((folder / "tokenizer.json").read_text())
    content["model"]["vocab"]["more"] = 54
    (folder / "tokenizer.json").write_text(json.dumps(content))


@pytest.mark.parametrize("name", ["vit_h", "my_module:factory", ""])
def test_load_sam3__no_sam_3(name: str) -> None:
    with pytest.raises(InputError, match=f"--concepts: expected --sam with a folder of a SAM 3.*found '{name}'"):
        load_sam3(name, CPU, with_tracker=False)


def test_load_sam3__from_the_hub_with_its_tokenizer(sam3_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def fetch(name: str, *, allow_patterns: list[str], **options: object) -> str:
        asked.extend(allow_patterns)
        return str(sam3_folder)

    monkeypatch.setattr(transformers_folder, "snapshot_download", fetch)
    assert load_sam3("facebook/sam3", CPU, with_tracker=False).name == "facebook/sam3"
    assert {"config.json", "model.safetensors", "tokenizer.json", "vocab.json", "merges.txt"} <= set(asked)
