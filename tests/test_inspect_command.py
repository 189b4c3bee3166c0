"""``nightshift inspect``: what is planted in a catalogue is in its answer and on its page."""

import hashlib
import json
import shutil
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import factory
import numpy as np
import pytest
from command_line import Run
from image_sets import image_set
from PIL import Image
from playwright.sync_api import Browser
from report_visit import open_browser

from pipeline.data_report.across_categories import AcrossCategories
from pipeline.data_report.category_reading import Reading
from pipeline.data_report.category_report import report_of_error, report_on
from pipeline.data_report.inspection import Inspection
from pipeline.data_report.inspection_page import inspection_page
from pipeline.feature_store.embedder import Embedder
from pipeline.images.decode import ImageRead
from pipeline.inspection.image_set import ImageSet

NUM_GOOD = 40


def ring(seed: int) -> np.ndarray:
    """Another product than the textures of steel."""
    random = np.random.default_rng(seed)
    rows, columns = np.mgrid[: factory.SIDE, : factory.SIDE]
    radius = np.hypot(rows - random.uniform(36, 60), columns - random.uniform(36, 60))
    grey = np.where(abs(radius - random.uniform(20, 32)) < 7, 220, 30) + random.normal(
        0, 4, radius.shape
    )
    return np.repeat(np.clip(grey, 0, 255).astype(np.uint8)[..., None], 3, axis=2)


def plant(root: Path) -> Path:
    """Two categories with a fault of each kind, as a catalogue."""
    steel = factory.make_category(root / "steel", num_good=NUM_GOOD)
    rings = root / "rings/train/good"
    rings.mkdir(parents=True)
    for seed in range(NUM_GOOD):
        Image.fromarray(ring(seed)).save(rings / f"{seed:03d}.png")
    good = steel / "train/good"
    (good / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    shutil.copy(good / "000003.png", good / "copy.png")
    shutil.copy(good / "000004.png", steel / "test/good/leak.png")
    Image.fromarray(factory.texture(5) // 8).save(good / "night.png")
    Image.fromarray(ring(200)).save(good / "stranger.png")
    shutil.copy(rings / "007.png", good / "shared.png")
    images = {"steel": steel, "rings": root / "rings"}
    return factory.write_catalogue(root / "catalogue.yaml", images)


def test_everything_planted_is_found_and_what_is_clean_is_not(run: Run, tmp_path: Path) -> None:
    catalogue = plant(tmp_path)
    answer = run("inspect", catalogue, "--out", tmp_path / "out", "--json")
    assert answer.code == 1
    assert "1 of 2 categories need mending, first steel" in answer.err
    told = json.loads(answer.out)
    assert told == json.loads((tmp_path / "out/inspect.json").read_text())
    found = {
        check["name"]: {Path(each["uri"]).name for each in check["images"]}
        for check in told["categories"]["steel"]["checks"]
        if check["verdict"] != "PASS"
    }
    assert found["unreadable"] == {"broken.png"}
    assert found["exact duplicates"] == {"copy.png"}
    assert found["train and test"] == {"000004.png"}
    assert found["dark"] >= {"night.png"}
    assert found["another category"] >= {"stranger.png"}
    assert found["across categories"] == {"shared.png"}
    assert found["suspected defects"] >= {"night.png", "stranger.png"}
    rings = told["categories"]["rings"]["checks"]
    assert {check["name"] for check in rings if check["verdict"] != "PASS"} == {"across categories"}
    page = (tmp_path / "out/index.html").read_text()
    assert page.count("data:image/jpeg") >= 10
    assert "stranger.png" in page
    artefacts = {path.name for path in tmp_path.rglob("artifacts/*")}
    assert artefacts >= {"inspect.json", "index.html"}


def test_a_category_that_cannot_be_read_stops_no_other(run: Run, tmp_path: Path) -> None:
    steel = factory.make_category(tmp_path / "steel", num_good=24, num_test=0)
    shutil.rmtree(steel / "test")
    images = {"steel": steel, "wood": tmp_path / "nowhere"}
    catalogue = factory.write_catalogue(tmp_path / "catalogue.yaml", images)
    answer = run("inspect", catalogue, "--out", tmp_path / "out")
    assert answer.code == 3
    assert "PASS  steel: suspected defects" in answer.out
    assert "FAIL  wood: category: " in answer.out
    assert "nightshift: wood: " in answer.err


def test_a_second_inspection_takes_features_from_the_store(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steel = factory.make_category(tmp_path / "steel", num_good=24, num_test=1)
    catalogue = factory.write_catalogue(tmp_path / "catalogue.yaml", {"steel": steel})
    options = ("--features", tmp_path / "features", "--out", tmp_path / "out", "--json")
    first = json.loads(run("inspect", catalogue, *options).out)
    monkeypatch.setattr(
        Embedder, "_compute", lambda _self, images, *_, **__: [] if not images else 1 / 0
    )
    assert json.loads(run("inspect", catalogue, *options).out) == first


def named(images: ImageSet, name: str) -> ImageSet:
    """The same images with addresses and contents of another category."""

    def own(read: ImageRead) -> ImageRead:
        digest = hashlib.sha256(f"{name}{read.uri}".encode()).hexdigest()
        return replace(read, uri=f"/{name}{read.uri}", sha256=digest, fingerprint=digest)

    samples = [replace(each, uri=f"/{name}{each.uri}") for each in images.samples]
    reads = [own(read) for read in images.reads]
    return replace(images, name=name, samples=samples, reads=reads)


def reading(name: str, images: ImageSet) -> Reading:
    return Reading(
        category=factory.category("/i"), images=named(images, name), space="s", findings=()
    )


def test_memory_does_not_grow_with_the_images_of_a_catalogue(tmp_path: Path) -> None:
    """What is kept of a category is its summary and 16 bytes of each image."""
    across, kept = AcrossCategories(tmp_path), []
    features = np.random.default_rng(0).normal(size=(200, 768)).astype(np.float32)
    images = image_set(200, pooled=features)
    tracemalloc.start()
    for number in range(30):
        across.add(reading(f"c{number}", images))
        kept.append(tracemalloc.get_traced_memory()[0])
    tracemalloc.stop()
    each = (kept[-1] - kept[9]) / 20
    assert each < 200 * 16 + 2 * 4 * 768 + 8_000  # the features alone are 600 kB
    assert dict(across.lines()).keys() == {f"c{number}" for number in range(30)}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with open_browser() as running:
        yield running


@pytest.mark.browser
def test_the_page_fits_and_its_button_writes_what_was_ticked(
    browser: Browser, tmp_path: Path
) -> None:
    evil = "</script><img src=x onerror=alert(1)>\u202e"
    values = image_set().statistics["brightness"].copy()
    values[[7, 31]] = 20
    dark = report_on(reading(evil, image_set(statistics={"brightness": values})))
    reports = {evil: dark, "wood": report_of_error("wood", evil)}
    done = Inspection(place=evil, reports=reports)
    page = tmp_path / "index.html"
    page.write_text(inspection_page(done.to_json(), reports))
    for size in ((1280, 900), (400, 844)):
        context = browser.new_context(
            accept_downloads=True, viewport={"width": size[0], "height": size[1]}
        )
        visited = context.new_page()
        complaints: list[str] = []
        visited.on("console", lambda message, to=complaints: to.append(message.text))
        visited.on("pageerror", lambda error, to=complaints: to.append(str(error)))
        visited.goto(page.as_uri())
        assert visited.evaluate("document.documentElement.scrollWidth") == size[0]
        visited.locator("[data-all]").click()
        with visited.expect_download() as download:
            visited.locator("#download").click()
        written = Path(download.value.path()).read_text().splitlines()
        assert sorted(written) == [f"/{evil}/images/good/{index:03d}.png" for index in (7, 31)]
        assert complaints == []
        context.close()
