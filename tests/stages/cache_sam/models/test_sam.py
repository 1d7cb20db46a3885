import hashlib
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from segment_anything import SamPredictor, sam_model_registry
from segment_anything.modeling import Sam
from transformers import SamConfig, SamModel

from semires.stages.cache_sam.models.sam import CHECKPOINT_FILES, SAM_NAMES, load_sam, sha256_of
from semires.stages.cache_sam.models.tiny_sam import build_tiny_sam, weights_path
from semires.stages.cache_sam.models.transformers_folder import weight_files
from semires.stages.cache_sam.models.transformers_sam import load_transformers_sam
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
    assert f"facebook/sam2.1-hiera-large, found {name!r}" in str(caught.value)


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


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize(
    "content",
    [b"", b"<html>404: not found</html>\n", b"(no weights)", b"0123", b"PK\x03\x04 no zip", b"\x80\x02}q\x00."],
    ids=["empty", "html", "list-index", "digits", "zip", "dict"],
)
def test_load_sam__no_checkpoint(tmp_path: Path, content: bytes, suffix: str) -> None:
    path = tmp_path / f"sam{suffix}"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"--sam-checkpoint: ") as caught:
        load_sam("vit_h", path, CPU)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_load_sam__cut_off(tmp_path: Path, random_checkpoint: Path) -> None:
    path = tmp_path / "half.pth"
    content = random_checkpoint.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match="found a file that is no checkpoint"):
        load_sam("tiny", path, CPU)


@pytest.mark.parametrize("content", [[torch.zeros(2)], {"model": {"a": torch.zeros(2)}}, {"epoch": 3}, torch.zeros(2)])
def test_load_sam__something_else_saved_by_torch(tmp_path: Path, content: object) -> None:
    path = tmp_path / "other.pth"
    torch.save(content, path)
    with pytest.raises(InputError, match="expected SAM weights by name, found something else"):
        load_sam("tiny", path, CPU)


class Touch:
    """Creates a file when it is unpickled by an unpickler that runs what a pickle asks for."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.path),)


def test_load_sam__code_in_a_pickle_is_not_run(tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    torch.save({"a": Touch(trap)}, tmp_path / "zip.pth")
    torch.save({"a": Touch(trap)}, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    (tmp_path / "plain.pth").write_bytes(pickle.dumps({"a": Touch(trap)}))
    for name in ("zip", "old", "plain"):
        with pytest.raises(InputError, match="found a file that is no checkpoint"):
            load_sam("tiny", tmp_path / f"{name}.pth", CPU)
        assert not trap.exists()
    # The trap works: the standard unpickler falls into it.
    pickle.loads((tmp_path / "plain.pth").read_bytes())
    assert trap.exists()


def test_load_sam__tiny_weights_as_vit_b(random_checkpoint: Path) -> None:
    with pytest.raises(InputError, match=r"is no SAM vit_b: expected image_encoder\..* give the file .* --sam vit_b"):
        load_sam("vit_b", random_checkpoint, CPU)


@pytest.mark.parametrize("asked", ["vit_h", "tiny"])
def test_load_sam__weights_of_another_size(tmp_path: Path, asked: str) -> None:
    path = save_shapes_of("vit_b", tmp_path / CHECKPOINT_FILES["vit_b"])
    with pytest.raises(
        InputError, match=rf"is no SAM {asked}: expected .* of shape .*, found .*--sam {asked}"
    ) as caught:
        load_sam(asked, path, CPU)
    assert "\n" not in str(caught.value)


def test_load_sam__key_too_many_or_too_few(tmp_path: Path, random_sam: Sam) -> None:
    weights = random_sam.state_dict()
    path = tmp_path / "tiny.pth"
    torch.save({**weights, "extra": torch.zeros(3)}, path)
    with pytest.raises(InputError, match=r"expected extra of shape None, found \(3,\)"):
        load_sam("tiny", path, CPU)
    key = "mask_decoder.iou_token.weight"
    torch.save({name: value for name, value in weights.items() if name != key}, path)
    with pytest.raises(InputError, match=rf"expected {key} of shape \(1, 64\), found None"):
        load_sam("tiny", path, CPU)


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
