"""Score shards of a dump.

Images are fetched and decoded ahead, go through the backbone in batches of mixed categories, then
through their own category's folded head, and end as one row each.

A ``ShardScorer`` lives as long as its worker. It knows nothing of a cluster: rows in, rows out.
"""

import datetime as dt
import hashlib
import io
import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image

from model.backbone import Backbone, BackboneConfig
from model.detector import Detector
from model.embedding import Embedding
from model.preprocessing import Preprocessing
from pipeline import storage
from pipeline.backbones import fetch_backbone
from pipeline.features import BATCH_IMAGES, stack
from pipeline.fleet import Champion, Fleet
from pipeline.image_statistics import image_statistics
from pipeline.images import ImageRead, ImageStatus, read_image
from pipeline.manifest import Shard
from pipeline.reading import read_ahead
from pipeline.results import RESULT_SCHEMA, write_shard

RESULT_VERSION = 2  # of the meaning of a row; part of every shard's name
IN_FLIGHT = 2  # batches at a time: while one waits for its slowest thread, another one works
MAP_P_VALUE = 0.05  # maps are kept of flagged images and of those nearly as unusual

Clock = Callable[[], dt.datetime]


@dataclass(frozen=True)
class _Item:
    """One manifest row on its way: its place in the shard, its image and its champion."""

    row: int
    category: str
    image: ImageRead


@dataclass(frozen=True)
class _Network:
    """What images must share to go through the backbone together."""

    backbone: BackboneConfig
    preprocessing: Preprocessing
    embedding: Embedding


def result_name(shard: Shard, fleet: Fleet) -> str:
    """Name a shard's results by its rows and by everything that shapes them.

    A champion, a threshold or the meaning of a row that changes gives another name, so that what
    is finished can be told from what is out of date by its name alone.
    """
    present = sorted(set(shard.rows["category"].to_pylist()) & fleet.keys())
    pinned = [[fleet[name].model_version, fleet[name].model_digest] for name in present]
    identity = json.dumps([RESULT_VERSION, present, pinned])
    return f"{shard.name}-{hashlib.sha256(identity.encode()).hexdigest():.12}"


class ShardScorer:
    """Scores shards with the champions of one fleet; loads each backbone and head once."""

    def __init__(
        self, fleet: Fleet, out: str, night: str, device: str = "cpu", clock: Clock | None = None
    ) -> None:
        self.fleet, self.out, self.night, self.device = fleet, out, night, device
        self.clock = clock or (lambda: dt.datetime.now(dt.UTC))
        self._detectors: dict[str, Detector] = {}
        self._backbones: dict[BackboneConfig, Backbone] = {}

    def write(self, shard: Shard) -> dict[str, int]:
        """Score a shard, store its rows whole, and return the number of images by status."""
        table = self.score(shard)
        write_shard(self.out, self.night, result_name(shard, self.fleet), table)
        statuses = table["status"].value_counts().to_pylist()
        return {entry["values"]: entry["counts"] for entry in statuses}

    def score(self, shard: Shard) -> pa.Table:
        """Return one row per row of the shard, in its order."""
        manifest = shard.rows.to_pylist()
        name, scored_at = result_name(shard, self.fleet), self.clock()
        rows: list[dict[str, Any]] = [
            {**_empty_row(entry), "shard": name, "scored_at": scored_at} for entry in manifest
        ]
        with ThreadPoolExecutor(4, "maps") as uploads:
            written: list[Future[None]] = []
            scored = read_ahead(self._score_batch, self._batches(self._read(manifest)), IN_FLIGHT)
            for batch in scored:
                for item, result in batch:
                    levels = result.pop("levels", None)
                    rows[item.row] |= result
                    if levels is not None:
                        uri = self._map_uri(item)
                        rows[item.row]["map_uri"] = uri
                        written.append(uploads.submit(_write_map, uri, levels))
            for upload in written:
                upload.result()
        return pa.Table.from_pylist(rows, RESULT_SCHEMA)

    def _read(self, manifest: list[dict[str, Any]]) -> Iterator[_Item]:
        """Yield every image in order, fetched and decoded ahead."""

        def read(numbered: tuple[int, dict[str, Any]]) -> _Item:
            row, entry = numbered
            uri, category = entry["image_uri"], entry["category"]
            if category not in self.fleet:
                error = f"category {category!r} has no champion; onboard it or mend the dump"
                return _Item(row, category, ImageRead(uri, ImageStatus.UNROUTED, error, None, ""))
            return _Item(row, category, read_image(uri, self.fleet[category].preprocessing))

        return read_ahead(read, enumerate(manifest))

    def _batches(self, items: Iterable[_Item]) -> Iterator[list[_Item]]:
        """Group images that can share a backbone pass; what cannot be scored passes through."""
        waiting: dict[_Network, list[_Item]] = defaultdict(list)
        for item in items:
            if item.image.status is not ImageStatus.OK:
                yield [item]
                continue
            group = waiting[self._network(item.category)]
            group.append(item)
            if len(group) == BATCH_IMAGES:
                yield group.copy()
                group.clear()
        yield from (group for group in waiting.values() if group)

    def _score_batch(self, batch: list[_Item]) -> list[tuple[_Item, dict[str, Any]]]:
        """Return each item of a batch with its result fields."""
        if batch[0].image.status is not ImageStatus.OK:
            image = batch[0].image
            return [(batch[0], {"status": image.status.value, "error": image.error})]
        detector = self._detector(batch[0].category)
        pixels = stack([item.image for item in batch])
        statistics = image_statistics(pixels.numpy())
        levels = detector.backbone(pixels)
        pooled = detector.header.embedding.pool(levels)
        results: list[dict[str, Any]] = [{} for _ in batch]
        members = defaultdict(list)
        for index, item in enumerate(batch):
            members[item.category].append(index)
        for category, places in members.items():
            scored = self._decide(category, [level[places] for level in pooled])
            for place, result in zip(places, scored, strict=True):
                results[place] = result | {name: v[place] for name, v in statistics.items()}
        return list(zip(batch, results, strict=True))

    def _decide(self, category: str, pooled: list[Any]) -> list[dict[str, Any]]:
        """Score the images of one category and decide on each."""
        champion, detector = self.fleet[category], self._detector(category)
        image_scores, patch_scores = detector.score_pooled(pooled)
        scores = image_scores.cpu().numpy()
        p_values = champion.calibration.p_value(scores)
        flags = champion.calibration.flagged(scores)
        levels: dict[int, NDArray[np.uint8]] = {}
        kept = np.flatnonzero(flags | (p_values <= MAP_P_VALUE))
        if len(kept):
            maps = detector.maps(patch_scores[kept]).cpu().numpy()
            levels = dict(zip(kept.tolist(), champion.map_scale.to_grey(maps), strict=True))
        return [
            {
                "status": ImageStatus.OK.value,
                "score": scores[i],
                "p_value": p_values[i],
                "flagged": bool(flags[i]),
                "flagged_fdr": False,  # settled when the whole night is there
                "levels": levels.get(i),
                **_decision_fields(champion),
            }
            for i in range(len(scores))
        ]

    def _network(self, category: str) -> _Network:
        header = self._detector(category).header
        return _Network(header.backbone_config, header.preprocessing, header.embedding)

    def _detector(self, category: str) -> Detector:
        if category not in self._detectors:
            header, heads = self.fleet[category].load_heads()
            config = header.backbone_config
            if config not in self._backbones:
                self._backbones[config] = fetch_backbone(config).to(self.device)
            detector = Detector(self._backbones[config], heads, header)
            self._detectors[category] = detector.to(self.device)
        return self._detectors[category]

    def _map_uri(self, item: _Item) -> str:
        name = hashlib.sha256(item.image.uri.encode()).hexdigest()[:32]
        night = f"night={self.night}"
        return storage.join(self.out, "maps", night, item.category, f"{name}.png")


def _empty_row(entry: dict[str, Any]) -> dict[str, Any]:
    fields = ("image_uri", "image_etag", "category")
    return dict.fromkeys(RESULT_SCHEMA.names) | {name: entry[name] for name in fields}


def _decision_fields(champion: Champion) -> dict[str, Any]:
    return {
        "threshold": champion.calibration.threshold,
        "false_alarm_rate": champion.calibration.false_alarm_rate,
        "model_name": champion.model_name,
        "model_version": champion.model_version,
        "model_digest": champion.model_digest,
    }


def _write_map(uri: str, levels: NDArray[np.uint8]) -> None:
    buffer = io.BytesIO()
    Image.fromarray(levels).save(buffer, format="PNG", compress_level=1)
    storage.write_bytes(uri, buffer.getvalue())
