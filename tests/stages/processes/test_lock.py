"""One process works in a folder; a dead one holds nothing."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from semires.stages.data.errors import InputError
from semires.stages.processes.lock import folder_lock

HOLD = """
import sys, time
from pathlib import Path
from semires.stages.processes.lock import folder_lock
with folder_lock(Path(sys.argv[1]), what="training"):
    print("held", flush=True)
    time.sleep(60)
"""


def test_folder_lock__a_second_process_is_refused_until_the_first_is_killed(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        refused = pytest.raises(InputError, match=rf"another at work \(process {holder.pid} on .*--name")
        with refused, folder_lock(folder, what="training"):
            raise AssertionError("entered")
        holder.kill()
        holder.wait()
        with folder_lock(folder, what="training"):
            assert str(os.getpid()) in (folder / ".lock").read_text()


def test_folder_lock__again_after_leaving(tmp_path: Path) -> None:
    for _ in range(2):
        with folder_lock(tmp_path, what="training"):
            pass
    with folder_lock(tmp_path, what="training"), pytest.raises(InputError), folder_lock(tmp_path, what="training"):
        raise AssertionError("entered")
