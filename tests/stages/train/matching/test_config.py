"""What a matching configuration refuses, and its stand-in for "nothing chosen"."""

import pytest

from semires.stages.data.errors import InputError
from semires.stages.train.matching.config import MatchConfig


@pytest.mark.parametrize(
    ("field", "value"), [("strategy", "best"), ("iou_rate", 1.5), ("inter1", -0.1), ("inter2", float("nan"))]
)
def test_match_config__rejects(field: str, value: object) -> None:
    with pytest.raises(InputError, match="strategy" if field == "strategy" else field):
        MatchConfig(**{field: value})  # type: ignore[arg-type]


def test_match_config__no_choice() -> None:
    assert MatchConfig(strategy="iom").no_choice == -1
    assert MatchConfig(strategy="cpi-u").no_choice == 0
