"""Load a backbone wherever its weights are, and say where it computes."""

import dataclasses
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from model.backbone import Backbone, BackboneConfig
from pipeline import storage


def fetch_backbone(config: BackboneConfig) -> Backbone:
    """Load a frozen backbone; weights on object storage are fetched first.

    Raises:
        WeightsError, StorageError: there are none, or they are of another network.
    """
    if config.weights is None or "://" not in config.weights:
        return Backbone(config)
    with TemporaryDirectory(prefix="nightshift-weights-") as folder:
        path = Path(folder) / config.weights.rsplit("/", 1)[-1]
        path.write_bytes(storage.read_bytes(config.weights))
        return Backbone(dataclasses.replace(config, weights=str(path)))


def own_device() -> str:
    """Return where this process computes: on the GPU that it was given, or on the CPU."""
    return "cuda" if torch.cuda.is_available() else "cpu"
