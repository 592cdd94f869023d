"""Fixtures of the whole suite: the recordings, and an LSL session of our own."""

from __future__ import annotations

import os
import tempfile
import uuid
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def isolate_lsl() -> None:
    """Give this test run its own LSL session on this machine; must happen before pylsl is imported."""
    path = Path(tempfile.mkdtemp(prefix="bcistream-lsl-")) / "lsl_api.cfg"
    session = f"bcistream-test-{uuid.uuid4().hex[:8]}"
    path.write_text(f"[lab]\nSessionID={session}\n[multicast]\nResolveScope=machine\n[log]\nlevel=-3\n")
    os.environ["LSLAPICFG"] = str(path)


isolate_lsl()


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Folder of the real recordings; skips where there is none."""
    path = Path(os.environ.get("BCISTREAM_DATA", ROOT.parent / "shared" / "data"))
    if not path.is_dir():
        pytest.skip(f"no recordings at {path}: set BCISTREAM_DATA")
    return path


@pytest.fixture(scope="session")
def lsl_session() -> str:
    """Session id of the run's LSL; skips where an outlet cannot be found over the loopback."""
    import pylsl

    info = pylsl.StreamInfo("probe", "probe", 1, 0.0, "float32", uuid.uuid4().hex)
    outlet = pylsl.StreamOutlet(info)
    found = pylsl.resolve_byprop("source_id", info.source_id(), timeout=5.0)
    del outlet
    if not found:
        pytest.skip("LSL finds no stream over the loopback here")
    return Path(os.environ["LSLAPICFG"]).read_text()
