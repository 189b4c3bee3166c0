"""Onboarding: whether memory stays flat when features outgrow it."""

import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.onboarding.finish import write_package
from pipeline.onboarding.prepare import prepare
from tests.bench.material import category, write_pictures
from tests.bench.measure import Ratio, in_fresh_process, memory_mib

FEW = 250  # enough for a coreset of full size: what a training needs is the same for all
TIMES = 4
NUM_PICTURES = 25
CACHE_GB = 0.01  # 33 images of ResNet-18 at 224
LOOK_EVERY_S = 0.02


def onboarding_memory() -> Iterator[Ratio]:
    """Peak memory of an onboarding of four times the images, both with features on disk."""
    with tempfile.TemporaryDirectory() as scratch:
        pictures = write_pictures(Path(scratch, "good"), NUM_PICTURES, "png")
        few, many = (
            in_fresh_process(_onboarding_peak, pictures, Path(scratch, str(count)), count)
            for count in (FEW, TIMES * FEW)
        )
    detail = f"{few:.0f} MiB for {FEW} images, {many:.0f} MiB for {TIMES * FEW}, "
    detail += f"cache_gb {CACHE_GB:g}"
    yield Ratio(name="onboarding_memory", value=many / few, target=1.1, at_most=True, detail=detail)


def _onboarding_peak(pictures: Path, folder: Path, count: int) -> float:
    """Return the highest memory in MiB without the pages of mapped files, which may be dropped."""
    images = _distinct(pictures, folder / "images", count)
    settings = category(images, "resnet18", passes=1, steps_per_pass=2, health="warn")
    settings = settings.model_copy(update={"cache_gb": CACHE_GB})
    with _watched() as seen_mib:
        prepared = prepare(settings)
        for _ in prepared.trainer.run():
            pass
        write_package(prepared, folder)
    return max(seen_mib)


def _distinct(pictures: Path, folder: Path, count: int) -> Path:
    """Write ``count`` files that differ: behind a PNG's end there may be anything."""
    folder.mkdir(parents=True)
    contents = [path.read_bytes() for path in sorted(pictures.iterdir())]
    for index in range(count):
        content = contents[index % len(contents)] + index.to_bytes(4, "big")
        (folder / f"{index:06d}.png").write_bytes(content)
    return folder


@contextmanager
def _watched() -> Iterator[list[float]]:
    """Yield a list that fills with this process's anonymous memory in MiB, look by look."""
    seen_mib, done = [_anonymous_mib()], threading.Event()

    def watch() -> None:
        while not done.wait(LOOK_EVERY_S):
            seen_mib.append(_anonymous_mib())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield seen_mib
    finally:
        done.set()
        watcher.join()


def _anonymous_mib() -> float:
    """Return resident memory that no file stands behind; the kernel keeps no peak of it."""
    return memory_mib("RssAnon")
