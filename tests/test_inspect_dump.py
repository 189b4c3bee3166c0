"""``nightshift inspect`` of a dump: what is planted in a night is told before it is scored."""

import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import factory
import numpy as np
import pytest
from command_line import Run
from image_sets import USUAL, changed, image_set
from PIL import Image
from playwright.sync_api import Browser
from report_visit import open_browser

from jobs.cli.inspect_command import _is_catalogue
from pipeline.checks import Verdict
from pipeline.data_report.dump_checks import examine_dump
from pipeline.data_report.dump_inspection import DumpRequest, inspect_dump
from pipeline.data_report.dump_reading import DumpReader, DumpReading, choose
from pipeline.data_report.inspection_page import inspection_page
from pipeline.images.decode import ImageRead, ImageStatus
from pipeline.images.image_statistics import STATISTICS
from pipeline.inspection.category_summary import CategorySummary
from pipeline.inspection.found import Line
from pipeline.inspection.image_set import ImageSet
from pipeline.inspection.training_summary import TRAINING_IMAGES_FILE, TrainingImages, describe
from pipeline.night.fleet.fleet import Champion, Fleet
from pipeline.night.fleet.hold import hold
from pipeline.night.folder import NightFolder
from pipeline.registry import models

NIGHT = "2026-11-26"
NUM_VALUES = 64


def features(num: int, centre: float = 0.0, seed: int = 0) -> np.ndarray:
    rows = np.random.default_rng(seed).normal(centre, 1, size=(num, NUM_VALUES))
    return rows.astype(np.float32)


def trained_on(name: str = "steel", centre: float = 0.0) -> TrainingImages:
    return describe(replace(image_set(200, pooled=features(200, centre)), name=name), "s")


@pytest.fixture(scope="module")
def champion(tmp_path_factory: pytest.TempPathFactory) -> Champion:
    """One that was calibrated on images as ``image_set`` has them."""
    root = tmp_path_factory.mktemp("champion")
    factory.make_package(root / "package")
    fleet = factory.make_fleet(NightFolder(str(root / "out"), NIGHT), {"steel": root / "package"})
    made = fleet.champions["steel"]
    values = {
        name: tuple(sorted(map(float, image_set(60, seed=1).statistics[name])))
        for name in STATISTICS
    }
    return replace(made, reference=replace(made.reference, statistics=values))


def dump_of(num: int = 60, seed: int = 3) -> ImageSet:
    return image_set(num, pooled=features(num, seed=seed), seed=seed)


def lines(
    champion: Champion,
    images: ImageSet,
    known: TrainingImages | None,
    others: Sequence[CategorySummary] = (),
) -> dict[str, Line]:
    reading = DumpReading(
        num_images=len(images.reads) + len(images.unreadable),
        images=images,
        preprocessing=champion.preprocessing,
        champion=champion,
        trained_on=known,
    )
    return {line.check.name: line for line in examine_dump(reading, others)}


def warned(found: dict[str, Line]) -> set[str]:
    return {name for name, line in found.items() if line.check.verdict is not Verdict.PASS}


def numbers(line: Line) -> list[int]:
    return [int(each.uri[-7:-4]) for each in line.images]


@pytest.mark.parametrize("seed", range(5))
def test_a_night_like_the_training_images_passes_every_check(champion: Champion, seed: int) -> None:
    gear = trained_on("gear", 7).summary
    assert gear is not None
    assert warned(lines(champion, dump_of(seed=seed + 3), trained_on(), [gear])) == set()


def test_a_category_without_a_readable_image_stops_nothing(champion: Champion) -> None:
    bad = [ImageRead(f"/{n}.png", ImageStatus.UNREADABLE, "no picture") for n in range(5)]
    none = image_set(0, pooled=np.zeros((0, 0), np.float32), unreadable=bad)
    found = lines(champion, none, trained_on())
    assert warned(found) == {"unreadable"}
    assert found["unreadable"].check.verdict is Verdict.FAIL


@pytest.mark.parametrize(("num", "verdict"), [(3, Verdict.WARN), (8, Verdict.FAIL)])
def test_unreadable_files_beyond_the_error_budget_fail(
    champion: Champion, num: int, verdict: Verdict
) -> None:
    bad = [ImageRead(f"/{n}.png", ImageStatus.MISSING, "gone") for n in range(num)]
    found = lines(champion, replace(dump_of(), unreadable=bad), trained_on())
    assert found["unreadable"].check.verdict is verdict
    assert found["images"].check.finding.startswith(f"{60 + num} images; pixels 60 96 x 128")


@pytest.mark.parametrize("size", [(128, 96), (96, 127), (10, 10)])
def test_a_size_that_no_training_image_has_is_named(
    champion: Champion, size: tuple[int, int]
) -> None:
    images = dump_of()
    for index in (4, 40):
        images = changed(images, index, size=size)
    found = lines(champion, images, trained_on())
    assert warned(found) == {"size"}
    assert numbers(found["size"]) == [4, 40]
    assert found["size"].images[0].because.endswith("pixels, trained on 96 x 128")


def test_a_whole_night_of_another_size_is_named_too(champion: Champion) -> None:
    images = dump_of()
    for index in range(60):
        images = changed(images, index, size=(50, 50))
    assert len(lines(champion, images, trained_on())["size"].images) == 60


@pytest.mark.parametrize("mode", ["L", "L;uint16", "P"])
def test_a_mode_that_no_training_image_has_is_named(champion: Champion, mode: str) -> None:
    found = lines(champion, changed(dump_of(), 7, mode=mode), trained_on())
    assert warned(found) == {"mode"}
    assert found["mode"].images[0].because == f"mode {mode}, trained on RGB"


def test_packages_of_earlier_releases_are_judged_by_the_others_of_the_night(
    champion: Champion,
) -> None:
    old = replace(champion, reference=replace(champion.reference, modes=(), statistics={}))
    images = changed(changed(dump_of(), 7, mode="L"), 9, size=(10, 20))
    found = lines(old, images, None)
    assert warned(found) == {"mode", "size"}
    assert (numbers(found["mode"]), numbers(found["size"])) == ([7], [9])
    assert "not compared with its training images" in found["another category"].check.finding


@pytest.mark.parametrize(
    ("name", "factor"), [("brightness", 1.3), ("brightness", 0.7), ("sharpness", 0.4)]
)
def test_a_night_in_another_light_or_out_of_focus_is_told(
    champion: Champion, name: str, factor: float
) -> None:
    values = {name: dump_of().statistics[name] * factor}
    images = replace(dump_of(), statistics=dump_of().statistics | values)
    found = lines(champion, images, trained_on())
    assert warned(found) == {"light and focus"}
    assert f"when onboarded {np.median(champion.reference.statistics[name]):.3g}" in (
        found["light and focus"].check.finding
    )


@pytest.mark.parametrize(("name", "factor"), [("brightness", 1.1), ("sharpness", 0.7)])
def test_a_step_that_nobody_sees_is_no_news(champion: Champion, name: str, factor: float) -> None:
    values = {name: dump_of().statistics[name] * factor}
    images = replace(dump_of(), statistics=dump_of().statistics | values)
    assert "light and focus" not in warned(lines(champion, images, trained_on()))


def test_a_dark_image_among_the_others_is_named(champion: Champion) -> None:
    values = dump_of().statistics["brightness"].copy()
    values[[3, 30]] = 0.2 * USUAL["brightness"]
    images = replace(dump_of(), statistics=dump_of().statistics | {"brightness": values})
    found = lines(champion, images, trained_on())
    assert sorted(numbers(found["dark"])) == [3, 30]
    assert found["dark"].check.advice == "Look at the lamp and the exposure."


def test_strangers_are_told_from_defects(champion: Champion) -> None:
    """Of another category, of none, and merely unusual, as a defect is."""
    rows = features(60, seed=3)
    rows[4], rows[9], rows[20] = features(1, 7, 1)[0], features(1, -20, 1)[0], 1.8 * rows[20]
    others = [each.summary for each in (trained_on("gear", 7), trained_on("bolt", 14))]
    known = [each for each in others if each]
    found = lines(champion, replace(dump_of(), pooled=rows), trained_on(), known)
    assert warned(found) == {"another category", "no category"}
    assert numbers(found["another category"]) == [4]
    assert found["another category"].images[0].because == "looks like gear"
    assert numbers(found["no category"]) == [9]


def test_a_stranger_is_no_category_where_its_own_is_unknown(champion: Champion) -> None:
    rows = features(60, seed=3)
    rows[4] = features(1, 9, 1)[0]
    found = lines(champion, replace(dump_of(), pooled=rows), trained_on())
    assert numbers(found["no category"]) == [4]


def test_a_night_that_has_changed_as_a_whole_is_told_in_one_line(champion: Champion) -> None:
    images = replace(dump_of(), pooled=features(60, 2.0, 3))
    found = lines(champion, images, trained_on())
    assert warned(found) == {"as in training"}
    assert found["as in training"].check.finding.startswith("60 of 60 images look unlike")


def test_some_images_are_chosen_by_their_hashes() -> None:
    uris = [f"s3://b/{number}.png" for number in range(50)]
    chosen = choose(uris, 10)
    assert chosen == sorted(set(chosen))
    assert len(chosen) == 10
    assert choose(uris[::-1], 10) == chosen
    assert choose(uris, 0) == choose(uris, 50) == uris


@pytest.mark.parametrize(
    ("what", "expected"),
    [
        ("s3://b/catalogue.yaml", True),
        ("catalogue.YML", True),
        ("there.conf", True),  # a file, and no manifest
        ("s3://b/2026-11-26", False),
        ("s3://b/night.csv", False),
        ("dump", False),
        ("manifest.parquet", False),
    ],
)
def test_a_catalogue_is_told_from_a_dump(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str, *, expected: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("there.conf").write_text("categories: []")
    Path("manifest.parquet").write_bytes(b"")
    Path("dump").mkdir()
    assert _is_catalogue(what) is expected


def plant(root: Path) -> Path:
    """A dump with a fault of each kind."""
    factory.write_images(root / "steel", range(900, 912))
    (root / "steel/broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    Image.fromarray(factory.texture(950)[:50]).save(root / "steel/cut.png")
    Image.fromarray(factory.texture(951)).convert("L").save(root / "steel/grey.png")
    shutil.copy(root / "steel/000900.png", root / "steel/again.png")
    factory.write_images(root / "unknown", range(3))
    shutil.copy(root / "steel/000901.png", root / "beside.png")
    (root / "steel/list.txt").write_text("a")
    return root


def register(tmp_path: Path, *names: str) -> None:
    for name in names:
        factory.make_package(tmp_path / name)
        models.promote(models.register(name, f"key of {name}", tmp_path / name))


def test_everything_planted_in_a_dump_is_found(run: Run, tracking_uri: str, tmp_path: Path) -> None:
    register(tmp_path / "packages", "steel", "wood")
    dump, out = plant(tmp_path / "dump"), tmp_path / "out"
    answer = run("inspect", dump, "--out", out, "--json")
    assert answer.code == 0
    told = json.loads(answer.out)
    assert told["kind"] == "dump"
    assert told["inspected"] == str(dump)
    whole = {check["name"]: check for check in told["checks"]}
    assert whole["unrouted"]["finding"] == (
        "4 of 20 images have no champion: 1 of (no category), 3 of unknown"
    )
    assert "wood" in whole["missing categories"]["finding"]
    assert whole["other files"]["finding"] == "1 .txt"
    found = {
        check["name"]: {Path(each["uri"]).name for each in check["images"]}
        for check in told["categories"]["steel"]["checks"]
        if check["verdict"] != "PASS"
    }
    assert found["unreadable"] == {"broken.png"}
    assert found["exact duplicates"] == {"again.png"}
    assert found["size"] == {"cut.png"}
    assert found["mode"] == {"grey.png"}
    assert told["categories"]["unknown"]["verdict"] == "WARN"
    [place] = (out / "inspections").iterdir()
    assert told == json.loads((place / "inspect.json").read_text())
    page = (place / "index.html").read_text()
    assert page.count("data:image/jpeg") >= 4
    assert "leave out" not in page
    assert "<script" not in page
    [package] = (out / "fleet/packages").iterdir()
    assert (package / TRAINING_IMAGES_FILE).exists()
    assert not list(out.glob("fleet/night*"))  # nothing of a night is begun
    assert not (out / "manifest").exists()


def test_a_manifest_is_a_dump_and_some_of_its_images_are_looked_at(
    run: Run, tracking_uri: str, tmp_path: Path
) -> None:
    register(tmp_path / "packages", "steel")
    dump = plant(tmp_path / "dump")
    listed = [
        f"dump/steel/{number:06d}.png,{name}" for number in range(900, 912) for name in ["steel"]
    ]
    (tmp_path / "night.csv").write_text("\n".join(["image_uri,category", *listed]))
    arguments = ("inspect", tmp_path / "night.csv", "--out", tmp_path / "out", "--most", "5")
    answer = run(*arguments, "--only", "steel")
    assert answer.code == 0
    assert "PASS  steel: images: 12 images, 5 of them looked at; pixels 5 96 x 96" in answer.out
    assert dump.exists()
    assert (
        "--only gear: the dump has no such category" in run(*arguments, "--only", "gear").refusal()
    )


def test_a_dump_that_nobody_can_score_fails(run: Run, tracking_uri: str, tmp_path: Path) -> None:
    factory.write_images(tmp_path / "dump/unknown", range(2))
    answer = run("inspect", tmp_path / "dump", "--out", tmp_path / "out")
    assert answer.code == 1
    assert (
        "2 of 2 images have no champion: 2 of unknown. A dump is <dump>/<category>/" in answer.err
    )


def test_a_dump_without_the_place_of_its_results_is_written_wrongly(
    run: Run, tmp_path: Path
) -> None:
    (tmp_path / "dump").mkdir()
    answer = run("inspect", tmp_path / "dump")
    assert answer.code == 2
    assert "--out" in answer.err


def test_a_damaged_champion_costs_its_own_category_alone_and_a_held_fleet_is_used(
    tmp_path: Path,
) -> None:
    factory.write_images(tmp_path / "dump/steel", range(900, 904))
    factory.write_images(tmp_path / "dump/wood", range(900, 904))
    out = str(tmp_path / "out")
    packages = {name: tmp_path / name for name in ("steel", "wood")}
    for seed, folder in enumerate(packages.values()):
        factory.make_package(folder, seed=seed)
    fleet: Fleet = factory.make_fleet(NightFolder(out, NIGHT), packages)
    hold(out, fleet.store(out))
    (Path(fleet.champions["wood"].package) / "head.safetensors").write_bytes(b"")
    request = DumpRequest(dump=str(tmp_path / "dump"), out=out)
    done = inspect_dump(request, DumpReader(0))
    assert list(done.errors) == ["wood"]
    assert done.reports["steel"].error is None
    assert {line.check.verdict for line in done.whole} == {Verdict.PASS}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with open_browser() as running:
        yield running


@pytest.mark.browser
def test_the_page_of_a_dump_fits_and_has_nothing_to_tick(browser: Browser, tmp_path: Path) -> None:
    factory.write_images(tmp_path / "dump/steel", range(900, 904))
    (tmp_path / "dump/steel/broken.png").write_bytes(b"no")
    factory.write_images(tmp_path / "dump/a<b>'", range(900, 902))
    factory.make_package(tmp_path / "steel")
    out = str(tmp_path / "out")
    fleet = factory.make_fleet(NightFolder(out, NIGHT), {"steel": tmp_path / "steel"})
    hold(out, fleet.store(out))
    done = inspect_dump(DumpRequest(dump=str(tmp_path / "dump"), out=out), DumpReader(0))
    page = tmp_path / "index.html"
    page.write_text(inspection_page(done.to_json(), done.reports))
    for size in ((1280, 900), (400, 844)):
        context = browser.new_context(viewport={"width": size[0], "height": size[1]})
        visited = context.new_page()
        complaints: list[str] = []
        visited.on("console", lambda message, to=complaints: to.append(message.text))
        visited.on("pageerror", lambda error, to=complaints: to.append(str(error)))
        visited.goto(page.as_uri())
        assert visited.evaluate("document.documentElement.scrollWidth") == size[0]
        assert visited.locator("input, button:visible").count() == 0
        assert visited.locator("#whole").inner_text() == "The dump as a whole"
        assert "a<b>'" in visited.locator("main").inner_text()
        assert complaints == []
        context.close()
