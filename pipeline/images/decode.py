"""From the bytes of a file to the pixels a network sees; a bad file is a status, never a crash.

An image becomes RGB as a person would see it: turned as EXIF says, transparent parts over black,
CMYK and palettes as their colours, more than 8 bits by the range of its category. Damaged metadata
does not hide sound pixels.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from model.preprocessing import Preprocessing
from model.tiles import MOST_TILES, Size, Tiles
from pipeline.images import fit
from pipeline.images.page_numbers import file_and_page, page_uri
from pipeline.images.picture import (
    ImageFile,
    ImageTooLarge,
    Picture,
    UnreadableImage,
)
from pipeline.images.pixel_range import as_rgb
from pipeline.images.placement import has_proportions, roi_of, size_cut, size_seen
from pipeline.storage import (
    AccessDenied,
    ObjectChanged,
    ObjectMissing,
    StorageError,
    read_bytes,
)

__all__ = [
    "ImageRead",
    "ImageStatus",
    "ImageTooLarge",
    "UnreadableImage",
    "count_pages",
    "read_image",
    "read_of_file",
    "read_pages",
]

Recall = Callable[[str], Any]  # digest of an image -> what is kept of it, or None


class ImageStatus(StrEnum):
    """What became of one image."""

    OK = "ok"
    UNREADABLE = "unreadable"
    MISSING = "missing"
    TOO_LARGE = "too_large"
    SEVERAL_PAGES = "several_pages"
    UNROUTED = "unrouted"
    DENIED = "denied"
    CHANGED = "changed"
    UNREACHABLE = "unreachable"
    BROKEN_MODEL = "broken_model"


@dataclass(frozen=True, slots=True)
class ImageRead:
    """One image as it came from storage."""

    uri: str
    status: ImageStatus
    error: str | None = None
    # (H, W, 3), RGB, of the size that the network sees; to be cut into tiles, of the whole image
    pixels: NDArray[np.uint8] | None = None
    sha256: str = ""  # hex digest of the file's bytes, "" when they were not read
    mode: str | None = None  # of the file's pixels: "RGB", "L", "L;uint16"
    outside: float = 0.0  # share of the file's numbers that its category's range does not hold
    size: tuple[int, int] | None = None  # height and width in the file, turned upright
    fingerprint: str = ""  # see ``fingerprint.py``, where somebody computed it
    stored: Any = None  # what was recalled of the image, which was not decoded for it
    view: NDArray[np.uint8] | None = None  # of an image to be cut: the whole of it, as maps show it

    @property
    def shown(self) -> NDArray[np.uint8] | None:
        """Pixels of the whole image, (H, W, 3), of the size of its map; None where it has none."""
        return self.pixels if self.view is None else self.view

    def without_pixels(self) -> "ImageRead":
        """Return all that is known of the image but its pixels, which need the memory."""
        return replace(self, pixels=None, view=None, stored=None)


def read_image(
    uri: str, preprocessing: Preprocessing, fetch: Callable[[str], bytes] = read_bytes
) -> ImageRead:
    """Fetch, decode and resize one image; whatever is wrong with it becomes a status.

    Args:
        uri: of the file or, where each page is an image, of a page.
        preprocessing: how it is read.
        fetch: returns a file's bytes.

    Raises:
        ServiceAway: the server is the problem, not the image.
    """
    return read_of_file([uri], preprocessing, fetch)[0]


def read_of_file(
    uris: Sequence[str],
    preprocessing: Preprocessing,
    fetch: Callable[[str], bytes] = read_bytes,
    recall: Recall | None = None,
) -> list[ImageRead]:
    """Fetch a file once, decode and resize some of its pages; raises as ``read_image`` does.

    Args:
        uris: of the file or of its pages.
        preprocessing: how they are read.
        fetch: returns a file's bytes.
        recall: returns what is known of an image by its digest, which then is not decoded.
    """
    pages = [file_and_page(uri, preprocessing.pages) for uri in uris]
    try:
        data = fetch(pages[0][0])
    except StorageError as error:
        return [ImageRead(uri, _status_of(error), str(error)) for uri in uris]
    file = _file(data, preprocessing)
    return [
        _recalled(uri, file, page, recall) or _decode(uri, file, preprocessing, page)
        for uri, (_, page) in zip(uris, pages, strict=True)
    ]


def read_pages(
    uri: str, preprocessing: Preprocessing, fetch: Callable[[str], bytes] = read_bytes
) -> list[ImageRead]:
    """Fetch, decode and resize one file: each of its pages where that is wanted, else one image.

    Args:
        uri: of the file.
        preprocessing: how it is read.
        fetch: returns a file's bytes.

    Raises:
        ServiceAway: the server is the problem, not the image.
    """
    if preprocessing.pages != "each":
        return [read_image(uri, preprocessing, fetch)]
    try:
        data = fetch(uri)
    except StorageError as error:
        return [ImageRead(uri, _status_of(error), str(error))]
    file = _file(data, preprocessing)
    num_pages = _num_pages(file)
    if num_pages == 1:
        return [_decode(uri, file, preprocessing, None)]
    numbers = range(1, num_pages + 1)
    return [_decode(page_uri(uri, n), file, preprocessing, n) for n in numbers]


def count_pages(data: bytes, preprocessing: Preprocessing) -> int:
    """Return how many images a file holds; 1 where it cannot be read, which reading it tells."""
    return _num_pages(_file(data, preprocessing))


def announced_pixels(
    fetch: Callable[[str], bytes], preprocessing: Preprocessing, uri: str = ""
) -> int:
    """Return the pixels that a file needs in memory to be cut into tiles, by its header.

    These are the pixels of all tiles, or those that are decoded where ``scale`` leaves fewer; 0
    where the header says nothing, or that the image is refused.
    """
    tiles = preprocessing.tiles
    assert tiles is not None, "nothing else is cut"
    try:
        file = _file(fetch(uri), preprocessing)
        size = _announced(file, preprocessing)
        pages = _num_pages(file) if preprocessing.pages == "each" else 1
    except (StorageError, UnreadableImage, ImageTooLarge):
        return 0
    scaled = size_cut(size, preprocessing)
    if tiles.num_tiles(scaled) > MOST_TILES:
        return 0
    return pages * max(tiles.num_inputs(scaled) * tiles.size**2, size[0] * size[1])


def _announced(file: ImageFile, preprocessing: Preprocessing) -> Size:
    """Return an image's size by its header, upright where that matters to what is looked at."""
    size = file.announced_size
    return size if has_proportions(size, preprocessing) else size[::-1]


def _num_pages(file: ImageFile) -> int:
    try:
        return file.num_pages
    except (UnreadableImage, ImageTooLarge):
        return 1


def _file(data: bytes, preprocessing: Preprocessing) -> ImageFile:
    tiles = preprocessing.tiles
    least_scale = tiles.scale if tiles else None
    return ImageFile(
        data, preprocessing.max_pixels, preprocessing.least_side, least_scale=least_scale
    )


def as_scored(
    image: Image.Image, preprocessing: Preprocessing, size_in_file: tuple[int, int]
) -> tuple[NDArray[np.uint8], NDArray[np.uint8] | None]:
    """Return an image's ``pixels`` and ``view`` of ``ImageRead``.

    Args:
        image: RGB; it may have been decoded smaller than it is.
        preprocessing: how it is read.
        size_in_file: its height and width.

    Raises:
        ImageTooLarge: it has too many tiles.
        UnreadableImage: zones were drawn on an image of other proportions.
    """
    fit.refuse_other_proportions(size_in_file, preprocessing)
    if preprocessing.tiles is None:
        return fit.to_crop(image, preprocessing), None
    view = fit.to_view(image, preprocessing)
    _refuse_many_tiles(preprocessing.tiles, size_seen(size_in_file, preprocessing))
    return fit.to_size(image, preprocessing, size_cut(size_in_file, preprocessing)), view


def _refuse_by_header(file: ImageFile, preprocessing: Preprocessing) -> None:
    """Refuse a file of too many tiles before it takes the time and memory to be decoded."""
    if preprocessing.tiles is None:
        return
    with suppress(UnreadableImage):  # whoever decodes it says what is wrong
        size = _announced(file, preprocessing)
        if has_proportions(size, preprocessing):
            _refuse_many_tiles(preprocessing.tiles, size_seen(size, preprocessing))


def _refuse_many_tiles(tiles: Tiles, size: Size) -> None:
    num_tiles = tiles.num_tiles(tiles.scaled(size))
    if num_tiles > MOST_TILES:
        raise ImageTooLarge(
            f"{size[1]} x {size[0]} pixels are {num_tiles:,} tiles of "
            f"{tiles.size}, at most {MOST_TILES:,} are scored; raise tiles.size, or lower "
            f"tiles.overlap or tiles.scale, and onboard the category again"
        )


def _recalled(
    uri: str, file: ImageFile, page: int | None, recall: Recall | None
) -> ImageRead | None:
    digest = file.sha256(page) if recall else ""
    known = recall(digest) if recall else None
    return known and ImageRead(uri, ImageStatus.OK, sha256=digest, stored=known)


def _decode(uri: str, file: ImageFile, preprocessing: Preprocessing, page: int | None) -> ImageRead:
    """Decode and resize one page; without a number, the only one or the first, as is wanted."""
    digest = file.sha256(page)
    try:
        if (page or 1) == 1:  # only the first is announced
            _refuse_by_header(file, preprocessing)
        banded = _in_bands(uri, file, preprocessing, page)
        if banded is not None:
            return replace(banded, sha256=digest)
        picture = file.page(page or 1)
        if page is None and picture.num_pages > 1 and preprocessing.pages != "first":
            return ImageRead(uri, ImageStatus.SEVERAL_PAGES, _several(picture), None, digest)
        image, outside = as_rgb(picture, preprocessing.pixel_range)
        pixels, view = as_scored(image, preprocessing, picture.size_in_file)
    except ImageTooLarge as error:
        return ImageRead(uri, ImageStatus.TOO_LARGE, str(error), None, digest)
    except UnreadableImage as error:
        return ImageRead(uri, ImageStatus.UNREADABLE, str(error), None, digest)
    mode, size = picture.mode, picture.size_in_file
    return ImageRead(uri, ImageStatus.OK, None, pixels, digest, mode, outside, size, view=view)


def _in_bands(
    uri: str, file: ImageFile, preprocessing: Preprocessing, page: int | None
) -> ImageRead | None:
    """Decode an image that is cut with little memory beside its pixels, where the file allows it.

    Returns:
        None of what ``ImageFile.page`` must decode, or say what is wrong with.
    """
    tiles = preprocessing.tiles
    bands = file.bands(page or 1) if tiles and (page or file.num_pages == 1) else None
    if tiles is None or bands is None:
        return None
    size, pictures = bands
    fit.refuse_other_proportions(size, preprocessing)
    left, top, right, bottom = roi_of(size, preprocessing)
    seen = bottom - top, right - left
    _refuse_many_tiles(tiles, seen)
    whole, view = fit.ByRows(seen, tiles.scaled(seen)), fit.ByRows(seen, preprocessing.view)
    mode: str | None = None
    num_inside = num_rows = 0
    try:
        for picture in pictures:
            image, outside = as_rgb(picture, preprocessing.pixel_range)
            first, last = max(top - num_rows, 0), min(bottom - num_rows, image.height)
            num_rows += image.height
            if first < last:
                part = image.crop((left, first, right, last))
                whole.add(part)
                view.add(part)
            mode = picture.mode
            num_inside += round((1 - outside) * 3 * image.width * image.height)
    except UnreadableImage:  # of all rows together it may be right
        return None
    outside = 1 - num_inside / (3 * size[0] * size[1])
    return ImageRead(
        uri, ImageStatus.OK, None, whole.pixels(), "", mode, outside, size, view=view.pixels()
    )


def _several(picture: Picture) -> str:
    """Say why a file of several pages is not scored."""
    return (
        f"the file has {picture.num_pages} pages, and one image is expected; set `pages` to first "
        f"or each and onboard the category again"
    )


def _status_of(error: StorageError) -> ImageStatus:
    match error:
        case ObjectMissing():
            return ImageStatus.MISSING
        case AccessDenied():
            return ImageStatus.DENIED
        case ObjectChanged():
            return ImageStatus.CHANGED
    return ImageStatus.UNREACHABLE
