"""Files of several pages: which of their frames are images of their own."""

from pathlib import Path

import factory
import numpy as np
import pytest
import tifffile
from pictures import encoded
from PIL import Image

from model.preprocessing import Preprocessing
from pipeline.images.decode import ImageStatus, read_image, read_of_file, read_pages
from pipeline.images.page_numbers import of_same_file, page_uri, split_page
from pipeline.images.picture import open_picture
from pipeline.night.feedback.explanation import explain
from pipeline.night.folder import NightFolder
from pipeline.night.listing import list_dump
from pipeline.night.results import read_night, remove_shards, stored_shards
from pipeline.night.scoring.plan import plan_night
from pipeline.night.scoring.scorer import ShardScorer
from pipeline.night.settling.settle import settle
from pipeline.onboarding.finish import write_package
from pipeline.onboarding.prepare import prepare
from pipeline.package import Package

NIGHT = "2026-03-12"
ONE = Preprocessing(resize=32, crop=32)
FIRST = Preprocessing(resize=32, crop=32, pages="first", pixel_range=65535)
FRAMES = [Image.new("RGB", (40, 40), (colour, 0, 0)) for colour in (250, 10)]


@pytest.mark.parametrize("form", ["GIF", "TIFF", "WEBP", "PNG"])
def test_a_file_of_several_pages_is_not_scored_unless_that_is_wanted(
    form: str, tmp_path: Path
) -> None:
    options = {"lossless": True} if form == "WEBP" else {}
    data = encoded(FRAMES[0], form, save_all=True, append_images=FRAMES[1:], **options)
    (tmp_path / "image").write_bytes(data)
    read = read_image(str(tmp_path / "image"), ONE)
    assert (read.status, read.pixels) == (ImageStatus.SEVERAL_PAGES, None)
    assert "the file has 2 pages" in (read.error or "")
    first = read_image(str(tmp_path / "image"), FIRST)
    assert first.pixels is not None
    assert first.pixels[16, 16].tolist() == [250, 0, 0]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("first", [True, False])
def test_thumbnails_are_no_pages(dtype: type, first: bool, tmp_path: Path) -> None:
    whole, small = np.full((40, 40), 200, dtype), np.full((8, 8), 50, dtype)
    with tifffile.TiffWriter(tmp_path / "image.tif") as file:
        for values in (small, whole) if first else (whole, small):
            file.write(values, subfiletype=1 if values is small else 0)
    picture = open_picture((tmp_path / "image.tif").read_bytes(), 10_000)
    assert picture.num_pages == 1
    assert np.asarray(picture.pixels).shape == (40, 40)
    assert read_image(str(tmp_path / "image.tif"), FIRST).status is ImageStatus.OK


def test_the_preview_behind_a_jpeg_is_no_page(tmp_path: Path) -> None:
    data = encoded(FRAMES[0], "MPO", save_all=True, append_images=[FRAMES[1].resize((8, 8))])
    (tmp_path / "image.jpg").write_bytes(data)
    assert read_image(str(tmp_path / "image.jpg"), ONE).status is ImageStatus.OK


@pytest.mark.parametrize(("page", "red"), [(1, 250), (2, 10)])
def test_a_page_is_read_by_its_number(page: int, red: int) -> None:
    data = encoded(FRAMES[0], "TIFF", save_all=True, append_images=FRAMES[1:])
    image = open_picture(data, 10_000, page=page).pixels
    assert isinstance(image, Image.Image)
    assert image.getpixel((0, 0)) == (red, 0, 0)


@pytest.mark.parametrize(
    ("uri", "file", "page"),
    [
        ("s3://a/b.tif", "s3://a/b.tif", None),
        ("s3://a/b.tif#page=12", "s3://a/b.tif", 12),
        ("/a/b.tif#page=0", "/a/b.tif#page=0", None),
        ("/a/#page=3/b.tif", "/a/#page=3/b.tif", None),
    ],
)
def test_the_address_of_a_page_ends_in_its_number(uri: str, file: str, page: int | None) -> None:
    assert split_page(uri) == (file, page)
    assert page is None or page_uri(file, page) == uri


def write_stack(path: Path, seeds: range, *, scratched: bool = False) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pages = np.stack([factory.texture(seed, scratched=scratched) for seed in seeds])
    tifffile.imwrite(path, pages, photometric="rgb")


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A category whose good images are pages, ten to a file."""
    folder = tmp_path_factory.mktemp("pages")
    for first in range(0, 40, 10):
        write_stack(folder / f"images/train/good/{first}.tif", range(first, first + 10))
    write_stack(folder / "images/test/good/0.tif", range(100, 103))
    write_stack(folder / "images/test/scratch/0.tif", range(200, 203), scratched=True)
    mask = np.zeros((3, 96, 96), np.uint8)
    mask[:, 40:52, 20:76] = 255
    mask[2] = 0
    (folder / "images/ground_truth/scratch").mkdir(parents=True)
    tifffile.imwrite(
        folder / "images/ground_truth/scratch/0_mask.tif", mask, photometric="minisblack"
    )
    prepared = prepare(factory.category(folder / "images", pages="each"))
    for _ in prepared.trainer.run():
        pass
    write_package(prepared, folder / "package")
    return folder / "package"


def test_each_page_of_a_category_is_an_image(package: Path) -> None:
    record = Package.read(package).record
    assert record.counts["train"] + record.counts["calibration"] == 40
    assert (record.counts["test"], record.counts["unreadable"]) == (6, 0)
    assert "pixel_auroc" in record.metrics


def test_each_page_of_a_night_has_a_row(package: Path, tmp_path: Path) -> None:
    write_stack(tmp_path / "dump/steel/a.tif", range(700, 703))
    factory.write_images(tmp_path / "dump/steel", range(703, 705))
    folder = NightFolder(str(tmp_path / "out"), NIGHT)
    fleet = factory.score_without_cluster(tmp_path / "dump", folder, {"steel": package})
    rows = {Path(row["image_uri"]).name: row for row in read_night(folder).to_pylist()}
    names = [f"a.tif#page={page}" for page in (1, 2, 3)]
    assert sorted(rows) == ["000703.png", "000704.png", *names]
    assert {row["status"] for row in rows.values()} == {"ok"}
    assert len({row["score"] for row in rows.values()}) == 5
    assert len({rows[name]["image_etag"] for name in names}) == 1
    summary = settle(folder, fleet)
    assert (summary["images"], summary["totals"]) == (5, {"ok": 5})
    found = explain(str(tmp_path / "dump/steel/a.tif#page=2"), folder)
    assert (found.status, found.score) == ("ok", pytest.approx(rows[names[1]]["score"], abs=2e-3))


def test_pages_that_are_scored_are_not_scored_again(package: Path, tmp_path: Path) -> None:
    write_stack(tmp_path / "dump/steel/a.tif", range(700, 703))
    folder = NightFolder(str(tmp_path / "out"), NIGHT)
    factory.score_without_cluster(tmp_path / "dump", folder, {"steel": package})
    before = {row["image_uri"]: row["scored_at"] for row in read_night(folder).to_pylist()}
    remembered = stored_shards(folder)
    write_stack(tmp_path / "dump/steel/b.tif", range(710, 712))
    factory.score_without_cluster(tmp_path / "dump", folder, {"steel": package})
    remove_shards(folder, remembered)
    after = {row["image_uri"]: row["scored_at"] for row in read_night(folder).to_pylist()}
    assert len(after) == 5
    assert before.items() <= after.items()


def test_pages_that_move_to_another_shard_are_found_there(package: Path, tmp_path: Path) -> None:
    folder = NightFolder(str(tmp_path / "out"), NIGHT)
    fleet = factory.make_fleet(folder, {"steel": package})

    def score() -> list[int]:
        """Return in how many stored shards each one looked for its rows."""
        listed = list_dump(str(tmp_path / "dump")).images
        plan = plan_night(listed, fleet, folder, rows_per_shard=1)
        written = ShardScorer(fleet, folder).write(plan.tasks)
        remove_shards(folder, plan.stale)
        num_scored.append(sum(shard.num_scored for shard in written))
        return [len(task.reuse) for task in plan.tasks]

    num_scored: list[int] = []
    for number in range(1, 7):
        write_stack(
            tmp_path / f"dump/steel/{number}.tif", range(700 + 2 * number, 702 + 2 * number)
        )
    assert score() == [0] * 6
    write_stack(tmp_path / "dump/steel/0.tif", range(700, 702))
    assert score() == [0, *[1] * 6]
    assert num_scored == [12, 2]
    assert read_night(folder).num_rows == 14


def test_a_file_of_pages_that_cannot_be_read_has_one_row(package: Path, tmp_path: Path) -> None:
    write_stack(tmp_path / "dump/steel/a.tif", range(700, 703))
    whole = (tmp_path / "dump/steel/a.tif").read_bytes()
    (tmp_path / "dump/steel/a.tif").write_bytes(whole[:100])
    folder = NightFolder(str(tmp_path / "out"), NIGHT)
    factory.score_without_cluster(tmp_path / "dump", folder, {"steel": package})
    (row,) = read_night(folder).to_pylist()
    assert (Path(row["image_uri"]).name, row["status"]) == ("a.tif", "unreadable")


@pytest.mark.parametrize("order", [1, -1])
def test_each_page_is_read_by_its_own_depth(order: int, tmp_path: Path) -> None:
    pages = [np.full((40, 40, 3), 200, np.uint8), np.full((40, 40, 3), 51_400, np.uint16)][::order]
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        for page in pages:
            file.write(page, photometric="rgb")
    each = Preprocessing(resize=32, crop=32, pages="each", pixel_range=65535)
    reads = read_pages(str(tmp_path / "a.tif"), each)
    assert [read.mode for read in reads] == ["RGB", "RGB;uint16"][::order]
    for read in reads:
        assert read.pixels is not None
        assert (read.pixels == 200).all()


def test_a_chain_of_pages_that_is_torn_leaves_the_pages_before(tmp_path: Path) -> None:
    data = bytearray(encoded(Image.new("L", (40, 40), 100), "TIFF"))
    start = int.from_bytes(data[4:8], "little")
    count = int.from_bytes(data[start : start + 2], "little")
    end = start + 2 + 12 * count
    data[end : end + 4] = (len(data) - 3).to_bytes(4, "little")
    (tmp_path / "a.tif").write_bytes(bytes(data))
    assert read_image(str(tmp_path / "a.tif"), ONE).status is ImageStatus.OK


def test_a_damaged_tiff_writes_nothing_into_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = bytearray(encoded(Image.new("L", (40, 40), 100), "TIFF"))
    data[-60:] = b"\xff" * 60
    (tmp_path / "a.tif").write_bytes(bytes(data))
    read_image(str(tmp_path / "a.tif"), ONE)
    assert caplog.text == ""


def test_a_limit_above_pillows_own_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)
    data = encoded(Image.new("L", (40, 40)))
    assert open_picture(data, 1600).num_pages == 1


def test_neighbouring_pages_of_a_file_are_read_together_in_their_order() -> None:
    pages = [page_uri("a.tif", number) for number in (1, 2, 3)]
    uris = [*pages, "b.png", page_uri("c.tif", 2), page_uri("a.tif", 9)]
    assert list(of_same_file(uris, 2)) == [pages[:2], pages[2:], *([uri] for uri in uris[3:])]


def test_pages_that_are_read_together_fetch_their_file_once(tmp_path: Path) -> None:
    write_stack(tmp_path / "a.tif", range(3))
    fetched: list[str] = []

    def fetch(uri: str) -> bytes:
        fetched.append(uri)
        return Path(uri).read_bytes()

    each = Preprocessing(resize=32, crop=32, pages="each")
    uris = [page_uri(str(tmp_path / "a.tif"), number) for number in (3, 1)]
    together = read_of_file(uris, each, fetch)
    assert fetched == [str(tmp_path / "a.tif")]
    for read, uri in zip(together, uris, strict=True):
        alone = read_image(uri, each)
        assert (read.uri, read.sha256) == (uri, alone.sha256)
        assert np.array_equal(read.pixels, alone.pixels)
