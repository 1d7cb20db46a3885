from collections.abc import Callable
from pathlib import Path

import pytest

from semires.cache.views import CandidateView
from semires.pipeline.running.candidate_views import derive_view


def test_derive_view__says_where_an_outdated_one_makes_room(
    tmp_path: Path, write_store: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    store = tmp_path / "[x].zarr"
    write_store(store, "refcoco", [3])
    told: list[tuple[str, int, int]] = []
    derive_view(store, 16, lambda *progress: told.append(progress), codec="zstd-3")
    assert told == [("candidates at 16x16", 0, 1), ("candidates at 16x16", 1, 1)]
    assert capsys.readouterr().out == ""
    (store / "views" / "pil-nearest" / "16").rename(store / "views" / "16")
    derive_view(store, 16, lambda *progress: told.append(progress))
    assert capsys.readouterr().out == f"{store}/views/16: resampled by another rule than masks are, derived anew\n"
    assert told[2:] == told[:2]
    assert len(CandidateView(store, 16)) == 1
