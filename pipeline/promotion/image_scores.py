"""Images scored by several packages at once: one pass of the backbone where they share it.

Packages of another backbone, numeric mode or preprocessing take passes of their own.

Shapes: P packages, N images.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from model.mixed_batch import score_by_several
from pipeline import storage
from pipeline.backbones import Fetch, LoadedBackbone
from pipeline.calibration import first_copies
from pipeline.images.batches import batches, num_readers, pixels_of
from pipeline.images.decode import ImageRead, ImageStatus, read_image
from pipeline.images.prefetch import read_ahead
from pipeline.package import Package
from pipeline.predictor import Predictor

USED = "used at onboarding"


class ImageFile(NamedTuple):
    """One image as a list names it."""

    uri: str
    etag: str | None  # another file of that name is not scored


@dataclass(frozen=True, kw_only=True)
class SeveralScores:
    """What each package says of each image."""

    images: Sequence[ImageFile]
    scores: NDArray[np.float32]  # (P, N); NaN where the image could not be scored
    contents: Sequence[str]  # digest of each image's file; empty where it could not be read
    is_used: NDArray[np.bool_]  # whether a package was trained or calibrated on its content, (N,)
    left_out: dict[str, int]  # images by why: a status, or USED

    @property
    def is_unseen(self) -> NDArray[np.bool_]:
        """Images that every package could score and none is made from, (N,); of copies the first.

        What a detector trained or calibrated on says too little of it: its scores are lower.
        """
        scored = np.isfinite(self.scores).all(axis=0) & ~self.is_used
        return np.asarray(scored & first_copies(self.contents))


@torch.inference_mode()
def score_by_each(
    packages: Sequence[Package], images: Sequence[ImageFile], fetch: Fetch | None = None
) -> SeveralScores:
    """Score images by every package.

    Args:
        packages: any number, of one category.
        images: their images.
        fetch: what loads backbones; each once when None.

    Raises:
        CategoryFault: a package cannot be used on this machine.
        StorageAway: the storage does not answer.
    """
    fetch = fetch or LoadedBackbone()
    groups: dict[Any, list[int]] = defaultdict(list)
    for place, package in enumerate(packages):
        groups[repr(_network(package))].append(place)
    scores_PN = np.full((len(packages), len(images)), np.nan, np.float32)
    statuses: dict[str, str] = {}
    contents = [""] * len(images)
    for places in groups.values():
        own = [packages[place] for place in places]
        backbone = fetch(own[0].header.backbone_config)
        heads = [Predictor(package, backbone).detector.heads for package in own]
        header, start = own[0].header, 0
        for batch in batches(_read(images, header.preprocessing)):
            contents[start : start + len(batch)] = [read.sha256 for read in batch]
            good = [number for number, read in enumerate(batch) if read.pixels is not None]
            statuses |= {
                read.uri: read.status.value for read in batch if read.status is not ImageStatus.OK
            }
            if good:
                pixels = pixels_of([batch[number] for number in good])
                scored = score_by_several(backbone, header.embedding, heads, pixels)
                columns = [start + number for number in good]
                scores_PN[np.ix_(places, columns)] = scored.cpu().numpy()
            start += len(batch)
    is_used = np.logical_or.reduce([package.record.has_used(contents) for package in packages])
    return SeveralScores(
        images=images,
        scores=scores_PN,
        contents=contents,
        is_used=is_used,
        left_out=dict(Counter([*statuses.values(), *[USED] * int(is_used.sum())])),
    )


def _network(package: Package) -> Any:
    """What packages must share to share a pass."""
    header = package.header
    return header.backbone_config, header.backbone_digest, header.embedding, header.preprocessing


def _read(images: Sequence[ImageFile], preprocessing: Any) -> Iterator[ImageRead]:
    def read(image: ImageFile) -> ImageRead:
        fetch = partial(storage.read_bytes, etag=image.etag)
        return read_image(image.uri, preprocessing, fetch)

    return read_ahead(read, images, num_readers(preprocessing))
