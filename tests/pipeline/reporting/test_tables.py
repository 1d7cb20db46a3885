from semires.pipeline.reporting.tables import METHODS, TITLES, title_of
from semires.stages.data.splits import SPLITS


def test_titles__every_split_and_refshapes_said_to_be_another_thing() -> None:
    assert set(TITLES) == set(SPLITS)
    assert "not comparable" in TITLES["refshapes"]
    assert "RefCOCO" not in TITLES["refshapes"]


def test_title_of__own_data_by_its_files_name() -> None:
    assert title_of("some/folder/my [b].jsonl") == "my [b].jsonl"
    assert title_of("refcocog") == "G-Ref (UMD)"


def test_methods__are_named_as_in_the_paper() -> None:
    assert list(METHODS.values())[:3] == ["Supervised", "Baseline", "SemiRES"]
