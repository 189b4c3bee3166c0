"""Made-up products: brushed metal of one grain per category, and a night's dump of them."""

import io
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import yaml
from PIL import Image
from scipy import ndimage

from pipeline import storage

SIDE = 96
IMAGES_EACH = 40  # good ones of a category
KIND = "metal"
SETTINGS = {
    "backbone": "efficientnet_lite0",
    "resize": 64,
    "crop": 64,
    "false_alarm_rate": 0.1,
}
SHORT = 6  # passes; enough to be disturbed


def picture(category: int, number: int) -> bytes:
    """Encode one image; the same numbers give the same bytes."""
    random = np.random.default_rng([category, number])
    grain = ndimage.gaussian_filter(random.normal(size=(SIDE, SIDE, 3)), (1 + category, 6, 0))
    pixels = np.clip(120 + 15 * category + 150 * grain, 0, 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()


def names(num_categories: int, kind: str = KIND) -> list[str]:
    """Return the categories' names."""
    return [f"{kind}-{number}" for number in range(num_categories)]


def upload_onboarding(num_categories: int, kind: str = KIND, passes: int | None = SHORT) -> str:
    """Store every category's good images; return the text of a catalogue.

    ``passes`` of training are made over them; None: as many as the default preset makes.
    """
    training = {"health": "warn"} | ({} if passes is None else {"passes": passes})
    named = names(num_categories, kind)
    entries = [
        {"name": name, "images": f"s3://factory/{name}", "layout": "folder"} for name in named
    ]
    _upload(
        (f"s3://factory/{name}/{number:05d}.png", category, number)
        for category, name in enumerate(named)
        for number in range(IMAGES_EACH)
    )
    return yaml.safe_dump({"defaults": SETTINGS | {"training": training}, "categories": entries})


def upload_dump(num_categories: int, num_images: int) -> set[str]:
    """Store a night's images, spread over the categories; return their URIs."""
    wanted = [
        (
            f"s3://dump/{names(num_categories)[n % num_categories]}/{n:06d}.png",
            n % num_categories,
            n,
        )
        for n in range(100_000, 100_000 + num_images)
    ]
    _upload(iter(wanted))
    return {uri for uri, _, _ in wanted}


def _upload(wanted: Iterator[tuple[str, int, int]]) -> None:
    def one(entry: tuple[str, int, int]) -> None:
        uri, category, number = entry
        storage.write_bytes(uri, picture(category, number))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(one, wanted))
