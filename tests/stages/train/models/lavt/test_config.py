import json

import pytest

from semires.stages.data.errors import InputError
from semires.stages.train.models.lavt.config import LAVT_BASE, LAVT_NANO, LavtConfig


@pytest.mark.parametrize("config", [LAVT_BASE, LAVT_NANO])
def test_config__round_trip_through_json(config):
    assert LavtConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_config__defaults_may_be_missing():
    values = LAVT_NANO.to_dict()
    del values["max_tokens"]
    assert LavtConfig.from_dict(values) == LAVT_NANO


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"swin_windw": 4}, "found swin_windw"),
        ({"swin_window": "4"}, "expected swin_window as int"),
        ({"swin_window": True}, "expected swin_window as int"),
        ({"swin_depths": [1, 1, 2.0, 1]}, "expected swin_depths"),
        ({"swin_depths": [1, 1]}, "expected 4 numbers in swin_depths"),
        ({"drop_path": 1.0}, "expected drop_path"),
        ({"trained_text_layers": 3}, "expected trained_text_layers"),
        ({"max_tokens": 64}, "expected max_tokens"),
        ({"image_size": 32}, "expected image_size"),
    ],
)
def test_config__bad_values(change, message):
    with pytest.raises(InputError, match=message):
        LavtConfig.from_dict({**LAVT_NANO.to_dict(), **change})


def test_config__missing_key():
    values = LAVT_NANO.to_dict()
    del values["swin_window"]
    with pytest.raises(InputError, match="found no swin_window"):
        LavtConfig.from_dict(values)
