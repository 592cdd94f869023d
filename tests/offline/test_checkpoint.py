"""Training states on disk."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("lightning")

from offline.checkpoint import load, save  # noqa: E402
from streamer.errors import ConfigError  # noqa: E402


def trained() -> tuple[Any, Any]:
    """A net with a tied weight and its optimiser after one step."""
    net = torch.nn.Sequential(torch.nn.Linear(3, 3, bias=False), torch.nn.Linear(3, 3))
    net[1].weight = net[0].weight
    optimizer = torch.optim.AdamW(net.parameters(), betas=(0.8, 0.9))
    net(torch.ones(2, 3)).sum().backward()
    optimizer.step()
    return net, optimizer


def same(a: Any, b: Any) -> bool:
    """Equal in structure, types, tensor types and bits."""
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a.cpu(), b)
    if isinstance(a, dict):
        return isinstance(b, dict) and list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and a == b


def test_a_state_reads_back_exactly(tmp_path: Path) -> None:
    """Optimiser, nested Python structure and every tensor type come back as they were, key types too."""
    net, optimizer = trained()
    state = {
        "state_dict": net.state_dict(),
        "optimizer_states": [optimizer.state_dict()],
        "loops": {"a.b": {"c": 1}, "a": {"b.c": 2.5, "none": None, "yes": True, "0": "zero", 0: "null"}},
        "nested": ([1, (2, 3), []], {}, (), float("inf"), 1e-45, 2**70),
        "tensors": [
            torch.tensor(3),
            torch.zeros(0, 2),
            torch.tensor([True, False]),
            torch.arange(6.0).reshape(2, 3).T,
            torch.tensor([0.1], dtype=torch.bfloat16),
            torch.tensor([2**60]),
            torch.tensor([0.1], dtype=torch.float64),
        ],
    }
    save(state, tmp_path / "new" / "state.safetensors")
    assert same(state, load(tmp_path / "new" / "state.safetensors"))


def test_an_optimiser_goes_on_from_a_file(tmp_path: Path) -> None:
    """The next step of an optimiser that was stored equals that of the one that was not."""
    (net, optimizer), (other, restored) = trained(), trained()
    save([net.state_dict(), optimizer.state_dict()], tmp_path / "state")
    weights, state = load(tmp_path / "state")
    other.load_state_dict(weights)
    restored.load_state_dict(state)
    for some, its in ((net, optimizer), (other, restored)):
        its.zero_grad()
        some(torch.full((1, 3), 0.3)).square().sum().backward()
        its.step()
    assert same(dict(net.state_dict()), dict(other.state_dict()))


def flip(content: bytes) -> bytes:
    return content[:-3] + bytes([content[-3] ^ 1]) + content[-2:]


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda content: content[: len(content) // 2], "cannot be read"),
        (lambda content: b"", "cannot be read"),
        (flip, "damaged"),
        (lambda content: content.replace(b"lr", b"rl", 1), "damaged"),
    ],
    ids=["half", "empty", "bit of a tensor", "name"],
)
def test_a_damaged_file_is_refused(damage: Callable[[bytes], bytes], said: str, tmp_path: Path) -> None:
    """Cut short, emptied, or with a single bit changed, a checkpoint is refused by name."""
    path = tmp_path / "last.safetensors"
    save({"optimizer": trained()[1].state_dict()}, path)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ConfigError, match=rf"last\.safetensors.*{said}"):
        load(path)


def test_what_cannot_be_stored_is_named_and_leaves_the_old_file(tmp_path: Path) -> None:
    """An object of any other type is refused with its path; the previous checkpoint stays, and no litter."""
    path = tmp_path / "last.safetensors"
    save({"step": 1}, path)
    with pytest.raises(ConfigError, match=r"callbacks\.0\.when is a Path|callbacks\.0\.when is a Posix"):
        save({"step": 2, "callbacks": [{"when": Path("x")}]}, path)
    assert load(path) == {"step": 1}
    assert [entry.name for entry in tmp_path.iterdir()] == ["last.safetensors"]


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the disk is full halfway, the previous checkpoint is still there and whole."""
    path = tmp_path / "last.safetensors"
    save({"step": 1}, path)

    def full(tensors: Any, name: Path, metadata: Any) -> None:
        name.write_bytes(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr("offline.checkpoint.save_file", full)
    with pytest.raises(OSError, match="No space"):
        save({"step": 2}, path)
    monkeypatch.undo()
    assert load(path) == {"step": 1}
    assert [entry.name for entry in tmp_path.iterdir()] == ["last.safetensors"]
