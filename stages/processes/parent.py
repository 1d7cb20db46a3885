"""Processes that another one starts: they end with it, however it ends."""

import multiprocessing
import os
import signal
from multiprocessing.connection import wait
from threading import Thread


def end_with_parent() -> None:
    """From now on this process, which `multiprocessing` started, is asked to end by SIGTERM when its parent is gone.

    Killed, a parent ends nothing; a signal to this process itself lets a training save its state first.
    """
    Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os.kill(os.getpid(), signal.SIGTERM)
