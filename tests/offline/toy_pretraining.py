"""A system small enough to pretrain in a second; run as a script, it pretrains on the folders it is given."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from offline.blocks.ranks import place, summed
from offline.systems import Moment, Segments, System, SystemConfig

HOP = 10


class ToyConfig(SystemConfig):
    """A linear autoencoder of hops, with dropout where asked for and a running mean of its codes."""

    kind: Literal["toy"] = "toy"
    dim: int = 4
    dropout: float = 0.0

    def build(self, sfreq: float) -> Toy:
        return Toy(self)


class Toy(System):
    def __init__(self, config: ToyConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder, self.decoder = nn.Linear(HOP, config.dim), nn.Linear(config.dim, HOP)
        self.dropout = nn.Dropout(config.dropout)
        self.register_buffer("mean", torch.zeros(config.dim))
        self.begin_validation()

    def _errors(self, x: Tensor) -> tuple[Tensor, Tensor]:
        hops = (x / 50).unflatten(-1, (-1, HOP))  # (B, C, F, HOP)
        z = self.encoder(hops)
        return (self.decoder(self.dropout(z)) - hops).square().mean((1, 2, 3)), z

    def loss(self, batch: Segments, at: Moment) -> tuple[Tensor, dict[str, Tensor]]:
        if os.environ.get("TOY_DIES_AT") == str(at.step):
            os.kill(os.getpid(), signal.SIGKILL)
        noise = torch.stack([torch.from_numpy(batch.rng(row).normal(0, 1, 1)) for row in range(len(batch.x))])
        errors, z = self._errors(batch.x + noise[:, :, None].to(batch.x) + float(at.rng().normal()))
        with torch.no_grad():  # over ranks, as a codebook that follows a running mean would
            self.mean.lerp_(summed(z.float().mean((0, 1, 2))) / place()[1], 0.1)
        return errors.mean(), {"size": z.detach().abs().mean()}

    def begin_validation(self) -> None:
        self._errors_seen: list[Tensor] = []

    def validate(self, batch: Segments) -> None:
        assert not self.training
        self._errors_seen.append(self._errors(batch.x)[0])

    def end_validation(self) -> dict[str, float]:
        errors = torch.cat(self._errors_seen)
        return {"loss": float(errors.mean()), "segments": float(len(errors))}

    def parts(self) -> dict[str, nn.Module]:
        part = nn.Identity()
        part.hop = HOP  # type: ignore[assignment]
        return {"backbone": part}


def toy_recipe(shards: Path, output: Path, *, system: Any = None, **changes: Any) -> Any:
    """Return a recipe of 3 epochs of 4 steps; ``changes`` are of ``optim``, or of ``data`` by its keys."""
    from offline.pretrain.recipe import Data, parse

    data = {"shards": [str(shards)], "validate": ["A3"], "crop_s": 1.0, "validate_segments": 16}
    names = {field.alias or name for name, field in Data.model_fields.items()}
    data |= {key: changes.pop(key) for key in list(changes) if key in names}
    return parse(
        {
            "card": {"name": "toy", "version": "0.1", "title": "A toy"},
            "system": system or ToyConfig(),
            "data": data,
            "optim": {"steps": 12, "batch_size": 8, "lr": 1e-2, "warmup_steps": 2} | changes,
            "steps_per_epoch": 4,
            "seed": 3,
            "output": output,
        }
    )


if __name__ == "__main__":
    from offline.pretrain.pretrain import pretrain

    shards, output, settings = Path(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3])
    toy = ToyConfig(**settings.pop("system", {}))
    pretrain(toy_recipe(shards, output, system=toy, **settings), progress=False)
