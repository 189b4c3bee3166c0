"""Zones that do not count, as an inspection shows them: in words, and over a good image."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from model.backbone import STRIDES
from model.zones import EVERYWHERE
from pipeline.catalogue.catalogue import Category
from pipeline.checks import passed
from pipeline.data_report.thumbnails import as_address
from pipeline.images import fit
from pipeline.images.decode import read_image
from pipeline.images.masks import MASK_LEVEL
from pipeline.images.placement import placement
from pipeline.inspection.found import Line
from pipeline.onboarding.zones import marked_image, zones_of

SIDE = 352  # pixels of the picture
IGNORED, FRAME = (214, 48, 32), (255, 255, 255)


def line_of_zones(category: Category) -> Line | None:
    """Return what counts of a category's images in a sentence; None where all of it does.

    Raises:
        ZonesError, StorageError: the zones cannot be used.
    """
    zones, drawn = zones_of(category), category.zones
    if zones == EVERYWHERE and drawn.roi is None:
        return None
    stride = STRIDES[category.layers[0]]
    height, width = (-(-side // stride) for side in category.preprocessing.size_read)
    num_ignored = "".join(zones.ignored).count("1")
    said = [f"{height * width - num_ignored} of {height * width} positions of the map count"]
    said += [f"an anomaly has {zones.min_area} of them at least"] if zones.min_area > 1 else []
    said += [f"{drawn.roi[2]} x {drawn.roi[3]} pixels are looked at"] if drawn.roi else []
    return Line(check=passed("zones", "; ".join(said)))


def picture_of_zones(category: Category, uris: Sequence[str]) -> str:
    """Return the first good image that can be read with the zones over it, as a data: address."""
    whole = dataclasses.replace(category.preprocessing, fit="pad", crop=SIDE, roi=None, tiles=None)
    read = (read_image(uri, whole).pixels for uri in uris)
    pixels = next((each for each in read if each is not None), None)
    if pixels is None or whole.drawn_on is None:
        return ""
    marked = marked_image(category)
    if marked is not None:
        is_ignored = fit.to_crop(marked, whole, "constant") > MASK_LEVEL
        pixels = np.where(is_ignored[..., None], (pixels * 0.4 + np.array(IGNORED) * 0.6), pixels)
    image = Image.fromarray(pixels.astype(np.uint8))
    if category.zones.roi is not None:
        x, y, wide, high = placement(whole.drawn_on, whole).to_shares(category.zones.roi)
        ends = [x * SIDE, y * SIDE, (x + wide) * SIDE - 1, (y + high) * SIDE - 1]
        ImageDraw.Draw(image).rectangle(ends, outline=FRAME, width=2)
    return as_address(image)
