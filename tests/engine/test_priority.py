"""A better place for the session's threads: given, taken back, and said where it is refused."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import pytest

from engine import priority
from engine.priority import prioritised

pytestmark = pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="Linux alone has it")


def test_every_thread_runs_on_the_cores_named_until_the_end() -> None:
    """The caller and a thread that was there before, and afterwards both run where they did."""
    done, thread = threading.Event(), None
    try:
        thread = threading.Thread(target=done.wait)
        thread.start()
        before = os.sched_getaffinity(0)
        core = min(before)
        with prioritised(False, [core], lambda line: pytest.fail(line)):
            assert os.sched_getaffinity(0) == {core}
            assert os.sched_getaffinity(thread.native_id or 0) == {core}
        assert os.sched_getaffinity(0) == os.sched_getaffinity(thread.native_id or 0) == before
    finally:
        done.set()
        if thread is not None:
            thread.join()


def test_realtime_is_asked_for_every_thread_and_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Round robin at its priority for each, then what each had."""
    asked: list[tuple[int, int, int]] = []

    def ask(thread: int, policy: int, param: Any) -> None:
        asked.append((thread, policy, param.sched_priority))

    monkeypatch.setattr(os, "sched_setscheduler", ask)
    with prioritised(True, None, lambda line: pytest.fail(line)):
        during, asked[:] = list(asked), []
    here = threading.get_native_id()
    assert (here, os.SCHED_RR, priority.PRIORITY) in during
    assert (here, os.SCHED_OTHER, 0) in asked


def test_what_is_refused_is_said_and_the_session_goes_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """No permission, a core that is not there, a system without threads to tell: a line each."""

    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    said: list[str] = []
    with monkeypatch.context() as patch:
        patch.setattr(os, "sched_setscheduler", refuse)
        with prioritised(True, None, said.append):
            assert "ulimit -r" in said[0]
    with prioritised(False, [100_000], said.append):
        assert "cores 100000 were refused" in said[1]
    with prioritised(False, [10**12], said.append):
        assert "were refused" in said[2]
    monkeypatch.setattr(priority, "TASKS", tmp_path / "none")
    with prioritised(True, [0], said.append):
        assert "Linux" in said[3]
    assert len(said) == 4


def test_a_thread_that_has_ended_keeps_no_other_from_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is passed over, and nothing is said."""
    place, here = os.sched_setaffinity, threading.get_native_id()

    def gone(thread: int, cores: Any) -> None:
        if thread != here:
            raise ProcessLookupError(3, "No such process")
        place(thread, cores)

    monkeypatch.setattr(priority, "_threads", lambda: [2**22 - 1, here])
    monkeypatch.setattr(os, "sched_setaffinity", gone)
    core = min(os.sched_getaffinity(0))
    with prioritised(False, [core], lambda line: pytest.fail(line)):
        assert os.sched_getaffinity(0) == {core}
