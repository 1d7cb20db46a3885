import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from segment_anything import SamPredictor, sam_model_registry
from segment_anything.modeling import Sam
from torch import nn
from transformers import SamConfig, SamModel

from semires.stages.cache_sam.generator.mask_generator import MaskGenerator
from semires.stages.cache_sam.generator.settings import GeneratorSettings
from semires.stages.cache_sam.models import tiny_sam
from semires.stages.cache_sam.models.loading.transformers_folder import weight_files
from semires.stages.cache_sam.models.loading.transformers_sam import load_transformers_sam
from semires.stages.cache_sam.models.naming import CHECKPOINT_FILES, SAM_NAMES
from semires.stages.cache_sam.models.proposers import proposer_of
from semires.stages.cache_sam.models.sam import load_sam, sha256_of
from semires.stages.cache_sam.models.tiny_sam import build_tiny_sam, weights_path
from semires.stages.data.errors import InputError

CPU = torch.device("cpu")


def save_shapes_of(name: str, path: Path) -> Path:
    """A checkpoint with the names and shapes of a big SAM; every tensor is one number, stretched."""
    with torch.device("meta"):
        shapes = {key: value.shape for key, value in sam_model_registry[name]().state_dict().items()}
    torch.save({key: torch.zeros(()).expand(shape) for key, shape in shapes.items()}, path)
    return path


def assert_same_weights(found: Sam, expected: Sam) -> None:
    weights = expected.state_dict()
    assert found.state_dict().keys() == weights.keys()
    assert all(torch.equal(value, weights[key]) for key, value in found.state_dict().items())


def test_load_sam__pth_of_torch_save(random_checkpoint: Path, random_sam: Sam) -> None:
    loaded = load_sam("tiny", random_checkpoint, CPU)
    assert loaded.name == "tiny"
    assert loaded.sha256 == hashlib.sha256(random_checkpoint.read_bytes()).hexdigest()
    assert not loaded.sam.training
    assert_same_weights(loaded.sam, random_sam)


def test_load_sam__pth_of_an_old_torch(tmp_path: Path, random_sam: Sam) -> None:
    path = tmp_path / "tiny.pth"
    torch.save(random_sam.state_dict(), path, _use_new_zipfile_serialization=False)
    assert_same_weights(load_sam("tiny", path, CPU).sam, random_sam)


def test_load_sam__safetensors(tmp_path: Path, random_sam: Sam) -> None:
    path = tmp_path / "tiny.safetensors"
    save_file(random_sam.state_dict(), path)
    assert_same_weights(load_sam("tiny", path, CPU).sam, random_sam)


def test_load_sam__weights_of_the_package() -> None:
    loaded = load_sam("tiny", None, CPU)
    assert loaded.sha256 == sha256_of(weights_path())
    assert_same_weights(loaded.sam, build_tiny_sam(weights_path()))


def test_load_sam__later_changes_of_the_file_change_nothing(tmp_path: Path, random_sam: Sam) -> None:
    """The file is mapped into memory while it is read: the model must hold copies."""
    path = tmp_path / "tiny.pth"
    torch.save(random_sam.state_dict(), path)
    loaded = load_sam("tiny", path, CPU)
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.write(b"\xff" * size)
    assert_same_weights(loaded.sam, random_sam)


@pytest.mark.parametrize(
    "name", ["vit_x", "", "VIT_H", "sam.pth", "/no/folder", "../sam", "one/two/three", "-a/b", "a b/c"]
)
def test_load_sam__unknown_name(name: str) -> None:
    with pytest.raises(
        InputError, match="--sam: expected one of vit_h, vit_l, vit_b, default, tiny, a folder"
    ) as caught:
        load_sam(name, None, CPU)
    assert f"facebook/sam2.1-hiera-large, or PACKAGE.MODULE:FACTORY, found {name!r}" in str(caught.value)


def test_load_sam__names_are_the_registrys() -> None:
    assert set(SAM_NAMES) == {*sam_model_registry, "tiny"}
    assert CHECKPOINT_FILES.keys() == sam_model_registry.keys()


def test_load_sam__default_is_vit_h(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, random_sam: Sam) -> None:
    """segment-anything has two names for ViT-H; a store made under one must go on under the other."""
    assert sam_model_registry["default"] is sam_model_registry["vit_h"]
    monkeypatch.setitem(sam_model_registry, "default", build_tiny_sam)  # the real one takes gigabytes
    path = tmp_path / "sam.pth"
    torch.save(random_sam.state_dict(), path)
    loaded = load_sam("default", path, CPU)
    assert loaded.name == "vit_h"
    assert_same_weights(loaded.sam, random_sam)


@pytest.mark.parametrize("name", [name for name in SAM_NAMES if name != "tiny"])
def test_load_sam__big_one_without_a_checkpoint(name: str) -> None:
    with pytest.raises(InputError, match=f"SAM {name} needs its weights.*{CHECKPOINT_FILES[name]}"):
        load_sam(name, None, CPU)


def test_load_sam__missing_file(tmp_path: Path) -> None:
    path = tmp_path / "sam_vit_h_4b8939.pth"
    with pytest.raises(InputError, match=f"--sam-checkpoint: expected a file, found nothing at {path}"):
        load_sam("vit_h", path, CPU)
    with pytest.raises(InputError, match=f"--sam-checkpoint: expected a file, found a folder: {tmp_path};.* as --sam"):
        load_sam("vit_h", tmp_path, CPU)


def test_load_sam__tiny_weights_as_vit_b(random_checkpoint: Path) -> None:
    with pytest.raises(InputError, match=r"is no SAM vit_b: expected image_encoder\..* a tiny: give --sam tiny"):
        load_sam("vit_b", random_checkpoint, CPU)


@pytest.mark.parametrize("asked", ["vit_h", "tiny"])
def test_load_sam__weights_of_another_size(tmp_path: Path, asked: str) -> None:
    path = save_shapes_of("vit_b", tmp_path / CHECKPOINT_FILES["vit_b"])
    expected = rf"is no SAM {asked}: expected .* of shape .*, found .* give --sam vit_b"
    with pytest.raises(InputError, match=expected) as caught:
        load_sam(asked, path, CPU)
    assert "\n" not in str(caught.value)


def sized_sam(size: int) -> Sam:
    """The tiny SAM for images of another size, as its builder builds it."""
    with pytest.MonkeyPatch.context() as patch, torch.random.fork_rng():
        patch.setattr(tiny_sam, "IMAGE_SIZE", size)
        torch.manual_seed(1)
        sam = build_tiny_sam()
        for name, weight in sam.named_parameters():
            if "pos" in name:  # zeros, when they are made
                nn.init.normal_(weight)
    return sam


@pytest.mark.parametrize("size", [64, 256])
def test_load_sam__made_for_images_of_another_size(tmp_path: Path, size: int) -> None:
    """As of SAM-Med2D: its positions are those of 256 pixels, not of 1,024 that somebody scaled."""
    trained = sized_sam(size)
    path = tmp_path / "sam.pth"
    torch.save({"model": trained.state_dict()}, path)
    loaded = load_sam("tiny", path, CPU)
    assert_same_weights(loaded.sam, trained)
    assert loaded.note == f"{path}: stripped off its names: 'model.'; made for images of {size} pixels, not 128"
    image = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    outputs = []
    for sam in (loaded.sam, trained):
        predictor = SamPredictor(sam)
        predictor.set_image(image)
        mask = np.ones((1, size // 2, size // 2), dtype=np.float32)
        outputs.append(predictor.predict(np.array([[15, 10]]), np.array([1]), mask_input=mask))
        assert predictor.features.shape[-1] == size // 8
    for found, expected in zip(*outputs, strict=True):
        np.testing.assert_array_equal(found, expected)
    settings = GeneratorSettings(points_per_side=2, pred_iou_thresh=0, stability_score_thresh=0)
    (candidates,) = MaskGenerator(proposer_of(loaded.sam), settings).generate_batch([1], [image])
    assert candidates.num_masks > 0


@pytest.mark.parametrize(
    ("mean", "std", "note"),
    [
        ([123.675, 116.28, 103.53], [58.395, 57.12, 57.375], None),
        ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225], None),  # the same, of pixels of 0 to 1
        ([0.0, 0.0, 0.0], [1.0, 1.0, 1.0], "pixel_mean 0, 0, 0, not SAM's own; pixel_std 255, 255, 255, not SAM's own"),
        ([90.0, 90.0, 80.5], [58.395, 57.12, 57.375], "pixel_mean 90, 90, 80.5, not SAM's own"),
    ],
)
def test_load_sam__pixels_are_normalized_as_the_file_says(
    tmp_path: Path, random_sam: Sam, mean: list[float], std: list[float], note: str | None
) -> None:
    path = tmp_path / "sam.pth"
    constants = {"pixel_mean": torch.tensor(mean).view(3, 1, 1), "pixel_std": torch.tensor(std).view(3, 1, 1)}
    torch.save(random_sam.state_dict() | constants, path)
    loaded = load_sam("tiny", path, CPU)
    assert loaded.note == (None if note is None else f"{path}: {note}")
    scale = 255 if max(std) <= 1 else 1
    torch.testing.assert_close(loaded.sam.pixel_mean, constants["pixel_mean"] * scale)
    torch.testing.assert_close(loaded.sam.pixel_std, constants["pixel_std"] * scale)
    assert "pixel_mean" not in loaded.sam.state_dict()


def test_sha256_of__known_value(tmp_path: Path) -> None:
    path = tmp_path / "abc"
    path.write_bytes(b"abc")
    assert sha256_of(path) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_sha256_of__several_files_as_one(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.write_bytes(b"a")
    second.write_bytes(b"bc")
    assert sha256_of(first, second) == hashlib.sha256(b"abc").hexdigest() != sha256_of(second, first)


@pytest.fixture(scope="module")
def sam_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small SamModel as transformers saves it, its weights in several files."""
    sizes = {"hidden_size": 16, "image_size": 32, "patch_size": 8}
    vision = {**sizes, "num_hidden_layers": 2, "num_attention_heads": 2, "output_channels": 16, "num_pos_feats": 8}
    decoder = {"hidden_size": 16, "mlp_dim": 16, "num_attention_heads": 2, "iou_head_hidden_dim": 16}
    config = SamConfig(vision_config=vision, prompt_encoder_config=sizes, mask_decoder_config=decoder)
    folder = tmp_path_factory.mktemp("models") / "sam-small"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        SamModel(config).save_pretrained(folder, max_shard_size="40KB")
    return folder


def test_load_sam__folder(sam_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = load_sam(str(sam_folder), None, CPU)
    assert loaded.name == "sam-small"
    files = weight_files(sam_folder)
    assert len(files) > 1
    assert loaded.sha256 == hashlib.sha256(b"".join(path.read_bytes() for path in sorted(files))).hexdigest()
    assert not loaded.sam.training
    assert_same_weights(loaded.sam, load_transformers_sam(sam_folder))
    # However it is reached, the folder has its own name.
    for place, name in (
        (sam_folder, "."),
        (sam_folder, "./"),
        (sam_folder.parent, "sam-small"),
        (sam_folder, "../sam-small"),
    ):
        monkeypatch.chdir(place)
        assert load_sam(name, None, CPU).name == "sam-small"


def test_load_sam__folder_with_the_name_of_a_sam(sam_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (sam_folder.parent / "tiny").symlink_to(sam_folder)
    monkeypatch.chdir(sam_folder.parent)
    assert load_sam("tiny", None, CPU).sha256 == sha256_of(weights_path())
    assert load_sam("./tiny", None, CPU).sha256 == sha256_of(*weight_files(sam_folder))


def test_load_sam__folder_of_another_kind(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"--sam: expected a folder in transformers' format .* in {tmp_path}"):
        load_sam(str(tmp_path), None, CPU)


def test_load_sam__folder_and_a_checkpoint(sam_folder: Path, random_checkpoint: Path) -> None:
    with pytest.raises(InputError, match=r"--sam-checkpoint: expected none .* leave it out") as caught:
        load_sam(str(sam_folder), random_checkpoint, CPU)
    assert str(random_checkpoint) in str(caught.value)


def test_load_sam__hub_name(sam_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def download(name: str) -> Path:
        asked.append(name)
        return sam_folder

    monkeypatch.setattr("semires.stages.cache_sam.models.sam.download_model", download)
    monkeypatch.chdir(tmp_path)
    loaded = load_sam("facebook/sam-vit-huge", None, CPU)
    assert asked == ["facebook/sam-vit-huge"]
    assert loaded.name == "facebook/sam-vit-huge"
    assert loaded.sha256 == sha256_of(*weight_files(sam_folder))
    # A folder of this name goes first, as in transformers.
    (tmp_path / "facebook").mkdir()
    (tmp_path / "facebook" / "sam-vit-huge").symlink_to(sam_folder)
    assert load_sam("facebook/sam-vit-huge", None, CPU).sha256 == loaded.sha256
    assert len(asked) == 1


def test_load_sam__folder_behind_sams_predictor(sam_folder: Path) -> None:
    """The converted SAM behind segment-anything's own predictor: its resize, padding and upsampling fit."""
    predictor = SamPredictor(load_sam(str(sam_folder), None, CPU).sam)
    predictor.set_image(np.zeros((20, 30, 3), dtype=np.uint8))
    masks, scores, low_res = predictor.predict(np.array([[15, 10]]), np.array([1]))
    assert masks.shape == (3, 20, 30)
    assert scores.shape == (3,)
    assert low_res.shape == (3, 16, 16)
    assert np.isfinite(low_res).all()
