"""Tiles with a thumbnail beside the whole image as one input: what is found, and how small.

``python -m tests.bench.tiles bottle|magnetic_tile|small_defects --data DIR [--seeds N]``, or
``memory``: what a JPEG and a tiled TIFF of 1, 9 and 100 megapixels take to be decoded and cut.
Every setting's images are embedded once; heads of all seeds are trained on good images alone, and
score the test images as they come. Maps of all settings are compared on one grid.

The set of small defects is made: good bottle images on large backgrounds of scikit-image's
textures, and real defects of bottle and magnetic tile, cut out along their masks and brought to 8
to 40 pixels. It stands for no other images.

Shapes: S seeds, N images, H x W pixels.
"""

import argparse
import gc
import json
import resource
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path
from statistics import fmean, stdev
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import tifffile
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from scipy import ndimage
from skimage import data

from model.detector import Detector
from model.preprocessing import Preprocessing
from model.tile_pixels import cut
from model.tiles import Tiles
from pipeline.calibration import fit
from pipeline.catalogue.catalogue import Category
from pipeline.datasets.samples import Sample, of_split
from pipeline.images.decode import read_image
from pipeline.measuring.labelled import read_marks
from pipeline.measuring.metrics import image_metrics, pixel_metrics
from pipeline.onboarding.prepare import (
    PreparedCategory,
    make_detector,
    make_trainer,
    prepare,
    score_unseen,
)

SETTINGS: dict[str, dict[str, Any]] = {
    "plain 224": {},
    "crop 448": {"crop": 448},
    "fit keep": {"fit": "keep"},
    "tiles 256": {"tiles": {"size": 256}},
    "tiles 128": {"tiles": {"size": 128}},
    "tiles 256 position": {"tiles": {"size": 256, "share": "position"}},
    "tiles 256 alone": {"tiles": {"size": 256, "thumbnail": False}},
}
SIZES = (8, 12, 16, 24, 32, 40)  # pixels, longer side of a defect
WIDTH = 2000  # pixels of a background, four to three
NUM_GOOD, NUM_OF_SIZE = 60, 20  # to train on and, as many, to test; defects of each size
GRID = (256, 256)  # on which maps are compared
RATE = 0.05
SIDES = (1000, 3000, 10_000)  # pixels of the images whose memory is measured

Pixels = NDArray[np.uint8]
Floats = NDArray[np.float32]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.tiles", description=__doc__)
    parser.add_argument("of", choices=["bottle", "magnetic_tile", "small_defects", "memory"])
    parser.add_argument("--data", type=Path, default=Path("data"), help="folder of the data sets")
    parser.add_argument("--weights", help="of resnet18")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--settings", nargs="+", default=["plain 224", "crop 448", "tiles 256"])
    parser.add_argument("--detector", default="simplenet")
    parser.add_argument("--max-images", type=int, help="to train on")
    parser.add_argument("--good", type=int, default=NUM_GOOD, help="of the made set, twice")
    parser.add_argument("--width", type=int, default=WIDTH, help="of its images, pixels")
    parser.add_argument("--of-size", type=int, default=NUM_OF_SIZE, help="defects of the made set")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    console = Console(highlight=False, soft_wrap=True)
    with TemporaryDirectory() as scratch:
        if arguments.of == "memory":
            for side, ending in product(SIDES, ("jpg", "tif")):
                console.print(memory_of(side, Path(scratch, f"{side}.{ending}")))
            return
        images = arguments.data / arguments.of
        if arguments.of == "small_defects":
            images = Path(scratch, "made")
            counts = arguments.good, arguments.of_size
            make_small_defects(images, arguments.data, arguments.width, counts)
        for name in arguments.settings:
            category = Category(
                name=arguments.of.replace("_", "-"),
                images=str(images),
                backbone="resnet18",
                weights=arguments.weights,
                false_alarm_rate=RATE,
                calibration="cross",
                detector=arguments.detector,
                max_images=arguments.max_images,
                cache_gb=2,
                **SETTINGS[name],
            )
            console.print(name, json.dumps(measure(category, arguments.seeds)))


def measure(category: Category, num_seeds: int) -> dict[str, Any]:
    """Return what heads of so many seeds come to on the test images of a category."""
    started = time.perf_counter()
    prepared = prepare(category)
    embedded_s = time.perf_counter() - started
    fitted = [_fit(prepared, seed) for seed in range(num_seeds)]
    trained_s = time.perf_counter() - started - embedded_s
    test = of_split(prepared.samples, "test")
    scores_SN, maps_SN, samples, ms = _score(prepared, [each for each, _ in fitted], test)
    defective = np.array([not sample.is_good for sample in samples])
    found = [_image_numbers(scores, defective, samples) for scores in scores_SN]
    for numbers, scores, (_, threshold) in zip(found, scores_SN, fitted, strict=True):
        numbers["false alarms"] = float((scores[~defective] > threshold).mean())
    marks = read_marks(samples, prepared.category.preprocessing)
    if (marks.known & defective).any():
        masks = _on_grid(torch.from_numpy(marks.masks[marks.known])) >= 0.5
        for numbers, maps in zip(found, maps_SN, strict=True):
            pixels = pixel_metrics(maps[marks.known], masks.numpy())
            numbers |= {f"pixel {name}": value for name, value in vars(pixels).items()}
    return {
        **{name: _mean_and_std([each[name] for each in found]) for name in found[0]},
        "seconds": {"embedding": round(embedded_s), "fits": round(trained_s)},
        "ms an image": round(ms, 1),
    }


def _fit(prepared: PreparedCategory, seed: int) -> tuple[Detector, float]:
    category = prepared.category
    recipe = category.recipe.with_seed(seed)
    trainer = make_trainer(prepared.good, prepared.parts, category.detector, recipe)
    for _ in trainer.run():
        pass
    detector = make_detector(prepared, trainer)
    unseen = score_unseen(prepared, trainer, detector)
    return detector, fit(unseen.scores, category.calibration_config).threshold


@torch.inference_mode()
def _score(
    prepared: PreparedCategory, detectors: Sequence[Detector], test: Sequence[Sample]
) -> tuple[list[Floats], list[NDArray[np.float16]], list[Sample], float]:
    """Return scores and maps by seed, their samples, and the time of an image with one detector."""
    by_uri = {sample.uri: sample for sample in test}
    scores: list[list[Floats]] = [[] for _ in detectors]
    maps: list[list[NDArray[np.float16]]] = [[] for _ in detectors]
    samples, spent_s = [], 0.0
    last = time.process_time()
    for batch in prepared.embedder.read([*by_uri], prepared.category.preprocessing):
        levels = batch.levels
        if batch.tiled is not None:  # embedded once for all detectors
            levels = [replace(i, chunks=partial(iter, [*i.chunks()])) for i in batch.tiled]
        spent_s += time.process_time() - last
        for place, detector in enumerate(detectors):
            last = time.process_time()
            image_scores, patch_scores = detector.score_pooled(levels)
            spent_s += (time.process_time() - last) * (place == 0)
            scores[place].append(image_scores.numpy())
            maps[place].append(_on_grid(detector.maps(patch_scores)).half().numpy())
        samples += [by_uri[image.uri] for image in batch.images]
        last = time.process_time()
    joined = [np.concatenate(each) for each in scores], [np.concatenate(each) for each in maps]
    return *joined, samples, 1000 * spent_s / len(samples)


def _image_numbers(
    scores: Floats, defective: NDArray[np.bool_], samples: Sequence[Sample]
) -> dict[str, Any]:
    """Return image AUROC and, by kind of defect, the share found at RATE of good test images."""
    good = np.sort(scores[~defective])
    level = good[int(np.ceil((len(good) + 1) * (1 - RATE))) - 1]
    kinds = np.array([sample.defect for sample in samples])
    shares = {
        f"found {kind}": float((scores[kinds == kind] > level).mean())
        for kind in sorted(set(kinds[defective]))
    }
    return {"image auroc": image_metrics(scores, defective).auroc, **shares}


def _on_grid(maps: torch.Tensor) -> torch.Tensor:
    resized = F.interpolate(maps[:, None].float(), GRID, mode="bilinear", antialias=True)
    return resized[:, 0]


def _mean_and_std(values: Sequence[float]) -> list[float]:
    spread = stdev(values) if len(values) > 1 else 0.0
    return [round(fmean(values), 4), round(spread, 4)]


def memory_of(side: int, path: Path) -> str:
    """Say what a square image takes beyond what the process has: decoded, then cut into tiles.

    Decoding counts the file's bytes, too. A TIFF file has tiles of 256 pixels, deflated.
    """
    tiles = Tiles(size=512, image=(side, side))
    ways = Preprocessing(crop=512, fit="stretch", tiles=tiles, max_pixels=side**2)
    coarse = np.random.default_rng(0).integers(0, 256, (side // 50, side // 50, 3), dtype=np.uint8)
    image = Image.fromarray(coarse).resize((side, side))
    if path.suffix == ".tif":
        tifffile.imwrite(path, np.asarray(image), compression="zlib", tile=(256, 256))
    else:
        image.save(path, quality=80)
    del image
    started = time.process_time()
    with Peak() as decoding:
        read = read_image(str(path), ways)
    seconds = time.process_time() - started
    assert read.pixels is not None
    with Peak() as cutting:
        num_inputs = sum(len(chunk) for chunk in cut(tiles, torch.from_numpy(read.pixels), 16))
    kept = read.pixels.nbytes
    return (
        f"{path.name} ({path.stat().st_size / 1e6:.0f} MB, {kept / 1e6:.0f} MB of pixels, "
        f"{num_inputs} inputs): decoding in {seconds:.1f} s "
        f"+{decoding.megabytes:.0f} MB, cutting +{cutting.megabytes:.0f} MB"
    )


class Peak:
    """The most memory that a block takes beyond what was there, looked at a hundred times a s."""

    def __enter__(self) -> "Peak":
        gc.collect()
        self._before, self._highest, self._is_over = _resident(), 0.0, threading.Event()
        self._watch = threading.Thread(target=self._look)
        self._watch.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._watch.join()
        self.megabytes = self._highest - self._before

    def _look(self) -> None:
        while not self._is_over.wait(0.01):
            self._highest = max(self._highest, _resident())


def _resident() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6


def make_small_defects(folder: Path, source: Path, width: int, counts: tuple[int, int]) -> None:
    """Write the set of small defects, in the mvtec layout, without masks.

    Args:
        folder: where it goes.
        source: the folder of bottle and magnetic tile.
        width: of an image.
        counts: good images to train on, and as many to test; defects of each size.
    """
    num_good, num_of_size = counts
    cut_outs = list(_cut_outs(source))
    bottles = sorted((source / "bottle/train/good").iterdir())
    bottles += sorted((source / "bottle/test/good").iterdir())
    number = 0
    sets = [("train/good", 0, num_good), ("test/good", 0, num_good)]
    sets += [(f"test/px{size:02d}", size, num_of_size) for size in SIZES]
    for name, size, count in sets:
        (folder / name).mkdir(parents=True)
        for _ in range(count):
            random = np.random.default_rng(number)
            image = _background(random, bottles[number % len(bottles)], width)
            if size:
                _paste(image, cut_outs[random.integers(len(cut_outs))], size, random)
            Image.fromarray(image).save(folder / name / f"{number:04d}.png", compress_level=1)
            number += 1


def _background(random: np.random.Generator, bottle: Path, width: int) -> Pixels:
    """Return a bottle on blended textures, each mirrored over the whole and shifted at random."""
    height = width * 3 // 4
    blended = np.zeros((height, width))
    for texture, weight in ((data.brick(), 0.5), (data.gravel(), 0.3), (data.grass(), 0.2)):
        top, left = random.integers(1024, size=2)
        rows, columns = np.arange(height) + top, np.arange(width) + left
        rows, columns = (np.minimum(at % 1024, 1023 - at % 1024) for at in (rows, columns))
        blended += weight * texture[np.ix_(rows, columns)]
    image = np.repeat(blended[..., None], 3, axis=2).astype(np.uint8)
    pixels = np.asarray(Image.open(bottle).convert("RGB"))
    side = pixels.shape[0]
    top = (height - side) // 2 + random.integers(-100, 101)
    left = (width - side) // 2 + random.integers(-100, 101)
    image[top : top + side, left : left + side] = pixels
    return image


def _cut_outs(source: Path) -> Iterator[tuple[Pixels, NDArray[np.float32]]]:
    """Yield the largest defect of each masked image with its mask."""
    for path in sorted(source.glob("bottle/test/*/*")) + sorted(
        source.glob("magnetic_tile/test/*/*")
    ):
        masks = path.parents[2] / "ground_truth" / path.parent.name
        found = sorted(masks.glob(f"{path.stem}_mask.*"))
        if not found:
            continue
        mask = np.asarray(Image.open(found[0]).convert("L")) > 0
        labels, count = ndimage.label(mask)
        if not count:
            continue
        sizes = np.bincount(labels.ravel())[1:]
        box = ndimage.find_objects((labels == sizes.argmax() + 1).astype(np.int8))[0]
        pixels = np.asarray(Image.open(path).convert("RGB"))[box]
        yield pixels, (labels == sizes.argmax() + 1)[box].astype(np.float32)


def _paste(
    image: Pixels,
    cut_out: tuple[Pixels, NDArray[np.float32]],
    size: int,
    random: np.random.Generator,
) -> None:
    pixels, mask = cut_out
    scale = size / max(mask.shape)
    width, height = (max(3, round(scale * side)) for side in mask.shape[::-1])
    small = np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.LANCZOS))
    soft = Image.fromarray(mask).resize((width, height), Image.Resampling.BILINEAR)
    opacity = np.asarray(soft)[..., None].clip(0, 1)
    top = random.integers(image.shape[0] - height)
    left = random.integers(image.shape[1] - width)
    part = image[top : top + height, left : left + width]
    part[:] = np.rint(part * (1 - opacity) + small * opacity)


if __name__ == "__main__":
    main()
