"""The report in a real browser: what no parser sees."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from night_maker import NIGHT, NightMaker, hostile_night, solar_night
from playwright.sync_api import Browser, Dialog, sync_playwright

from pipeline.report import write_report

pytestmark = pytest.mark.browser

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
ARGUMENTS = [
    "--no-sandbox",
    "--headless",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
DESKTOP, PHONE = (1280, 900), (390, 844)
DECODED = "Promise.all([...document.images].map(i => i.decode().then(() => i.naturalWidth > 0)))"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.skip(f"no browser installed: none of {', '.join(BROWSERS)} is on the PATH")
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=found, args=ARGUMENTS, timeout=60_000)
        yield running
        running.close()


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("nights")
    failed = NightMaker(folder / "failed")
    failed.add_champion("bottle")
    failed.add_unscored("bottle", "x" * 200, "unreadable", "y" * 300)
    places = {
        "hostile": hostile_night(folder / "hostile"),
        "solar": solar_night(folder / "solar", num_images=60),
        "failed": failed.write(),
        "empty": NightMaker(folder / "empty").write(),
    }
    return {name: write_report(place, NIGHT) for name, place in places.items()}


class Visit:
    """A loaded page with everything that it said and asked for."""

    def __init__(self, browser: Browser, uri: str, **options: Any) -> None:
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self.page = browser.new_page(**options)
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("dialog", self._refuse)
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(Path(uri).as_uri(), wait_until="load")

    def _refuse(self, dialog: Dialog) -> None:
        self.complaints.append(f"dialog: {dialog.message}")
        dialog.dismiss()


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
    assert visit.complaints == []
    asked = [url for url in visit.requests if not url.startswith("data:")]
    assert asked == [Path(reports[night]).as_uri()]
    visit.page.close()


def test_the_filter_leaves_only_flagged_images(browser: Browser, reports: dict[str, str]) -> None:
    visit = Visit(browser, reports["solar"])
    flagged = visit.page.locator("figure.tile:not(.unflagged)").count()
    before = visit.page.locator("figure.tile:visible").count()
    visit.page.get_by_role("button", name="Flagged only").click()
    assert 0 < flagged < before
    assert visit.page.locator("figure.tile:visible").count() == flagged
    visit.page.get_by_role("button", name="All", exact=True).click()
    assert visit.page.locator("figure.tile:visible").count() == before
    visit.page.close()


def test_the_page_is_whole_without_scripts(browser: Browser, reports: dict[str, str]) -> None:
    visit = Visit(browser, reports["solar"], java_script_enabled=False)
    assert visit.page.locator("figure.tile:visible").count() > 0
    assert visit.page.locator("button:visible").count() == 0
    visit.page.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_small_text_has_enough_contrast(
    browser: Browser, reports: dict[str, str], scheme: str
) -> None:
    visit = Visit(browser, reports["solar"], color_scheme=scheme)
    ratios = visit.page.evaluate(CONTRAST)
    assert len(ratios) > 50
    assert min(ratio for ratio, _ in ratios) >= 4.5, min(ratios)  # WCAG 2.2, 1.4.3
    visit.page.close()


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
  return [...document.body.querySelectorAll("*:not(script):not(text)")].filter(written)
    .map(node => [ratio(node), node.textContent.trim().slice(0, 40)]);
}"""
