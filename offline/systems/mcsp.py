"""MCSP: contrast across domains, across modalities, and distillation from fMRI to EEG (arXiv:2409.19130).

Of the paper the abstract is known; what follows is a design after it.  Each modality is seen in up to three
domains (`offline.models.mcsp_branch`); a view of a row becomes a unit vector, by an encoder and a projector
per modality and domain.  With InfoNCE over people (`offline.objectives.contrast`),

    loss = sum over modalities (within * L_W + cross_domain * L_CD)
         + sum over domains (cross_modal * L_CM + distill * L_KD)

L_CD: a row's view in one domain finds the same row's in another, the mean over pairs of domains.  L_CM: a
person's EEG finds the same person's fMRI in that domain, and the other way round; only paired people have
it.  L_KD: the EEG branch relates people to each other as the fMRI branch does.  L_W is ours: a row finds
itself, augmented differently, in the same domain.  Where only connectivity is known there is one domain, and
without it such rows would teach nothing unless they are paired.

What a step lacks (a domain, pairs, segments) costs it the terms that need it and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from copy import deepcopy
from itertools import permutations
from typing import Annotated, Any, Literal

import torch
from pydantic import BeforeValidator, Field, NonNegativeFloat, PositiveFloat, PositiveInt
from torch import Tensor, nn

from offline.data.subjects import SubjectSet
from offline.models import mcsp as nets
from offline.models.mcsp_branch import DOMAINS, EEG, FMRI, Branch, BranchConfig, Views
from offline.objectives import views
from offline.objectives.contrast import Keys, Queue, Term, infonce, relations, same_person, same_row
from offline.systems import Moment, Segments, System, SystemConfig
from offline.systems._mcsp_rows import (
    MODALITIES,
    Block,
    Embedded,
    Modality,
    Tower,
    blocks_of,
    embedded,
    merged,
    retrieval,
    tower_of,
)
from streamer.errors import ConfigError

QUERY, KEY = 1, 2  # streams of the two augmentations


def _fmri(raw: Any) -> Any:
    """Return settings of the fMRI branch: what is not said is as in `offline.models.mcsp_branch.FMRI`."""
    return FMRI.model_dump() | dict(raw) if isinstance(raw, Mapping) else raw


class Config(SystemConfig):
    """Settings.

    Attributes
    ----------
    eeg, fmri : BranchConfig
        The encoders.  ``eeg.sfreq`` is that of the shards, ``fmri.sfreq`` one over the tables' ``tr_s``.
    within, cross_domain, cross_modal, distill : float
        Weights of the terms; 0 leaves one out.
    temperature, distill_temperature : float
        What cosines are divided by, in the contrast and in the distillation.
    projection : int
        Dimensions in which views are compared.
    queue : int
        Keys of past steps that are kept, for each modality and domain.
    momentum : float
        Of the slow copy of encoders and projectors that makes the keys: what is kept of it at each step.
    augment : views.Config
    """

    kind: Literal["mcsp"] = "mcsp"
    eeg: BranchConfig = EEG
    fmri: Annotated[BranchConfig, BeforeValidator(_fmri)] = FMRI
    within: NonNegativeFloat = 1.0
    cross_domain: NonNegativeFloat = 1.0
    cross_modal: NonNegativeFloat = 1.0
    distill: NonNegativeFloat = 1.0
    temperature: PositiveFloat = 0.2
    distill_temperature: PositiveFloat = 0.1
    projection: PositiveInt = 64
    queue: PositiveInt = 1024
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.99
    augment: views.Config = views.Config()

    def build(self, sfreq: float) -> MCSP:
        """Return the system; `ConfigError` where the EEG branch is made for another rate."""
        if self.eeg.sfreq != sfreq:
            raise ConfigError(
                f"system.eeg is made for {self.eeg.sfreq:g} Hz, the data have {sfreq:g} Hz: set "
                "system.eeg.sfreq, and its hop and window with it, or prepare shards at its rate."
            )
        return MCSP(self)

    def check_people(self, people: SubjectSet | None) -> None:
        """Raise `ConfigError` where pairs are asked for and missing, or a branch does not fit the tables."""
        if (self.cross_modal or self.distill) and not (people and people.paired):
            raise ConfigError(
                "Nobody who is trained on has both EEG and fMRI (in data.tables, or EEG in data.shards under "
                "the name of the fMRI), and system.cross_modal and system.distill learn from pairs: add "
                "some, or set both to 0."
            )
        tr_s = people.tr_s if people else None
        if tr_s is not None and abs(self.fmri.sfreq * tr_s - 1) > 1e-6:
            raise ConfigError(
                f"data.tables have a volume every {tr_s:g} s, system.fmri is made for one every "
                f"{1 / self.fmri.sfreq:g} s: set the tables' tr_s, or system.fmri.sfreq to {1 / tr_s:g}."
            )
        for modality, nodes, n in people.atlases if people else ():
            known = (self.eeg if modality == "eeg" else self.fmri).nodes
            if known.get(nodes) != n:
                raise ConfigError(
                    f"data.tables have {modality} on the {n} regions of {nodes}, system.{modality}.nodes are "
                    f"{known or 'none'}: set {nodes} to {n} there."
                )


class MCSP(System):
    """Encoders and projectors, their slow copy, and a queue of its keys for each modality and domain."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        branches = {"eeg": config.eeg.build(), "fmri": config.fmri.build()}
        self.towers = nn.ModuleDict({m: Tower(branches[m], config.projection) for m in MODALITIES})
        self.slow = deepcopy(self.towers).requires_grad_(False).eval()
        self.queues = nn.ModuleDict(
            {f"{m}_{d}": Queue(config.queue, config.projection) for m in MODALITIES for d in DOMAINS}
        )
        self.begin_validation()

    @property
    def eeg(self) -> Branch:
        """Return the encoders of EEG."""
        return tower_of(self.towers, "eeg").branch

    @property
    def fmri(self) -> Branch:
        """Return the encoders of fMRI."""
        return tower_of(self.towers, "fmri").branch

    def embed(self, modality: Modality, shown: Views, places: Tensor) -> Tensor:
        """Return the embeddings (B, n dim) of a recording, of each of the n domains that its views have."""
        branch = tower_of(self.towers, modality).branch
        return torch.cat([branch.encode(d, shown[d], places) for d in DOMAINS if d in shown], dim=-1)

    def train(self, mode: bool = True) -> MCSP:
        """Set the mode; the slow copy, whose keys are targets, always stays without dropout."""
        super().train(mode)
        self.slow.eval()
        return self

    def loss(self, batch: Segments, at: Moment) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss and its terms; in training, move the slow copy and put its keys into the queues."""
        blocks = blocks_of(batch, self.towers)
        queries, keys = self._both(blocks, (QUERY, KEY))
        keys = {name: each.everywhere() for name, each in keys.items()}
        terms = self._terms(queries, {name: each.and_past(self._queue(*name)) for name, each in keys.items()})
        total = self._weighed(terms) + 0.0 * _touched(self.towers)
        if self.training:
            self._remember(keys)
        there = torch.stack([term.n for term in terms.values()]).tolist()
        logs = {
            f"loss_{name}": term.loss.detach()
            for (name, term), n in zip(terms.items(), there, strict=True)
            if n
        }
        return total, logs

    def begin_validation(self) -> None:
        """Forget the embeddings collected so far."""
        self._augmented: list[tuple[Embedded, Embedded]] = []
        self._plain: dict[str, list[tuple[Embedded, Embedded]]] = {}
        self._n_rows = 0

    def validate(self, batch: Segments) -> None:
        """Collect embeddings, augmented for the loss and as they are for retrieval."""
        for block in blocks_of(batch, self.towers):
            n = len(block.rows)
            rows = torch.arange(self._n_rows, self._n_rows + n, device=block.subjects.device)
            self._n_rows += n
            numbered = [block._replace(rows=rows)]
            self._augmented.append(self._both(numbered, (QUERY, KEY)))
            self._plain.setdefault(block.nodes, []).append(self._both(numbered, (None, None)))

    def end_validation(self) -> dict[str, float]:
        """Return losses with all that is held out as keys, and how often the nearest key is the right person.

        ``retrieval_*`` beside ``chance_*``: across domains among the rows on the same nodes, across
        modalities among the paired people.
        """
        queries, keys = (merged(each) for each in zip(*self._augmented, strict=True))
        terms = self._terms(queries, keys)
        seen = [
            (merged([q for q, _ in parts]), merged([k for _, k in parts])) for parts in self._plain.values()
        ]
        losses = {f"loss_{name}": float(term.loss) for name, term in terms.items() if term.n}
        return {"loss": float(self._weighed(terms)), **losses, **retrieval(seen)}

    def parts(self) -> dict[str, nn.Module]:
        """Return ``backbone``: the EEG branch at the default montage, without the projectors."""
        return {"backbone": nets.Net(nets.Config(branch=self.config.eeg), self.eeg).eval()}

    def _both(
        self, blocks: Iterable[Block], streams: tuple[int | None, int | None]
    ) -> tuple[Embedded, Embedded]:
        """Return queries, and keys by the slow copy, augmented from these streams or (None) not at all."""
        augment = self.config.augment
        queries = embedded(self.towers, blocks, augment, streams[0])
        with torch.no_grad():
            return queries, embedded(self.slow, blocks, augment, streams[1])

    def _terms(self, queries: Embedded, keys: Embedded) -> dict[str, Term]:
        """Return the terms of the loss whose weights are not 0."""
        c, terms = self.config, dict[str, Term]()
        for m in MODALITIES:
            if c.within:
                found = [self._found(queries[m, d], keys[m, d], across=False) for d in DOMAINS]
                terms[f"within_{m}"] = Term.mean(found)
            if c.cross_domain:
                pairs = permutations(DOMAINS, 2)
                found = [self._found(queries[m, a], keys[m, b], across=False) for a, b in pairs]
                terms[f"cross_domain_{m}"] = Term.mean(found)
        for d in DOMAINS:
            eeg, fmri = ("eeg", d), ("fmri", d)
            if c.cross_modal:
                found = [self._found(queries[a], keys[b], across=True) for a, b in ((eeg, fmri), (fmri, eeg))]
                terms[f"cross_modal_{d}"] = Term.mean(found)
            if c.distill:
                students = queries[eeg]
                terms[f"distill_{d}"] = relations(
                    students.z, students.subjects, keys[eeg], keys[fmri], c.distill_temperature
                )
        return terms

    def _found(self, queries: Keys, keys: Keys, *, across: bool) -> Term:
        """Return how well queries find the same person (across modalities) or the same row among the keys."""
        wanted = same_person(queries.subjects, keys) if across else same_row(queries.rows, keys)
        return infonce(queries.z, queries.subjects, keys, wanted, self.config.temperature)

    def _weighed(self, terms: Mapping[str, Term]) -> Tensor:
        c = self.config
        weights = {"within": c.within, "cross_domain": c.cross_domain}
        weights |= {"cross_modal": c.cross_modal, "distill": c.distill}
        zero = self._queue("eeg", "spatial").keys.new_zeros(())
        return sum((weights[name.rpartition("_")[0]] * term.loss for name, term in terms.items()), zero)

    @torch.no_grad()
    def _remember(self, keys: Embedded) -> None:
        """Put keys into the queues, in an order that does not depend on processes; move the slow copy."""
        for name, each in keys.items():
            order = each.rows.argsort()
            self._queue(*name).put(each.z[order], each.subjects[order])
        for slow, fast in zip(self.slow.parameters(), self.towers.parameters(), strict=True):
            slow.lerp_(fast, 1 - self.config.momentum)

    def _queue(self, modality: str, domain: str) -> Queue:
        queue = self.queues[f"{modality}_{domain}"]
        assert isinstance(queue, Queue)
        return queue


def _touched(towers: nn.Module) -> Tensor:
    """Return a sum in which every weight has a part.

    Several processes wait for the gradient of every weight, and a step need not use them all.
    """
    return torch.stack([weight.sum() for weight in towers.parameters()]).sum()
