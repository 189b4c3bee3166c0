"""A night of images that are cut into tiles beside others: rows, pictures, and what may wait."""

import threading
from dataclasses import replace
from pathlib import Path

import factory
import numpy as np
import pytest
from PIL import Image

from model.preprocessing import Preprocessing
from model.tiles import Tiles
from pipeline import storage
from pipeline.evaluation.cost import read_as_scored
from pipeline.images.batches import batches_within
from pipeline.images.decode import announced_pixels, read_image
from pipeline.night.dumps import take_in
from pipeline.night.feedback.explanation import explain
from pipeline.night.folder import NightFolder
from pipeline.night.results import read_night, stored_shards
from pipeline.night.scoring.file_reader import InThreads, Listed, Reader
from pipeline.night.scoring.observer import Observer
from pipeline.night.scoring.plan import plan_night
from pipeline.night.scoring.scorer import ShardScorer
from pipeline.night.scoring.waiting_pixels import WaitingPixels
from pipeline.night.settling.reading_alerts import add_reading_alerts
from pipeline.night.settling.settle import count, settle
from pipeline.night.summary import no_drift
from pipeline.onboarding.finish import write_package
from pipeline.onboarding.prepare import prepare
from pipeline.predictor import Predictor
from pipeline.storage.retry import Retry

NIGHT = "2026-03-12"


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Of two categories of the same images: one is cut into tiles."""
    root = tmp_path_factory.mktemp("packages")
    images = factory.make_category(root / "images", num_good=20, num_test=0)
    cut = factory.category(images, "cut", tiles={"size": 64}, crop=None, resize=None)
    for category in (cut, factory.category(images, "plain")):
        prepared = prepare(category)
        list(prepared.trainer.run())
        write_package(prepared, root / category.name)
    return {name: root / name for name in ("cut", "plain")}


@pytest.fixture(scope="module")
def dump(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("dump")
    for name in ("cut", "plain"):
        factory.write_images(root / name, range(900, 905))
        factory.write_images(root / name, range(905, 908), scratched=True)
    wide = np.concatenate([factory.texture(seed) for seed in range(3)], axis=1)
    Image.fromarray(wide).save(root / "cut/wide.png")
    Image.new("L", (64, 90_000)).save(root / "cut/endless.png")
    (root / "cut/broken.png").write_bytes(b"no image")
    return root


def test_a_night_scores_what_is_cut_beside_what_is_not(
    packages: dict[str, Path], dump: Path, tmp_path: Path
) -> None:
    folders = [NightFolder(str(tmp_path / name), NIGHT) for name in ("out", "again")]
    for folder in folders:
        factory.score_without_cluster(dump, folder, packages)
    rows, again = (read_night(folder).sort_by("image_uri") for folder in folders)
    assert rows["score"].equals(again["score"])
    cut = [row for row in rows.to_pylist() if row["category"] == "cut"]
    named = {row["image_uri"].rpartition("/")[2]: row for row in cut}
    assert rows.num_rows == 8 + 11
    assert named["broken.png"]["status"] == "unreadable"
    assert named["endless.png"]["status"] == "too_large"
    assert "2,812 tiles of 64" in named["endless.png"]["error"]
    predictor = Predictor.load(str(packages["cut"]))
    uris = [row["image_uri"] for row in cut if row["status"] == "ok"]
    assert len(uris) == 9
    expected = predictor.predict(uris).score.to_numpy()
    assert [named[uri.rpartition("/")[2]]["score"] for uri in uris] == expected.tolist()
    kept = next(row for row in cut if row["map_uri"])
    assert Image.open(kept["map_uri"]).size == (96, 96)
    explained = explain(named["wide.png"]["image_uri"], folders[0])
    assert explained.difference == 0
    assert explained.picture is not None
    assert explained.picture.shape == (96, 192, 3)


def test_a_night_of_larger_images_than_at_onboarding_raises_an_alert(
    packages: dict[str, Path], dump: Path, tmp_path: Path
) -> None:
    folder = NightFolder(str(tmp_path), NIGHT)
    fleet = factory.score_without_cluster(dump, folder, packages)
    counts = count(folder, stored_shards(folder), fleet).categories()
    assert {name: each.num_larger for name, each in counts.items()} == {"cut": 1, "plain": 0}
    entry = settle(folder, fleet)["categories"]["cut"]
    for num_larger, is_told in ((100, False), (101, True)):
        night = entry | {"ok": 200, "drift": no_drift()}
        add_reading_alerts(night, num_larger)
        assert night["drift"]["alert"] is is_told
        assert night["drift"]["shifted"] == ["image_size"] * is_told
    assert "101 of 200 images have over a quarter more tiles" in str(night["drift"]["reason"])


def test_a_night_of_more_images_than_may_wait_comes_to_its_end(
    packages: dict[str, Path], tmp_path: Path
) -> None:
    factory.write_images(tmp_path / "dump/cut", range(900, 913))
    (tmp_path / "dump/cut/broken.png").write_bytes(b"no image")
    folder = NightFolder(str(tmp_path / "out"), NIGHT)
    fleet = factory.make_fleet(folder, packages)
    images, _ = take_in(str(tmp_path / "dump"), folder)
    scorer = ShardScorer(fleet, folder)
    scorer.waiting.most = 2 * (4 + 1) * 64**2  # two images of 96 x 96
    tasks = plan_night(images.manifest, fleet, folder).tasks
    night = threading.Thread(target=scorer.write, args=(tasks,), daemon=True)
    night.start()
    night.join(60)
    assert not night.is_alive()
    assert scorer.waiting.num_pixels == 0
    statuses = read_night(folder)["status"].to_pylist()
    assert sorted(statuses) == ["ok"] * 13 + ["unreadable"]


def test_files_that_are_read_together_do_not_wait_for_each_other(
    packages: dict[str, Path], dump: Path
) -> None:
    ways = {"cut": Predictor.load(str(packages["cut"])).package.header.preprocessing}
    reader = Reader(ways, Retry(), Observer(), WaitingPixels(most=1))
    files = [Listed(str(path), None, "cut") for path in sorted((dump / "cut").glob("0*.png"))]
    pages = [page for of_file in InThreads(reader, 1).read(files) for page in of_file]
    assert [page.num_pixels for page in pages] == [5 * 64**2] * len(files)


def test_what_an_image_costs_is_measured_on_all_its_tiles(tmp_path: Path) -> None:
    tiles = Tiles(size=64, overlap=0, scale=0.5, image=(128, 4096))
    ways = Preprocessing(crop=64, fit="stretch", tiles=tiles)
    Image.new("RGB", (4096, 128)).save(tmp_path / "belt.png")
    uris = [str(tmp_path / name) for name in ("gone.png", "belt.png")]
    assert [pixels.shape for pixels in read_as_scored(uris, ways)] == [(64, 2048, 3)]
    assert tiles.num_inputs((64, 2048)) == 32 + 1
    assert tiles.view == (32, 1024)  # what is shown of it


@pytest.mark.parametrize("suffix", ["png", "tif", "jpg"])
def test_what_a_file_needs_in_memory_is_known_from_its_header(tmp_path: Path, suffix: str) -> None:
    ways = Preprocessing(crop=64, fit="stretch", tiles=Tiles(size=64, overlap=0))
    half = replace(ways, tiles=Tiles(size=64, overlap=0, scale=0.5))
    path = tmp_path / f"board.{suffix}"
    Image.new("RGB", (640, 256)).save(path)
    assert announced_pixels(storage.read_bytes, ways, str(path)) == (10 * 4 + 1) * 64**2
    # 11 inputs of 320 x 128 are less than what is decoded.
    assert announced_pixels(storage.read_bytes, half, str(path)) == 640 * 256
    path.write_bytes(path.read_bytes()[:10])
    assert announced_pixels(storage.read_bytes, ways, str(path)) == 0
    assert read_image(str(path), ways).pixels is None


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_an_image_of_too_many_tiles_is_not_even_decoded(tmp_path: Path, suffix: str) -> None:
    ways = Preprocessing(crop=64, fit="stretch", tiles=Tiles(size=64, overlap=0))
    path = tmp_path / f"endless.{suffix}"
    pixels = np.random.default_rng(0).integers(0, 256, (64 * 40, 64 * 26), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    beginning = path.read_bytes()[:5_000]
    read = read_image(str(path), ways, lambda _: beginning)
    assert read.status == "too_large"
    assert "1664 x 2560 pixels are 1,040 tiles" in str(read.error)
    assert announced_pixels(lambda _: beginning, ways) == 0


def test_readers_wait_while_too_many_tiles_wait_to_be_scored() -> None:
    waiting, order = WaitingPixels(most=10), []

    def read(num_pixels: int) -> None:
        waiting.add(num_pixels)
        order.append(num_pixels)

    waiting.add(6)
    readers = [threading.Thread(target=read, args=(num,)) for num in (5, 4)]
    for reader in readers:
        reader.start()
    readers[1].join(10)
    assert order == [4]
    waiting.remove(4)
    readers[0].join(0.05)
    assert order == [4]
    waiting.remove(6)
    readers[0].join(10)
    assert order == [4, 5]


def test_an_image_beyond_all_that_may_wait_is_read_alone() -> None:
    waiting = WaitingPixels(most=10)
    waiting.add(1000)
    reader = threading.Thread(target=waiting.add, args=(1,))
    reader.start()
    reader.join(0.05)
    assert reader.is_alive()
    waiting.remove(1000)
    reader.join(10)
    assert waiting.num_pixels == 1


def test_nobody_waits_for_what_is_never_scored() -> None:
    waiting = WaitingPixels(most=10)
    waiting.add(10)
    reader = threading.Thread(target=waiting.add, args=(1,))
    reader.start()

    def fail(_: int) -> None:
        raise RuntimeError("the storage is away")

    with pytest.raises(RuntimeError):
        waiting.guarded(fail)(1)
    reader.join(10)
    assert not reader.is_alive()


def test_what_is_scored_after_a_failure_waits_again_and_owes_nothing() -> None:
    waiting = WaitingPixels(most=10)
    waiting.add(10)
    with pytest.raises(ValueError, match="torn"), waiting.over_with_errors():
        raise ValueError("torn")
    waiting.begin()
    waiting.add(8)
    late = threading.Thread(target=waiting.add, args=(8,), daemon=True)
    late.start()
    late.join(0.05)
    assert late.is_alive()
    waiting.remove(8)
    late.join(30)
    assert (late.is_alive(), waiting.num_pixels) == (False, 8)


@pytest.mark.parametrize(
    ("weights", "parts"),
    [
        ([1, 1, 1, 1, 1], [[1, 1, 1], [1, 1]]),  # three at most
        ([4, 2, 4, 3], [[4, 2], [4], [3]]),  # 6 at most
        ([9, 1, 9], [[9], [1], [9]]),  # one that is more goes alone
        ([], []),
    ],
)
def test_a_request_is_sized_by_the_images_that_are_in_it(
    weights: list[int], parts: list[list[int]]
) -> None:
    assert list(batches_within(weights, 3, lambda weight: weight, 6)) == parts
