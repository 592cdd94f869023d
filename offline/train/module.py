"""The training of one model in Lightning's terms."""

from __future__ import annotations

from typing import Any

import lightning as L
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from offline.resume import changed_settings, check_unchanged
from offline.train.augment import Augmenter
from offline.train.batches import Batch, Batches, Plan
from offline.train.data import Material
from offline.train.recipe import Recipe
from offline.train.validate import Rows, collected, scores, step_through
from streamer.errors import ConfigError


def make_batches(recipe: Recipe, material: Material) -> Batches:
    """Return what a recipe trains on."""
    plan = Plan(
        sfreq=recipe.sfreq,
        hop=recipe.model.hop,
        n_classes=len(recipe.classes),
        batch_size=recipe.optim.batch_size,
        seed=recipe.seed,
        epoch_steps=recipe.optim.epoch_steps,
        augment=Augmenter(recipe.augment, recipe.ch_names, recipe.classes),
    )
    batches: Batches = recipe.cut.batches(material.train.prepared, plan)
    return batches


class Loaders(L.LightningDataModule):  # type: ignore[misc]
    """What is trained and validated on; apart from the module, of which Lightning makes a copy to average.

    Attributes
    ----------
    batches : Batches
    held_out : Side
    fingerprints : list of list of str
        Of the recordings that are trained and validated on.
    """

    def __init__(self, recipe: Recipe, material: Material) -> None:
        super().__init__()
        self.batches = make_batches(recipe, material)
        self.held_out, self._hop = material.validate, recipe.model.hop
        self.fingerprints = [list(side.fingerprints) for side in (material.train, material.validate)]

    def train_dataloader(self) -> DataLoader[Batch]:
        """Return the training loader; the module tells its data set which epoch it is."""
        return _loader(self.batches)

    def val_dataloader(self) -> DataLoader[Any]:
        """Return the loader of whole validation recordings."""
        return _loader(Rows(self.held_out.prepared, self._hop))


class Learning(L.LightningModule):  # type: ignore[misc]
    """The model, its loss and its optimiser; the trainer's data module is `Loaders`."""

    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        self.recipe = recipe
        self.model = recipe.model.build()
        self._seen: list[tuple[Tensor, Tensor]] = []

    def on_train_epoch_start(self) -> None:
        """Draw batches and dropout by the epoch, so that a resumed training goes on as it would have."""
        self._batches.begin(self.current_epoch)
        torch.manual_seed(self.recipe.seed * 100_003 + self.current_epoch)

    def training_step(self, batch: Batch, _index: int) -> Tensor:
        """Return the loss of one batch."""
        value, members = self._batches.loss(self.model, batch)
        value = value / members
        self.log("train_loss", value, on_step=False, on_epoch=True, prog_bar=True, batch_size=len(batch[0]))
        return value * members  # the gradient of each member is what it would be alone

    def validation_step(self, batch: tuple[Tensor, Tensor], _index: int) -> None:
        """Step recordings from their first sample."""
        places, x = batch
        self._seen.append((places.cpu(), step_through(self.model, x)))

    def on_validation_epoch_end(self) -> None:
        """Log the scores; see `offline.train.validate.scores`."""
        side = self.trainer.datamodule.held_out
        logits = collected(self._seen, side.prepared, self.recipe.model.hop)
        self._seen.clear()
        for name, value in scores(logits, side, self.recipe, self.model.left_context)[0].items():
            self.log(name, value, prog_bar=name == "val_balanced_accuracy")

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what the training is of."""
        checkpoint["training"] = {
            "course": self.recipe.course(),
            "fingerprints": self.trainer.datamodule.fingerprints,
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse to go on with another training."""
        kept = checkpoint.get("training")
        if kept is None:
            raise ConfigError(
                f"{self.recipe.output} was begun by an earlier version, which cannot be gone on with: remove "
                "the folder and train anew."
            )
        changed = changed_settings(kept["course"], self.recipe.course())
        if kept["fingerprints"] != self.trainer.datamodule.fingerprints:
            changed.append("the recordings in data")
        check_unchanged(self.recipe.output, changed)

    def configure_optimizers(self) -> dict[str, Any]:
        """Return AdamW and one cycle of the learning rate."""
        optim = self.recipe.optim
        chosen = [weight for weight in self.parameters() if weight.requires_grad]
        optimizer = torch.optim.AdamW(chosen, lr=optim.lr, weight_decay=optim.weight_decay)
        steps = optim.epochs * len(self._batches)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, optim.lr, steps, pct_start=0.2)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    @property
    def _batches(self) -> Batches:
        batches: Batches = self.trainer.datamodule.batches
        return batches


def _loader(items: Any) -> DataLoader[Any]:
    """Return a loader with a generator of its own: else it draws from the one that dropout draws from."""
    return DataLoader(items, batch_size=None, generator=torch.Generator())
