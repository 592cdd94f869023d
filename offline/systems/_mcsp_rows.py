"""The rows of a step as MCSP sees them: blocks of views, and the unit vectors that towers make of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import permutations, product
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from offline.models.mcsp_branch import DOMAINS, Branch, Domain, Views
from offline.objectives import views
from offline.objectives.contrast import Keys, nearest_is_right
from offline.systems import Segments
from offline.systems._figures import Figures

Modality = Literal["eeg", "fmri"]
MODALITIES: tuple[Modality, ...] = ("eeg", "fmri")
Embedded = dict[tuple[str, str], Keys]  # by modality and domain; all of them, empty where there is no row


class Tower(nn.Module):
    """The encoders of one modality with a projector per domain."""

    def __init__(self, branch: Branch, projection: int) -> None:
        super().__init__()
        self.branch, self.projection = branch, projection
        dim = branch.config.dim
        self.projectors = nn.ModuleDict(
            {d: nn.Sequential(nn.Linear(dim, dim), nn.GELU(), nn.Linear(dim, projection)) for d in DOMAINS}
        )

    def forward(self, domain: Domain, view: Tensor, places: Tensor) -> Tensor:
        """Return the unit vectors (B, projection) of one view, float32."""
        z = self.projectors[domain](self.branch.encode(domain, view, places))
        return F.normalize(z.float(), dim=-1)


class Block(NamedTuple):
    """Rows of one modality on one set of nodes, as views.

    Attributes
    ----------
    nodes : str
        The atlas; empty for electrodes, which are at ``positions``.
    keys : Tensor, shape (B,), int64
        What is random about a row is drawn from its key.
    rows : Tensor, shape (B,), int64
        Which row is which, over everything that is compared.
    """

    modality: Modality
    nodes: str
    views: Views
    positions: Tensor | None
    subjects: Tensor
    keys: Tensor
    rows: Tensor


def tower_of(towers: nn.ModuleDict, modality: str) -> Tower:
    """Return the tower of a modality."""
    tower = towers[modality]
    assert isinstance(tower, Tower)
    return tower


def blocks_of(batch: Segments, towers: nn.ModuleDict) -> list[Block]:
    """Return the segments, which are EEG, and the groups of a step; none for what it lacks."""
    blocks = []
    if len(batch.x):
        keys = batch.keys.to(batch.x.device)
        shown = tower_of(towers, "eeg").branch.views_of_signal(batch.x)
        subjects = keys if batch.subjects is None else batch.subjects  # unknown: each row is somebody else
        blocks.append(Block("eeg", "", shown, batch.positions, subjects, keys, keys))
    for group in batch.groups:
        modality: Modality = "eeg" if group.modality == "eeg" else "fmri"
        branch, keys = tower_of(towers, modality).branch, group.keys.to(group.subjects.device)
        if group.signal is not None:
            shown = branch.views_of_signal(group.signal)
        else:
            assert group.edges is not None, "a group has a signal or edges"
            shown = branch.views_of_edges(group.edges)
        blocks.append(Block(modality, group.nodes, shown, None, group.subjects, keys, keys))
    return blocks


def embedded(
    towers: nn.ModuleDict, blocks: Iterable[Block], augment: views.Config, stream: int | None
) -> Embedded:
    """Return the unit vectors of every view of every row, augmented from a stream or (None) as they are."""
    found: dict[tuple[str, str], list[Keys]] = {(m, d): [] for m in MODALITIES for d in DOMAINS}
    for block in blocks:
        tower = tower_of(towers, block.modality)
        places, hop = tower.branch.places(block.positions, block.nodes), tower.branch.config.hop
        for domain, view in block.views.items():
            if stream is not None:
                view = views.augmented(augment, domain, view, block.keys, stream, hop)
            keys = Keys(tower(domain, view, places), block.subjects, block.rows)
            found[block.modality, domain].append(keys)
    weight = next(towers.parameters())
    nobody = torch.zeros(0, dtype=torch.int64, device=weight.device)
    nothing = Keys(weight.new_zeros(0, tower_of(towers, "eeg").projection), nobody, nobody)
    return {name: _joined([*keys, nothing]) for name, keys in found.items()}


def merged(batches: Sequence[Embedded]) -> Embedded:
    """Return the rows of several batches as one."""
    return {name: _joined([batch[name] for batch in batches]) for name in batches[0]}


def retrieval(seen: Sequence[tuple[Embedded, Embedded]]) -> dict[str, float]:
    """Return how often the nearest key is of the right person, ``retrieval_*``, beside ``chance_*``.

    Parameters
    ----------
    seen : sequence of (queries, keys)
        One for each set of nodes: across domains the keys of a query are those on the same nodes, across
        modalities those of the people who are in both.
    """
    figures = Figures()
    for queries, keys in seen:
        for m, (a, b) in product(MODALITIES, permutations(DOMAINS, 2)):
            _score(figures, f"cross_domain_{m}", queries[m, a], keys[m, b])
    for (queries, _), (_, keys) in product(seen, seen):
        for d, (one, other) in product(DOMAINS, permutations(MODALITIES)):
            _score(figures, f"cross_modal_{d}", queries[one, d], keys[other, d])
    return figures.means()


def _joined(keys: Sequence[Keys]) -> Keys:
    return Keys(*(torch.cat(parts) for parts in zip(*keys, strict=True)))


def _score(figures: Figures, name: str, queries: Keys, keys: Keys) -> None:
    both = torch.isin(keys.subjects, queries.subjects).expand(len(queries.z), -1)
    hits, chance = nearest_is_right(queries.z, queries.subjects, keys, both)
    if len(hits):
        figures.add({f"retrieval_{name}": hits, f"chance_{name}": chance})
