"""The kinds of detectors. A new one is a module with a ``Kind`` and a line here."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from model.ensemble import ENSEMBLE
from model.kind import Heads, Kind, Trainer, TrainingSet
from model.memory_bank import MEMORY_BANK
from model.realnet.realnet import REALNET
from model.recipe import SIMPLENET
from model.tiled_bank import TiledBank
from model.tiled_heads import read_tiled
from model.tiled_training import TiledTrainer
from model.tiles import Tiles

KINDS: dict[str, Kind] = {
    "simplenet": SIMPLENET,
    "memory_bank": MEMORY_BANK,
    "ensemble": ENSEMBLE,
    "realnet": REALNET,
}


def make_trainer(detector: str, training_set: TrainingSet, recipe: Any) -> Trainer:
    """Return the trainer of a kind; where images are cut into tiles, of each of their groups."""
    kind = KINDS[detector]
    if isinstance(training_set.bank, TiledBank):
        return TiledTrainer(training_set, recipe, kind)
    return kind.make_trainer(training_set, recipe)


def read_heads(
    detector: str, tiles: Tiles | None, tensors: Mapping[str, Tensor], channels: Sequence[int]
) -> Heads:
    """Return the heads of a file's tensors; raises as the kind's own ``read_heads`` does."""
    kind = KINDS[detector]
    if tiles is not None:
        return read_tiled(kind, tiles, tensors, channels)
    return kind.read_heads(tensors, channels)
