"""BCI Competition IV 2a as MOABB keeps it on disk: one command scores the people who were held back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from scipy.io import savemat
from typer.testing import CliRunner

pytest.importorskip("torch")
pytest.importorskip("pyriemann")
pytest.importorskip("moabb")
requests = pytest.importorskip("requests")

from offline.benchmark import report  # noqa: E402
from offline.cli import app  # noqa: E402
from offline.data import sources  # noqa: E402
from offline.data.sources import Moabb, find  # noqa: E402
from offline.evaluate import idle  # noqa: E402
from streamer.errors import RecordingError  # noqa: E402

CONFIG = Path(__file__).parents[2] / "configs" / "benchmark_imagery_2a.yaml"
SFREQ, N_TRIALS, TRIAL_S = 250, 8, 8
PEOPLE = [f"BNCI2014_001_{number:03d}" for number in (1, 5, 6, 8, 9)]
SMALL = [
    "model={kind: motor_imagery, n_chans: 22, n_classes: 4, members: 1, filters: 2, slow: 2, dim: 4, "
    "dilations: [1]}",
    "optim={epochs: 1, steps: 2, batch_size: 4, average: 0.5}",
]


def write_session(path: Path, rng: np.random.Generator) -> None:
    """A session of one run, in the layout of the competition's files at Graz."""
    n_times = SFREQ * (N_TRIALS * TRIAL_S + 2)
    trials = 1 + SFREQ * (1 + TRIAL_S * np.arange(N_TRIALS))  # counted from 1
    path.parent.mkdir(parents=True, exist_ok=True)
    run = {
        "X": rng.normal(0, 10, (n_times, 25)),  # µV: 22 of EEG and 3 of EOG
        "trial": trials,
        "y": 1 + np.arange(N_TRIALS) % 4,
        "fs": SFREQ,
        "classes": np.array(["left hand", "right hand", "feet", "tongue"], dtype=object),
        "artifacts": np.zeros(N_TRIALS),
        "gender": "male",
        "age": 22,
    }
    savemat(path, {"data": run})


@pytest.fixture
def on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where MOABB looks for the competition's files; no other server is asked."""
    monkeypatch.setenv("MNE_DATA", str(tmp_path))
    monkeypatch.setenv("MOABB_DOWNLOAD_PROVIDER", "upstream")
    return tmp_path / "MNE-bnci-data" / "~bci" / "database" / "001-2014"


def small(output: Path) -> Path:
    """The benchmark of the config, its net tiny, its models those that need no network."""
    raw = yaml.safe_load(CONFIG.read_text())
    kept = [model for model in raw["models"] if model["name"] != "CBraMod"]
    kept[0] |= {"recipe": str(CONFIG.with_name("train_imagery_2a.yaml")), "set": SMALL}
    raw["split"] |= {"train": PEOPLE[:2], "validate": PEOPLE[2:3]}
    raw |= {"models": kept, "seeds": 1, "output": str(output)}
    path = output.with_suffix(".yaml")
    path.write_text(yaml.safe_dump(raw))
    return path


def test_the_benchmark_of_2a_scores_the_people_held_back(
    tmp_path: Path, on_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files in the competition's layout are learned from; whoever is held back is answered, nobody else."""
    monkeypatch.setitem(idle.BOUNDS, "threshold", (0.6,))
    monkeypatch.setattr(report, "draw_all", lambda *_: None)
    rng = np.random.default_rng(0)
    for person in PEOPLE:
        for session in "TE":
            write_session(on_disk / f"A{person[-2:]}{session}.mat", rng)
    done = CliRunner().invoke(app, ["benchmark", str(small(tmp_path / "out")), "--json"])
    assert done.exit_code == 0, done.output
    content: dict[str, Any] = yaml.safe_load((tmp_path / "out" / "benchmark.json").read_text())
    assert not content["missing"]
    (people,) = content["people"]
    assert people["test"] == PEOPLE[3:]
    assert [*people["train"], *people["validate"]] == PEOPLE[:3]
    for row in content["rows"]:
        trials = {name: one["n"] for name, one in row["scores"]["per_subject"].items()}
        assert trials == dict.fromkeys(PEOPLE[3:], 2 * N_TRIALS), row["model"]


def test_without_a_network_it_says_what_was_tried_and_what_to_do(
    on_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The address, that nothing answers, and where the file goes by hand; not a pool's message."""
    address = "https://lampx.tugraz.at/~bci/database/001-2014/A08T.mat"

    on_disk.mkdir(parents=True)

    def unreached(*_: object) -> None:
        asked = requests.Request("GET", address).prepare()
        raise requests.exceptions.ConnectionError("HTTPSConnectionPool(...)", request=asked)

    kind = type(sources._dataset("BNCI2014_001"))
    monkeypatch.setattr(kind, "get_data", unreached)
    (subject,) = find([], [Moabb(dataset="BNCI2014_001", include=(8,))])
    with pytest.raises(RecordingError) as error:
        list(subject.openers())
    message = str(error.value)
    assert "HTTPSConnectionPool" not in message
    for told in ("BNCI2014_001_008", address, "no network", str(on_disk), "by hand"):
        assert told in message


def test_a_page_instead_of_a_recording_is_told(on_disk: Path) -> None:
    """A file that is no recording is a message, not a traceback."""
    on_disk.mkdir(parents=True)
    (on_disk / "A08T.mat").write_text("<html>moved</html>" * 20)
    (subject,) = find([], [Moabb(dataset="BNCI2014_001", include=(8,))])
    with pytest.raises(RecordingError, match="BNCI2014_001_008"):
        list(subject.openers())
