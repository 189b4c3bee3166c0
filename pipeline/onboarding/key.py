"""What identifies an onboarding: its settings and its files.

A key must outlive releases: where it changes, a whole fleet is onboarded again.
"""

import hashlib
import json
from collections.abc import Collection
from typing import Any

from pydantic import BaseModel

from pipeline import storage
from pipeline.catalogue.catalogue import Category

# Raised only where every category must be onboarded again; a new detector format is no reason as
# long as the earlier ones can be read.
KEY_VERSION = 3

# These settings are in every key. Later ones are only where they are not at their default: a new
# setting leaves the keys of those who do not use it as they were. A setting that went stays as if
# nobody had set it.
SETTINGS = """
backbone weights layers precision patch_size embedding_kind resize crop fit false_alarm_rate
calibration_share calibration fdr cache_gb cache_disk_gb preset name images layout
"""
TRAINING = """
sigma sigma_unit margins loss passes steps_per_pass batch_rows hidden members adaptor seed
image_head health
"""
FIRST_SETTINGS, FIRST_TRAINING = frozenset(SETTINGS.split()), frozenset(TRAINING.split())
GONE_TRAINING = {"kept": None}


def onboarding_key(category: Category) -> str:
    """Return what identifies an onboarding: its settings and the names and etags of its files.

    The same catalogue entry over the same files has the same key, so that a job that is started
    again finds what it began, and finds a finished one done.
    """
    training = GONE_TRAINING | _that_count(category.training, FIRST_TRAINING)
    settings = _that_count(category, FIRST_SETTINGS) | {"training": training}
    total = hashlib.sha256(json.dumps([KEY_VERSION, settings], sort_keys=True).encode())
    if category.layout == "manifest":
        total.update(storage.read_bytes(category.images))
    else:
        listed = sorted((item.uri, item.etag) for item in storage.list_objects(category.images))
        total.update(json.dumps(listed).encode())
    return total.hexdigest()


def _that_count(settings: BaseModel, first: Collection[str]) -> dict[str, Any]:
    """Return the values of the first settings and of those that differ from their default."""
    names = {*first, *settings.model_dump(exclude_defaults=True)}
    return settings.model_dump(include=names)
