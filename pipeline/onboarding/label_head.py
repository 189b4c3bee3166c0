"""The head that learns from labels: where there is one, and what a person should know of it."""

import numpy as np
import torch
from numpy.typing import NDArray

from model.kind import Trainer, TrainingSet
from model.label_training import LEAST_DEFECTS, LabelTrainer
from model.tiled_bank import TiledBank
from pipeline.calibration import Part, fold_by_content
from pipeline.onboarding.features import GoodImages
from pipeline.onboarding.labelled_images import Defects


def with_label_head(
    trainer: Trainer, good: GoodImages, parts: NDArray[np.int8], defects: Defects
) -> Trainer:
    """Return a trainer that learns from confirmed defects too, where there are enough of them."""
    members = trainer.recipe.members
    if defects.bank is None or defects.num_bursts < LEAST_DEFECTS or members < 2:
        return trainer
    if isinstance(good.bank, TiledBank):  # a defect is in some tiles, and labels do not say which
        return trainer
    train = np.flatnonzero(parts == Part.TRAIN)
    hashes, bursts = ([of[index] for index in train] for of in (good.hashes, good.bursts))
    training_set = TrainingSet(
        bank=good.bank,
        images=torch.from_numpy(train),
        folds=torch.from_numpy(fold_by_content(hashes, members, bursts)),
    )
    bank = defects.bank.first(len(defects.uris))
    return LabelTrainer(trainer, training_set, bank, defects.bursts)


def is_tried(trainer: Trainer) -> bool:
    """Whether confirmed defects decide anything about a trainer's heads."""
    return isinstance(trainer, LabelTrainer)


def say(trainer: Trainer, defects: Defects) -> list[str]:
    """Return what a person should know of a finished trainer's head."""
    num_defects = len(defects.uris)
    if not num_defects:
        return []
    if not isinstance(trainer, LabelTrainer) or trainer.choice is None:
        what = (
            f"it takes {LEAST_DEFECTS} of different parts that may be learned from, and these are "
            f"of {defects.num_bursts}"
            if defects.num_bursts < LEAST_DEFECTS
            else "this detector has tiles, or no members that leave images out, which it takes"
        )
        return [f"labels: no head learns from {num_defects} confirmed defects: {what}"]
    choice = trainer.choice
    shown = f"with it, defects that it had not seen rank by {choice.t:.1f} standard errors"
    if choice.is_taken:
        return [
            f"labels: a head learned from {choice.num_defects} confirmed defects; {shown} higher "
            f"among the good images"
        ]
    return [
        f"labels: the head that learned from {choice.num_defects} confirmed defects is left out: "
        f"{shown} higher among the good images, which may be chance"
    ]
