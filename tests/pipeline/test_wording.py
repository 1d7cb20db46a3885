from semires.pipeline.wording import counted


def test_counted__one_and_several() -> None:
    assert [counted(number, "candidate mask") for number in (0, 1, 2, 1000)] == [
        *("0 candidate masks", "1 candidate mask", "2 candidate masks", "1000 candidate masks")
    ]
