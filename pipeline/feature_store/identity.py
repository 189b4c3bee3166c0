"""What must be alike for a feature to have the same bits, and where such features lie."""

import hashlib
import json
import platform
from collections.abc import Sequence
from importlib import metadata
from typing import Any

import torch

from model.backbone import Backbone
from model.cpu_engine import OPENVINO
from model.errors import ServiceAway
from model.preprocessing import Preprocessing
from pipeline import storage
from pipeline.feature_store.feature_group import FeatureGroup
from pipeline.feature_store.place import StorePlace
from pipeline.feature_store.stored_groups import IMAGES
from pipeline.version import version

DECODERS = ("pillow", "imagecodecs", "tifffile")
LONGEST_NAME = 200  # of a folder; some file systems end at 255


def numeric_identity(backbone: Backbone, size: tuple[int, int]) -> dict[str, str]:
    """Return what decides the bits that weights and pixels come to, besides themselves.

    What computes images may depend on their size.
    """
    engine = backbone.engine(size)
    if engine.startswith(f"{OPENVINO} on"):
        engine += f", release {metadata.version('openvino')}"
    device = backbone.mean.device
    if device.type == "cpu":
        kind = f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}"
    else:
        kind = torch.cuda.get_device_name(device)
    ranges = {} if backbone.config.ranges is None else {"ranges": str(backbone.config.ranges)}
    return ranges | {
        "precision": backbone.config.precision,
        "engine": f"{engine}, torch {torch.__version__}",  # PyTorch pools the maps
        "device": kind,
    }


def reading_identity(preprocessing: Preprocessing) -> dict[str, Any]:
    """Return what decides the pixels that a file's bytes come to."""
    decoders = {name: metadata.version(name) for name in DECODERS}
    return {"preprocessing": preprocessing.to_json(), "release": version(), **decoders}


def open_groups(
    place: StorePlace,
    category: str,
    backbone: Backbone,
    preprocessing: Preprocessing,
    planes: Sequence[str],
) -> list[FeatureGroup]:
    """Return the group of these planes, and those that have further planes of the same images."""
    about = {
        "backbone": backbone.config.name,
        "digest": backbone.digest,
        **numeric_identity(backbone, preprocessing.size),
        **reading_identity(preprocessing),
    }
    identity = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:16]
    folder = f"{category}/{identity}"
    names = [_folder_name(planes), *_with_more(place, folder, planes)]
    about |= {"planes": list(planes)}
    return [FeatureGroup(place, f"{folder}/{name}", about) for name in names]


def _folder_name(planes: Sequence[str]) -> str:
    name = "+".join(sorted(planes))
    return name if len(name) <= LONGEST_NAME else hashlib.sha256(name.encode()).hexdigest()


def _with_more(place: StorePlace, folder: str, planes: Sequence[str]) -> list[str]:
    """Return the names of groups that have these planes and others."""
    try:
        names = storage.list_names(storage.join(place.uri, IMAGES, folder))
    except (storage.StorageError, ServiceAway):  # the group itself says it
        return []
    return [name for name in names if set(name.split("+")) > set(planes)]
