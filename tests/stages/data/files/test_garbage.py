import gc

import pytest

from semires.stages.data.files.garbage import paused_garbage_collection


def test_paused_garbage_collection__is_as_before_after_it() -> None:
    assert gc.isenabled()
    with paused_garbage_collection():
        assert not gc.isenabled()
        with paused_garbage_collection():
            assert not gc.isenabled()
        assert not gc.isenabled()
    assert gc.isenabled()
    with pytest.raises(ValueError, match="x"), paused_garbage_collection():
        raise ValueError("x")
    assert gc.isenabled()
