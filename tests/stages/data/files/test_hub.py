import shutil
from pathlib import Path

import pytest

from semires.stages.data.errors import InputError
from semires.stages.data.files.hub import download_dataset, is_hub_name


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("jxu124/refcoco", True),
        ("lmms-lab/RefCOCO", True),
        ("refcoco.zip", False),
        ("./refcoco", False),
        ("a/b/c", False),
        ("/a", False),
        ("~/x", False),
        ("../x", False),
    ],
)
def test_is_hub_name__owner_and_name(text: str, expected: bool) -> None:
    assert is_hub_name(text) is expected


def test_is_hub_name__a_path_that_is_there_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "data/refcoco").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert not is_hub_name("data/refcoco")
    shutil.rmtree(tmp_path / "data")
    assert is_hub_name("data/refcoco")


def test_download_dataset__what_is_here_already_needs_no_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The layout of the hub's cache: what was downloaded once is found again without a network."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    folder = tmp_path / "datasets--me--mine"
    snapshot = folder / "snapshots" / ("0" * 40)
    (snapshot / "data").mkdir(parents=True)
    (snapshot / "data/train-00000-of-00001.parquet").write_bytes(b"rows")
    (folder / "refs").mkdir()
    (folder / "refs/main").write_text("0" * 40)
    found = download_dataset("me/mine", ("*.parquet",))
    assert [path.name for path in found.rglob("*.parquet")] == ["train-00000-of-00001.parquet"]


def test_download_dataset__failures_are_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(InputError, match=r"found none of them at me/mine .*: check the name or the network") as caught:
        download_dataset("me/mine", ("*.parquet",))
    assert "\n" not in str(caught.value)
