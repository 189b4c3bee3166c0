"""The report in a real browser: what no parser sees."""

import dataclasses
import functools
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler
from pathlib import Path

import numpy as np
import pytest
from night_maker import HOSTILE_NAMES, NIGHT, NightMaker, hostile_night, solar_night
from PIL import Image
from playwright.sync_api import Browser, Error
from report_visit import Visit, open_browser
from test_report_data import EVIL
from web_server import Quiet, serving

from model.preprocessing import Preprocessing
from pipeline.images import heatmap
from pipeline.night.results import REGIONS
from pipeline.pages.words import visible
from pipeline.report.writing import write_report

pytestmark = pytest.mark.browser

DESKTOP, PHONE = (1280, 900), (400, 844)
GONE = ["Failed to load resource: net::ERR_FILE_NOT_FOUND"]
DECODED = "Promise.all([...document.images].map(i => i.decode().then(() => i.naturalWidth > 0)))"

# Exactly the pixels of the pictures, at a whole position, above all else
CORNER = """e => Object.assign(e.style, { position: "fixed", top: 0, left: 0, zIndex: 9,
  width: "224px", height: "224px", borderRadius: 0 })"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with open_browser() as running:
        yield running


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("nights")
    failed = NightMaker(folder / "failed")
    failed.add_champion("bottle")
    for index in range(70):
        status = "unreadable" if index % 7 else "missing"
        failed.add_unscored("bottle", f"{index:02d}-{'x' * 200}", status, "y" * 300)
    places = {
        "hostile": hostile_night(folder / "hostile"),
        "solar": solar_night(folder / "solar", num_images=60),
        "failed": failed.write(),
        "empty": NightMaker(folder / "empty").write(),
    }
    return {name: write_report(place) for name, place in places.items()}


@pytest.mark.parametrize("night", ["hostile", "solar", "failed", "empty"])
@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_fits_decodes_and_stays_silent(
    browser: Browser,
    reports: dict[str, str],
    night: str,
    size: tuple[int, int],
    scheme: str,
) -> None:
    viewport = {"width": size[0], "height": size[1]}
    visit = Visit(browser, reports[night], viewport=viewport, color_scheme=scheme)
    assert all(visit.page.evaluate(DECODED))
    width = visit.page.evaluate("[document.documentElement.scrollWidth, window.innerWidth]")
    assert width[0] <= width[1] == size[0]
    assert visit.complaints == GONE * (2 if night == "hostile" else 0)
    out = Path(reports[night]).parents[2].as_uri()
    asked = [url for url in visit.requests if not url.startswith("data:")]
    assert all(url.startswith(f"{out}/") for url in asked), asked
    visit.close()


def test_the_page_works_from_a_web_server_and_asks_for_nothing_beyond_it(
    browser: Browser, reports: dict[str, str]
) -> None:
    class Files(Quiet, SimpleHTTPRequestHandler):
        pass

    out = Path(reports["solar"]).parents[2]
    with serving(functools.partial(Files, directory=str(out))) as address:
        place = f"http://{address}"
        visit = Visit(browser, f"{place}/report/night={NIGHT}/index.html")
        assert all(visit.page.evaluate(DECODED))
        assert visit.tiles.count() > 0
        assert visit.complaints == []
        assert all(url.startswith((f"{place}/", "data:")) for url in visit.requests)
        visit.close()


def test_without_scripts_the_counts_stand_and_the_lists_say_what_they_need(
    browser: Browser, reports: dict[str, str]
) -> None:
    visit = Visit(browser, reports["solar"], java_script_enabled=False)
    assert visit.page.locator("article.card:visible").count() == 5
    assert visit.page.locator("noscript p.empty:visible").count() == 2
    assert visit.page.locator("button:visible, select:visible").count() == 0
    visit.close()


def test_evil_names_are_shown_as_text_exactly_as_python_spells_them(
    browser: Browser, tmp_path: Path
) -> None:
    maker = NightMaker(tmp_path)
    maker.add_champion("bottle")
    for place, name in enumerate(EVIL):
        maker.add_scored("bottle", name, 9.0 - place / 10)
        maker.add_unscored("bottle", f"lost {name}", "unreadable", name)
    visit = Visit(browser, write_report(maker.write()))
    visit.choose("sort", "high")
    titles = visit.page.locator("figure.tile .uri").evaluate_all("all => all.map(e => e.title)")
    assert titles == [visible(f"{tmp_path}/dump/bottle/{name}") for name in EVIL]
    errors = visit.page.locator("#failure-rows td:nth-child(3)").all_text_contents()
    assert sorted(errors) == sorted(visible(name) for name in EVIL)
    assert visit.complaints == []
    assert all(visit.page.evaluate(DECODED))
    visit.close()


def test_the_browser_lays_the_colours_of_the_overlay_over_the_original(
    browser: Browser, tmp_path: Path
) -> None:
    maker = NightMaker(tmp_path)
    maker.add_champion("bottle")
    levels = np.arange(256, dtype=np.uint8)[None, :224].repeat(224, axis=0)
    maker.add_scored("bottle", "1.png", 3.0)
    row = maker.rows[0]
    row |= dict.fromkeys(REGIONS)
    Image.fromarray(levels).save(row["map_uri"])
    thumbnail = maker.folder.picture("bottle", row["image_uri"], "thumbnails")
    visit = Visit(browser, write_report(maker.write()))
    assert all(visit.page.evaluate(DECODED))
    stack = visit.page.locator(".tile .stack")
    stack.evaluate(CORNER)
    stack.screenshot(path=tmp_path / "shown.png")
    shown = np.asarray(Image.open(tmp_path / "shown.png").convert("RGB"), int)
    expected = heatmap.overlay(np.asarray(Image.open(thumbnail)), levels).astype(int)
    assert shown.shape == expected.shape
    assert np.abs(shown - expected).mean() < 1.0
    assert np.quantile(np.abs(shown - expected), 0.999) <= 4
    visit.page.locator("#heat").fill("0")
    stack.screenshot(path=tmp_path / "original.png")
    original = np.asarray(Image.open(tmp_path / "original.png").convert("RGB"), int)
    assert np.abs(original - np.asarray(Image.open(thumbnail), int)).max() <= 2
    visit.close()


def test_boxes_lie_where_the_regions_are_on_a_picture_of_any_shape(
    browser: Browser, tmp_path: Path
) -> None:
    """The upper right quarter of a picture twice as wide as high, in the middle of a square."""
    maker = NightMaker(tmp_path)
    maker.add_champion("bottle")
    champion, wide = maker.champions["bottle"], Preprocessing(crop=(64, 128), fit="stretch")
    maker.champions["bottle"] = dataclasses.replace(champion, preprocessing=wide)
    maker.add_scored("bottle", HOSTILE_NAMES[1], 9.0)
    region = dict.fromkeys(("area", "share", "peak", "centroid_x", "centroid_y"), 1)
    region |= {"x": 500, "y": 0, "width": 500, "height": 300}
    known = {"image_width": 1000, "image_height": 600, "num_regions": 1, "area_share": 0.25}
    maker.rows[0] |= known | {"regions": [region]}
    visit = Visit(browser, write_report(maker.write()))
    tile = visit.page.locator(".tile .stack").bounding_box()
    box = visit.page.locator(".tile rect.line").bounding_box()
    assert tile is not None
    assert box is not None
    side = tile["width"]
    expected = {"x": side / 2, "y": side / 4, "width": side / 2, "height": side / 4}
    found = {name: box[name] - tile.get(name, 0) * (name in "xy") for name in expected}
    assert found == pytest.approx(expected, abs=2.5)  # the line has a width
    label = visit.page.locator(".tile svg").get_attribute("aria-label")
    assert label == f"1 region of {visible(HOSTILE_NAMES[1])}"
    visit.press("j", "Enter")
    assert "1, 25 % of the image" in visit.page.locator("#view-facts").inner_text()
    assert visit.complaints == []
    visit.close()


def test_no_markup_can_be_made_from_text(browser: Browser, reports: dict[str, str]) -> None:
    visit = Visit(browser, reports["solar"])
    with pytest.raises(Error, match="TrustedHTML"):
        visit.page.evaluate("document.body.innerHTML = '<p>x</p>'")
    with pytest.raises(Error, match="Failed to fetch"):
        visit.page.evaluate("fetch('https://example.org/')")
    assert any("violates the following Content Security Policy" in c for c in visit.complaints)
    visit.close()


def test_a_missing_part_is_named_and_loaded_once_it_is_there(
    browser: Browser, tmp_path: Path
) -> None:
    maker = NightMaker(tmp_path)
    for category in ("bottle", "cable"):
        maker.add_champion(category)
        maker.add_scored(category, f"{category}.png", 3.0)
    uri = write_report(maker.write())
    [part] = Path(uri).parent.glob("data/*-images-1-0.js")
    part.rename(tmp_path / "away.js")
    visit = Visit(browser, uri)
    assert part.name in visit.page.locator("#lost").inner_text()
    visit.choose("category", "0")
    assert visit.names() == ["bottle.png"]
    assert not visit.page.locator("#lost").is_visible()
    (tmp_path / "away.js").rename(part)
    visit.choose("category", "")
    assert visit.names() == ["bottle.png", "cable.png"]
    visit.close()


def test_failures_are_paged_and_filtered(browser: Browser, reports: dict[str, str]) -> None:
    visit = Visit(browser, reports["failed"])
    rows = visit.page.locator("#failure-rows tr")
    assert rows.count() == 25
    pager = visit.page.locator(".failure-pager")
    assert pager.inner_text().split("\n")[1] == "1–25 of 70"
    pager.get_by_role("button", name="Next").click()
    pager.get_by_role("button", name="Next").click()
    visit.page.wait_for_selector("text=51–70 of 70")
    assert rows.count() == 20
    assert pager.get_by_role("button", name="Next").is_disabled()
    visit.page.select_option("#failure-status", label="missing")
    visit.page.locator(".failure-pager[hidden]").wait_for(state="attached")
    assert rows.count() == 10  # 0, 7, ..., 63
    assert set(rows.locator("code").all_text_contents()) == {"missing"}
    visit.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_small_text_has_enough_contrast(
    browser: Browser, reports: dict[str, str], scheme: str
) -> None:
    visit = Visit(browser, reports["solar"], color_scheme=scheme)
    visit.press("j", "a", "r")
    ratios = visit.page.evaluate(CONTRAST)
    assert len(ratios) > 50
    assert min(ratio for ratio, _ in ratios) >= 4.5, min(ratios)  # WCAG 2.2, 1.4.3
    visit.close()


def test_on_paper_there_are_images_and_no_controls(
    browser: Browser, reports: dict[str, str], tmp_path: Path
) -> None:
    visit = Visit(browser, reports["solar"])
    visit.page.emulate_media(media="print")
    assert visit.tiles.first.is_visible()
    assert visit.page.locator("select:visible, input:visible, button:visible").count() == 0
    visit.page.pdf(path=tmp_path / "report.pdf")
    assert visit.page.locator("footer details").get_attribute("open") is not None
    assert visit.complaints == []
    visit.close()


CONTRAST = """() => {
  const parts = colour => colour.match(/[0-9.]+/g).map(Number);
  const linear = v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  const luminance = rgb => [0.2126, 0.7152, 0.0722]
    .reduce((sum, weight, i) => sum + weight * linear(rgb[i] / 255), 0);
  const behind = node => {
    for (; node; node = node.parentElement) {
      const colour = parts(getComputedStyle(node).backgroundColor);
      if (colour.length === 3 || colour[3] === 1) return colour;
    }
  };
  const ratio = node => {
    const pair = [parts(getComputedStyle(node).color), behind(node)].map(luminance);
    return (Math.max(...pair) + 0.05) / (Math.min(...pair) + 0.05);
  };
  const written = node => [...node.childNodes].some(n => n.nodeType === 3 && n.data.trim());
  return [...document.body.querySelectorAll("*:not(script):not(noscript):not(text):not(option)")]
    .filter(written).map(node => [ratio(node), node.textContent.trim().slice(0, 40)]);
}"""
