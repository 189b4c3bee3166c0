"""What identifies an onboarding: its settings and its files.

A key must outlive releases: where it changes, a whole fleet is onboarded again.
"""

import hashlib
import json
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel

from pipeline import storage
from pipeline.catalogue.catalogue import Category
from pipeline.datasets.image_lists import read_columns, refuse_missing, resolve_uris
from pipeline.datasets.labelled_lists import COLUMNS
from pipeline.labels.told import Told, told_in
from pipeline.onboarding.listed_images import excluded_uris

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
# By what they come to for this category: a file of `exclude` and a table of labels are of many.
COUNTED_OTHERWISE = {"exclude", "labels"}
WITHOUT_EFFECT = {"promote", "results"}  # on what is onboarded


@dataclass(frozen=True)
class Identity:
    """What an onboarding is known by, and how large it is beside others."""

    key: str
    num_files: int  # of images and masks; rows of a manifest
    earlier_keys: tuple[str, ...] = ()  # of the same under each name that the category had before
    told: tuple[Told, ...] = ()  # by labels, which are in the key


def onboarding_key(category: Category) -> str:
    """Return what identifies an onboarding: its settings and the names and etags of its files."""
    return identify(category).key


def identify(
    category: Category, earlier_names: Sequence[str] = (), told: Sequence[Told] | None = None
) -> Identity:
    """Look at an onboarding's settings and at the names and etags of its files.

    A manifest may give the etags of its images, which are believed; the others, and those of the
    masks, are asked of the storage.

    The same catalogue entry over the same files has the same key, so that a job that is started
    again finds what it began, and finds a finished one done.
    """
    files = files_of(category)
    mask = category.zones.ignore
    parts = [] if category.anomalies is None else [_listed(category.anomalies).parts[0]]
    if isinstance(mask, str):
        parts.append(json.dumps(["ignore", _etags_of([mask])[mask]]).encode())
    if excluded := _excluded_of(category):
        parts.append(json.dumps(["exclude", excluded]).encode())
    told = told_in(category) if told is None else told
    if learned := [each.identity for each in told]:
        parts.append(json.dumps(["labels", learned]).encode())
    parts += files.parts
    keys = [_key(category, name, parts) for name in (category.name, *earlier_names)]
    return Identity(keys[0], files.num_files, tuple(keys[1:]), tuple(told))


def _key(category: Category, name: str, parts: Iterable[bytes]) -> str:
    """Return the key of a category by a name: of its settings, then of what its files say."""
    training = GONE_TRAINING | _that_count(category.training, FIRST_TRAINING)
    settings = _that_count(category, FIRST_SETTINGS) | {"training": training, "name": name}
    total = hashlib.sha256(json.dumps([KEY_VERSION, settings], sort_keys=True).encode())
    for part in parts:
        total.update(part)
    return total.hexdigest()


@dataclass(frozen=True)
class Files:
    """What identifies the files of a category."""

    num_files: int
    parts: tuple[bytes, ...]


def files_of(category: Category) -> Files:
    """Return what identifies a category's files: their names and etags, or their manifest."""
    if category.layout != "manifest":
        return _listed(category.images)
    manifest = storage.absolute(category.images)
    table = read_columns(manifest, COLUMNS)
    refuse_missing(table, "image_uri", manifest)
    others = _etags_not_given(table, manifest)
    parts = [storage.read_bytes(category.images)]
    parts += [json.dumps(sorted(others.items())).encode()] if others else []
    return Files(table.num_rows, tuple(parts))


def _listed(folder: str) -> Files:
    """Return names and etags of all files below a folder."""
    listed = sorted((item.uri, item.etag) for item in storage.list_objects(folder))
    return Files(len(listed), (json.dumps(listed).encode(),))


def _etags_not_given(table: pa.Table, manifest: str) -> dict[str, str | None]:
    """Return the etag of each mask, and of each image whose etag the manifest does not give."""
    given = pc.not_equal(pc.fill_null(table["image_etag"], ""), "")
    images = resolve_uris(table["image_uri"].filter(pc.invert(given)), manifest)
    masks = table["mask_uri"].filter(pc.not_equal(table["mask_uri"], ""))
    return _etags_of({*images.to_pylist(), *resolve_uris(masks, manifest).to_pylist()})


def _etags_of(uris: Collection[str]) -> dict[str, str | None]:
    """Return the etag of each file; None is one that is not there: reading it will tell."""
    found = storage.look_up(uris)
    return {uri: found[uri].etag if uri in found else None for uri in uris}


def _excluded_of(category: Category) -> list[str]:
    """Return what `exclude` leaves out; of files below a folder, those that are below it."""
    excluded = sorted(excluded_uris(category))
    if category.layout == "manifest":
        return excluded
    folder = f"{storage.absolute(category.images).rstrip('/')}/"
    return [uri for uri in excluded if uri.startswith(folder)]


def _that_count(settings: BaseModel, first: Collection[str]) -> dict[str, Any]:
    """Return the values of the first settings and of those that differ from their default."""
    names = {*first, *settings.model_dump(exclude_defaults=True)}
    return settings.model_dump(include=names - COUNTED_OTHERWISE - WITHOUT_EFFECT)
