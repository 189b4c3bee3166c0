"""One training of a study: one category under one configuration, on features that lie ready.

No backbone runs here. The head over patches is trained, which is what a study's parameters
concern, and scored on good images and anomalies of the fold that it has not seen.

Shapes: N images, K patches, C channels.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.anomaly_map import anomaly_maps, map_matrix
from model.backbone import STRIDES
from model.feature_bank import FeatureBank
from model.folding import FoldedHead
from model.recipe import BLOCK_IMAGES, NO_MEMBER
from model.rows import PatchRows
from model.training import HeadTrainer, TrainingConfig
from model.zones import Zones
from pipeline import storage
from pipeline.catalogue.catalogue import Category
from pipeline.storage.local import local_path
from pipeline.study.feature_view import about, is_there, masks, open_bank
from pipeline.study.objective import Scored
from pipeline.study.sets import THIN


@dataclass(frozen=True, kw_only=True)
class Split:
    """What one training leaves out, and its random numbers."""

    seed: int
    fold: int
    members: int


class HeadRun:
    """A head over patches on its way from random to trained, scored whenever asked."""

    def __init__(
        self, category: Category, features: str, split: Split, device: str = "cpu"
    ) -> None:
        """Set up a training on the sets of a view."""
        self.category, self.features, self.split, self.device = category, features, split, device
        known = about(storage.join(features, "good"))
        rows, folds = torch.tensor(known["rows"]), torch.tensor(known["folds"])
        self.unseen = rows[folds == split.fold]
        self.bank = open_bank(storage.join(features, "good"), category, device)
        self.config = trial_config(category, split)
        patches = _rows(self.bank, rows[folds != split.fold], self)
        self.trainer = HeadTrainer(patches, self.config, self.bank.device)
        self._running = self.trainer.run()

    @property
    def curve(self) -> list[float]:
        """The loss of every finished pass."""
        return [report.loss for report in self.trainer.reports]

    def train_to(self, share: float) -> None:
        """Train until a share of all passes is done."""
        wanted = max(math.ceil(share * self.config.passes), 1)
        while len(self.trainer.reports) < wanted:
            next(self._running)

    def folded(self) -> FoldedHead:
        """Return the head as it stands, folded for scoring."""
        return self.trainer.folded(self.bank.level_channels)

    def evaluate(self) -> Scored:
        """Score the good images of the fold left out and what they are to be known from."""
        head = self.folded()
        labelled = storage.join(self.features, "labelled")
        if is_there(labelled):
            return evaluate_labelled(head, labelled, self.category, self.device)
        bad = self._anomalous(head)
        good, good_maps = score(head, self.bank, self.unseen, self.category)
        num_good = len(good)
        return Scored(
            scores=np.concatenate([good, bad.scores]),
            anomalous=np.arange(num_good + len(bad.scores)) >= num_good,
            maps=np.concatenate([good_maps, bad.maps]),
            masks=np.concatenate([np.zeros((num_good, *bad.masks.shape[1:]), bool), bad.masks]),
            marked=np.concatenate([np.ones(num_good, bool), bad.marked]),
        )

    def _anomalous(self, head: FoldedHead) -> Scored:
        """Score the confirmed defects or, without enough of them, the fold's made anomalies."""
        confirmed = storage.join(self.features, "confirmed")
        if is_there(confirmed):
            return evaluate_labelled(head, confirmed, self.category, self.device)
        features = storage.join(self.features, "anomalies")
        chosen = np.flatnonzero(np.array(about(features)["folds"]) == self.split.fold)
        bank = open_bank(features, self.category, self.device)
        scores, maps = score(head, bank, torch.from_numpy(chosen), self.category)
        every = np.ones(len(scores), bool)
        marks = masks(features)[chosen]
        return Scored(scores=scores, anomalous=every, maps=maps, masks=marks, marked=every)


def trial_config(category: Category, split: Split) -> TrainingConfig:
    """Return how a trial trains the head over patches."""
    patch: TrainingConfig = category.recipe.patch
    head = replace(patch.head, members=split.members)
    return replace(patch, head=head, seed=split.seed)


def evaluate_labelled(head: FoldedHead, features: str, category: Category, device: str) -> Scored:
    """Score a set of labelled images."""
    known = about(features)
    bank = open_bank(features, category, device)
    scores, maps = score(head, bank, torch.arange(len(known["defective"])), category)
    return Scored(
        scores=scores,
        anomalous=np.array(known["defective"]),
        maps=maps,
        masks=masks(features),
        marked=np.array(known["marked"]),
    )


@torch.inference_mode()
def score(
    head: FoldedHead, bank: FeatureBank, images_N: Tensor, category: Category
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the scores (N,) and thinned anomaly maps (N, h, w) of some images of a bank."""
    size = (edge * STRIDES[category.layers[0]] for edge in bank.grid)
    matrices = map(map_matrix, bank.grid, size)
    rows, columns = (matrix[THIN // 2 :: THIN].to(bank.device) for matrix in matrices)
    scores, maps = [], []
    for index in images_N.split(BLOCK_IMAGES):
        patch_scores = head(bank.images(index))
        scores.append(bank.zones.highest(patch_scores).cpu().numpy())
        filled = bank.zones.filled(patch_scores)
        maps.append(anomaly_maps(filled, rows, columns).cpu().numpy())
    return np.concatenate(scores), np.concatenate(maps)


def _rows(bank: FeatureBank, images: Tensor, run: HeadRun) -> PatchRows:
    """Return what a head is trained on; a coreset is chosen once for all trials that share it."""
    config = run.config
    if not config.coreset:
        return PatchRows(bank, images, torch.full_like(images, NO_MEMBER), config)
    path = _coreset_path(run, bank.zones)
    if path is not None and path.exists():
        coreset = torch.from_numpy(np.load(path, mmap_mode="c"))
        return PatchRows.of_coreset(bank, images, coreset, config.head.members)
    rows = PatchRows(bank, images, torch.full_like(images, NO_MEMBER), config)
    if path is not None and rows.coreset_KC is not None:
        _write_array(path, rows.coreset_KC.cpu().numpy())
    return rows


def _coreset_path(run: HeadRun, zones: Zones) -> Path | None:
    """Return where the coreset of these features, images and seed lies; None on object storage."""
    if not storage.is_local(run.features):
        return None
    category = run.category
    fold, ignored = run.split.fold, zones.ignored
    identity: Sequence[Any] = [category.embedding, category.layers, fold, ignored]
    name = sha256(repr([*identity, run.config.seed, run.config.coreset]).encode()).hexdigest()[:16]
    return Path(local_path(run.features)) / "coresets" / f"{name}.npy"


def _write_array(path: Path, array: NDArray[np.generic]) -> None:
    """Write a file that other processes see whole or not at all."""
    path.parent.mkdir(exist_ok=True)
    with NamedTemporaryFile(dir=path.parent, delete=False) as file:
        np.save(file, array)
    Path(file.name).rename(path)
