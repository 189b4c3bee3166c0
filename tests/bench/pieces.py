"""Where an image's CPU time goes on its way from a file to a row: CPU ms of each piece.

python -m tests.bench.pieces [--backbone resnet18] [--suffix jpg]
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from rich.console import Console

from pipeline.images.batches import BATCH_IMAGES, stack
from pipeline.images.decode import read_pages
from pipeline.images.image_statistics import image_statistics
from pipeline.images.picture import ImageFile
from pipeline.night.fleet.fleet import Fleet
from pipeline.night.folder import NightFolder
from pipeline.night.scoring.detectors import Detectors
from pipeline.night.scoring.plan import plan_night
from pipeline.night.scoring.scorer import ShardScorer
from tests.bench.material import NIGHT, dump_of, onboard, write_pictures
from tests.bench.measure import in_fresh_process

NUM_PICTURES = 40
NUM_SCORED = 128
ROUNDS = 5


def pieces(backbone: str, suffix: str) -> dict[str, float]:
    """Return CPU ms an image by the name of a piece, on one thread; the last one is the whole."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        pictures = write_pictures(Path(scratch, "good"), NUM_PICTURES, suffix)
        fleet = onboard(Path(scratch, "fleet"), pictures, backbone)
        found = dict(_alone(fleet, sorted(pictures.iterdir())[:BATCH_IMAGES]))
        manifest = dump_of(pictures, Path(scratch, "dump"), NUM_SCORED)
        folder = NightFolder(str(Path(scratch, "out")), NIGHT)
        tasks = plan_night(manifest, fleet, folder).tasks
        scorer = ShardScorer(fleet, folder)
        whole = _ms(lambda: scorer.write(tasks), NUM_SCORED)
    rest = whole - sum(found.values())
    return {**found, "all else: fetching, rows, threads, waiting": rest, "file to row": whole}


def _alone(fleet: Fleet, files: list[Path]) -> Iterator[tuple[str, float]]:
    """Yield each piece by itself, on one batch."""
    champion, num = fleet.champions["texture"], len(files)
    contents = {str(file): file.read_bytes() for file in files}
    preprocessing = champion.preprocessing

    def digests() -> None:
        for data in contents.values():
            ImageFile(data, preprocessing.max_pixels, preprocessing.least_side).sha256(None)

    def decoded() -> list[torch.Tensor]:
        reads = [read_pages(uri, preprocessing, contents.__getitem__)[0] for uri in contents]
        return list(stack(reads))

    hashing = _ms(digests, num)
    yield "hashing", hashing
    yield "decoding and resizing", _ms(decoded, num) - hashing
    pixels = torch.stack(decoded())
    yield "statistics", _ms(lambda: image_statistics(pixels.numpy()), num)
    detectors = Detectors(fleet.champions)
    network = detectors.network("texture")
    backbone = detectors.backbone(network.backbone)
    yield "backbone", _ms(lambda: backbone(pixels), num)
    levels = [backbone(image[None]) for image in pixels]
    yield "pooling", _ms(lambda: [network.embedding.pool(one) for one in levels], num)
    pooled = [network.embedding.pool(one) for one in levels]
    heads = detectors.heads("texture").in_float32()
    yield "heads", _ms(lambda: [heads(one) for one in pooled], num)


@torch.inference_mode()
def _ms(call: Callable[[], object], count: int) -> float:
    """Return the least CPU ms of one of ``count`` images, over some rounds."""
    call()
    spent = []
    for _ in range(ROUNDS):
        started = time.process_time()
        call()
        spent.append(time.process_time() - started)
    return 1000 * min(spent) / count


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.pieces", description=__doc__)
    parser.add_argument("--backbone", action="append")
    parser.add_argument("--suffix", action="append", choices=["png", "jpg"])
    arguments = parser.parse_args()
    console = Console(highlight=False, soft_wrap=True)
    for backbone in arguments.backbone or ["efficientnet_lite0", "resnet18"]:
        for suffix in arguments.suffix or ["png", "jpg"]:
            console.print(f"{backbone}, {suffix}")
            for name, ms in in_fresh_process(pieces, backbone, suffix).items():
                console.print(f"  {name:<46}{ms:>8.2f} CPU ms an image")


if __name__ == "__main__":
    main()
