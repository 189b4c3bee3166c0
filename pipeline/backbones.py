"""Load a backbone wherever its weights are."""

import dataclasses
from pathlib import Path
from tempfile import TemporaryDirectory

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
