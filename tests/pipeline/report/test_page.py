import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from semires.pipeline.paths import Paths
from semires.pipeline.report.page import OURS, build_report, check_output, duration
from semires.pipeline.scoring.scores import kept_scores
from semires.pipeline.study.results import StudyResult, StudyRun
from semires.stages.data.errors import InputError

CPU = torch.device("cpu")


def ignore(what: str, done: int, total: int, note: str = "") -> None:
    pass


def built(runs: list[Path], tmp_path: Path) -> str:
    paths = Paths(data=tmp_path / "no data")
    path = build_report((), runs, paths, CPU, ignore, output=tmp_path / "report", num_gallery=0)
    assert path == tmp_path / "report" / "index.html"
    return path.read_text(encoding="utf-8")


def plain(page: str) -> str:
    return " ".join(re.sub(r"<style>.*?</style>|<script>.*?</script>|<[^>]*>", " ", page, flags=re.DOTALL).split())


def test_build_report__has_every_part(write_run: Callable[..., Path], tmp_path: Path) -> None:
    first = write_run("first", method="supervised", best=40)
    runs = [first, write_run("second", best=50, burn_in=first), write_run("third", finished=False, burn_in=first)]
    page = built(runs, tmp_path)
    text = plain(page)
    for part in (
        "Runs on RefShapes 2 finished runs on RefShapes, 1 not finished",
        "RefShapes, 5% val: SemiRES, CPI-U 0.7 is 10.00 points above Supervised (95%: +10.00 to +10.00).",
        f"{runs[2]}: no scores: the run is not finished",
        "paper: RefCOCO 1% val",
        "Learning curves: RefShapes, 5% labeled",
        "Label quality over time: RefShapes, 5% labeled",
        "What refinement makes of labels: RefShapes, 5% labeled",
        f"300 of 300 62 s {runs[1]}",
        "training took 2 min in all",
        "trained with not recorded",
        "20 refs, 20 images, 20 expressions; sha256 of ref ids aaaaaaaaaaaa",
        "semires train --split refshapes",
    ):
        assert part in text, part
    assert "Content-Security-Policy" in page
    # Nothing is fetched: no address but those within the page.
    assert re.findall(r'(?:src|href)="(?!#|data:)([^"]*)"', page) == []


def test_build_report__of_two_data_sets_every_run_says_its_own(write_run: Callable[..., Path], tmp_path: Path) -> None:
    page = built([write_run("one"), write_run("two", split="refcoco", model="base", labeled=0.01)], tmp_path)
    text = plain(page.split('id="runs-caption"')[1].split("</table>")[0])
    assert "SemiRES, CPI-U 0.7 RefShapes 5% 0 50.00" in text
    assert "SemiRES, CPI-U 0.7 RefCOCO 1% 0 50.00" in text


def test_build_report__a_run_of_two_studies_counts_once(write_run: Callable[..., Path], tmp_path: Path) -> None:
    folder = write_run("run", method="supervised")
    scores = kept_scores(folder)
    assert scores is not None
    run = StudyRun(row="Supervised", split="refshapes", share=0.05, seed=0, folder=folder, burn_in=None, scores=scores)
    studies = [StudyResult(name=name, title=name, table=None, tables=(), runs=(run,)) for name in ("table1", "table2")]
    path = build_report(studies, [], Paths(data=tmp_path), CPU, ignore, output=tmp_path / "report", num_gallery=0)
    text = plain(path.read_text(encoding="utf-8"))
    assert "1 finished run on RefShapes" in text
    assert "training took 62 s in all runs" in text


def test_build_report__settings_stand_under_their_study(write_run: Callable[..., Path], tmp_path: Path) -> None:
    empty = StudyResult(name="table2", title="Nothing yet", table=None, tables=(), runs=())
    run = write_run("run")
    path = build_report((empty,), [run], Paths(data=tmp_path), CPU, ignore, output=tmp_path / "report", num_gallery=0)
    assert "Settings, Runs on RefShapes" in plain(path.read_text(encoding="utf-8"))


def test_build_report__a_run_that_cannot_be_read_costs_the_others_nothing(
    write_run: Callable[..., Path], tmp_path: Path
) -> None:
    damaged = write_run("damaged", seed=1)
    (damaged / "metrics.jsonl").write_text("[\n", encoding="utf-8")
    text = plain(built([write_run("whole"), damaged], tmp_path))
    assert f"{damaged}: expected" not in text
    assert f"{damaged / 'metrics.jsonl'}: expected the metrics of a run" in text
    assert "1 finished run on RefShapes" in text
    with pytest.raises(InputError, match="expected the metrics of a run"):
        built([damaged], tmp_path)


def test_build_report__a_users_text_is_text(write_run: Callable[..., Path], tmp_path: Path, hostile: str) -> None:
    run = write_run("run", labeled_list=f"{hostile}.txt", finished=False)
    page = built([run], tmp_path)
    assert "<script>alert" not in page
    assert "{{7*7}}" in page


def test_build_report__one_that_cannot_be_read_costs_nothing_else(
    write_run: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    damaged = write_run("damaged", seed=1)
    (damaged / "audit.json").write_text("{}", encoding="utf-8")
    gone = write_run("gone", split="refcoco", scores=False, seed=2)
    text = plain(built([write_run("whole"), damaged, gone], tmp_path))
    said = capsys.readouterr().out
    for part in (f"found others in {damaged / 'audit.json'}", f"{gone}: no scores: "):
        assert part in text
        assert part in said
    assert "Learning curves: RefShapes" in text


def test_check_output__replaces_its_own_page_and_nobody_elses(tmp_path: Path) -> None:
    folder = tmp_path / "report"
    check_output(folder)
    folder.mkdir()
    (folder / "notes.txt").write_text("mine", encoding="utf-8")
    check_output(folder)
    (folder / "index.html").write_text(f"<head>{OURS}</head>", encoding="utf-8")
    check_output(folder)
    for content in (b"<title>a site</title>", b"\xff\xfe"):
        (folder / "index.html").write_bytes(content)
        with pytest.raises(InputError, match=r"found another at .*index.html; give another folder"):
            check_output(folder)
    with pytest.raises(InputError, match="found a file at"):
        check_output(folder / "notes.txt")


@pytest.mark.parametrize(("seconds", "text"), [(61.4, "61 s"), (150, "2 min"), (5940, "99 min"), (7320, "2 h 2 min")])
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text
