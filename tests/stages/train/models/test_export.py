import dataclasses
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from torch import Tensor

from semires.stages.data.errors import InputError
from semires.stages.train.models import export
from semires.stages.train.models.build import build_model
from semires.stages.train.models.export import TOLERANCES, Format, export_model
from semires.stages.train.models.interface import ResModel
from semires.stages.train.models.lavt import Lavt
from semires.stages.train.models.lavt.config import LAVT_NANO


class Thresholded(ResModel):
    """A small model that looks at no value of its images, or at one where `looks`."""

    def __init__(self, looks: bool = False) -> None:
        super().__init__()
        nano = build_model("nano", pretrained=False)
        self.image_size, self.tokenizer, self.looks = 32, nano.tokenizer, looks
        self.scale = torch.nn.Parameter(torch.ones(()))

    def forward(self, images: Tensor, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        if self.looks and images.sum() > 0:
            images = -images
        words = (input_ids * attention_mask).float().mean(dim=1)[:, None, None]
        return torch.stack([images[:, 0] * self.scale, images[:, 1] + words], dim=1)


@pytest.fixture
def small_lavt() -> Lavt:
    torch.manual_seed(0)
    small = dataclasses.replace(LAVT_NANO, swin_depths=(1, 2, 1, 1), text_layers=1, trained_text_layers=1)
    return Lavt(small, build_model("nano", pretrained=False).tokenizer)


def test_export_model__lavt_is_followed_at_any_size(
    tmp_path: Path, small_lavt: Lavt, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What torch has followed, not written and read back: of LAVT's sizes that takes longer than all else together."""

    def keep(program: Any, path: Path) -> export.Program:
        path.touch()
        found: export.Program = program.module()
        return found

    monkeypatch.setattr(export, "_write_torch", keep)
    parities = export_model(small_lavt, tmp_path / "nano.pt2", "torch-export")
    assert [parity.shape for parity in parities] == [(1, 3, 96, 96), (3, 3, 109, 85), (2, 3, 88, 96)]
    assert max(parity.difference for parity in parities) <= TOLERANCES["torch-export"]


def test_export_model__lavt_with_a_fixed_size(tmp_path: Path, small_lavt: Lavt) -> None:
    """One image has as many windows as torch may tell apart from those of several: it refused any batch."""
    parities = export_model(small_lavt, tmp_path / "nano.pt2", "torch-export", fixed_size=True)
    assert [parity.shape for parity in parities] == [(1, 3, 96, 96), (3, 3, 96, 96)]
    assert max(parity.difference for parity in parities) <= TOLERANCES["torch-export"]


# A model of one's own stands for it below, written and read back at any size too.
@pytest.mark.slow
@pytest.mark.parametrize("format", get_args(Format))
def test_export_model__lavt_at_any_size(tmp_path: Path, small_lavt: Lavt, format: Format) -> None:
    path = tmp_path / "nano.bin"
    parities = export_model(small_lavt, path, format)
    assert [parity.shape for parity in parities] == [(1, 3, 96, 96), (3, 3, 109, 85), (2, 3, 88, 96)]
    assert max(parity.difference for parity in parities) <= TOLERANCES[format]
    assert min(parity.agreement for parity in parities) > 0.9999
    assert [found.name for found in tmp_path.iterdir()] == ["nano.bin"]


@pytest.mark.parametrize("format", get_args(Format))
def test_export_model__a_model_of_ones_own(tmp_path: Path, format: Format) -> None:
    parities = export_model(Thresholded(), tmp_path / "own.bin", format)
    assert max(parity.difference for parity in parities) <= TOLERANCES[format]


def test_export_model__clipseg_with_a_fixed_size(tmp_path: Path, clipseg: Path) -> None:
    model = build_model("clipseg", pretrained=True, clipseg=str(clipseg))
    parities = export_model(model, tmp_path / "clipseg.pt2", "torch-export", fixed_size=True)
    assert [parity.shape for parity in parities] == [(1, 3, 32, 32), (3, 3, 32, 32)]
    assert max(parity.difference for parity in parities) <= TOLERANCES["torch-export"]


def test_export_model__clipseg_takes_no_other_size(tmp_path: Path, clipseg: Path) -> None:
    """Its decoder wants square images: what is free in the program is not in the network."""
    model = build_model("clipseg", pretrained=True, clipseg=str(clipseg))
    with pytest.raises(InputError, match=r"takes images of other sizes, found ClipSeg .*--fixed-size") as caught:
        export_model(model, tmp_path / "clipseg.pt2", "torch-export")
    assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["clipseg"]


def test_export_model__cannot_be_followed(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"torch\.export can follow, found Thresholded") as caught:
        export_model(Thresholded(looks=True), tmp_path / "own.pt2", "torch-export")
    assert "\n" not in str(caught.value)
    assert "--fixed-size" in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_export_model__a_program_that_differs_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = export._write_torch

    def write_another(program: Any, path: Path) -> export.Program:
        found = write(program, path)
        return lambda *batch: found(*batch) + torch.tensor([0.0, 0.5])[:, None, None]

    monkeypatch.setattr(export, "_write_torch", write_another)
    parities = export_model(Thresholded(), tmp_path / "own.pt2", "torch-export")
    assert all(parity.difference == pytest.approx(0.5, abs=1e-4) for parity in parities)
    monkeypatch.setattr(
        export, "_write_torch", lambda program, path: write(program, path) and (lambda *_: torch.ones(1))
    )
    assert {parity.difference for parity in export_model(Thresholded(), tmp_path / "own.pt2", "torch-export")} == {
        float("inf")
    }
