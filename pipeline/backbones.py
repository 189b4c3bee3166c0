"""Load a backbone wherever its weights are, and say where it computes."""

import copy
import dataclasses
from collections.abc import Callable
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


Fetch = Callable[[BackboneConfig], Backbone]


class LoadedBackbone:
    """Loads backbones, and keeps the last one for whoever asks for the same next.

    The weights are taken to be the same as long as their place is: for a process that does one
    command's work.
    """

    def __init__(self, device: str = "cpu") -> None:
        """Take the device on which backbones compute."""
        self._device = device
        self._loaded: Backbone | None = None
        self._config: BackboneConfig | None = None

    def __call__(self, config: BackboneConfig) -> Backbone:
        """Return the backbone, which has seen no image yet.

        Raises:
            WeightsError, StorageError: as ``fetch_backbone``.
        """
        if self._loaded is None or config != self._config:
            self._loaded, self._config = None, None  # before the next one needs its memory
            self._loaded, self._config = fetch_backbone(config).to(self._device), config
        again = copy.copy(self._loaded)  # the same parameters
        again.num_images_seen = 0
        return again


def own_device() -> str:
    """Return where this process computes: on the GPU that it was given, or on the CPU."""
    return "cuda" if torch.cuda.is_available() else "cpu"
