"""Why an image was flagged, or was not: its row, made again with the files that scored it."""

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from pipeline import storage
from pipeline.images import heatmap
from pipeline.images.decode import ImageRead, ImageStatus, read_image
from pipeline.images.page_numbers import split_page
from pipeline.images.placement import placement
from pipeline.night.fleet.fleet import Champion, Fleet
from pipeline.night.folder import NightError, NightFolder
from pipeline.night.manifest import read_manifest, shard_prefix
from pipeline.night.results import PARALLEL_READS, read_shard, stored_shards
from pipeline.night.scoring.decisions import regions_of
from pipeline.night.scoring.detectors import Detectors
from pipeline.storage import StorageError


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """One row of a night, and what the same files say of the same image now."""

    row: dict[str, Any]
    champion: Champion | None = None  # None: the category had none that could be used
    status: str  # of the image now
    error: str | None = None
    score: float | None = None  # made again; None where the image cannot be scored any more
    regions: Mapping[str, Any] = field(default_factory=dict)  # their columns, likewise
    picture: NDArray[np.uint8] | None = None  # (H, 2 W, 3): what was scored, its map over it

    @property
    def difference(self) -> float | None:
        """Score made again minus stored score."""
        stored = self.row["score"]
        return None if self.score is None or stored is None else self.score - stored

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types, without the picture."""
        now = {"status": self.status, "error": self.error, "score": self.score}
        answer = {"row": self.row, "now": now | {"difference": self.difference}}
        if self.champion is None:
            return answer
        scores = np.array(self.champion.reference.calibration.scores)
        calibration = {"num_images": len(scores), "median": float(np.median(scores))}
        answer["now"] |= {"regions": self.regions.get("regions")}
        return answer | {
            "package": self.champion.package,
            "calibration": calibration | {"highest": float(scores.max())},
        }


def explain(image_uri: str, folder: NightFolder) -> Explanation:
    """Find an image's row and score the image again with the very files that made it.

    Raises:
        NightError: the night has no row of this image.
    """
    row = find_row(image_uri, folder)
    champion = Fleet.read(folder.fleet).champions.get(row["category"])
    if champion is None:
        return Explanation(row=row, status=row["status"], error=row["error"])
    fetch = partial(storage.read_bytes, etag=row["image_etag"])
    image = read_image(image_uri, champion.preprocessing, fetch)
    if image.pixels is None:
        status = image.status.value
        return Explanation(row=row, champion=champion, status=status, error=image.error)
    detectors = Detectors({champion.category: champion})
    assert image.shown is not None, "it has pixels"
    pixels = torch.from_numpy(image.pixels)[None]
    scores, patch_scores = detectors.score([champion.category], pixels)
    maps = detectors.maps(champion.category, patch_scores).numpy()
    coloured = heatmap.overlay(image.shown, champion.reference.map_scale.to_grey(maps[0]))
    regions = regions_of(champion, image, maps[0])
    return Explanation(
        row=row,
        champion=champion,
        status=ImageStatus.OK.value,
        score=scores.item(),
        regions=regions,
        picture=np.concatenate([image.shown, _framed(coloured, image, regions, champion)], axis=1),
    )


def _framed(
    picture: NDArray[np.uint8], image: ImageRead, found: Mapping[str, Any], champion: Champion
) -> NDArray[np.uint8]:
    """Return a picture of the crop with the boxes of regions."""
    framed = Image.fromarray(picture)
    draw, (height, width) = ImageDraw.Draw(framed), picture.shape[:2]
    for each in found.get("regions", ()):
        assert image.size is not None, "it has regions"
        box = each["x"], each["y"], each["width"], each["height"]
        x, y, wide, high = placement(image.size, champion.preprocessing).to_shares(box)
        ends = x * width, y * height, (x + wide) * width - 1, (y + high) * height - 1
        draw.rectangle([round(end) for end in ends], outline="white")
    return np.asarray(framed)


def find_row(image_uri: str, folder: NightFolder) -> dict[str, Any]:
    """Return the row of one image of a night.

    Raises:
        NightError: there is none.
    """
    names = _of_category(image_uri, sorted(stored_shards(folder)), folder)
    with ThreadPoolExecutor(PARALLEL_READS) as pool:
        tables: Iterator[pa.Table] = pool.map(read_shard, map(folder.shard, names))
        for rows in tables:
            own = rows.filter(pc.equal(rows["image_uri"], image_uri))
            if own.num_rows:
                row: dict[str, Any] = own.to_pylist()[0]
                return row
    raise NightError(
        f"no row of {image_uri} in {folder.results}; give the address as it stands in "
        f"the results, and the night it was scored in"
    )


def _of_category(image_uri: str, names: list[str], folder: NightFolder) -> list[str]:
    """Leave only the shards that can hold the image, where the night's manifest tells."""
    try:
        manifest = read_manifest(folder.manifest)
    except StorageError:
        return names
    addresses = pa.array([image_uri, split_page(image_uri)[0]])
    listed = manifest.filter(pc.is_in(manifest["image_uri"], value_set=addresses))
    if not listed.num_rows:
        return names
    prefix = shard_prefix(listed["category"][0].as_py())
    return [name for name in names if name.rsplit("-", 3)[0] == prefix]
