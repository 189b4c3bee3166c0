"""A report in headless Chromium, with everything that the page said and asked for."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Dialog, Locator, sync_playwright

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


@contextmanager
def open_browser() -> Iterator[Browser]:
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.skip(f"no browser installed: none of {', '.join(BROWSERS)} is on the PATH")
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=found, args=ARGUMENTS, timeout=60_000)
        yield running
        running.close()


class Visit:
    """A page in a browser context of its own, once it has shown its data."""

    def __init__(self, browser: Browser, uri: str, **options: Any) -> None:
        self.complaints: list[str] = []
        self.requests: list[str] = []
        init_script = options.pop("init_script", "")
        self.context = browser.new_context(accept_downloads=True, **options)
        self.page = self.context.new_page()
        if init_script:
            self.page.add_init_script(init_script)
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("dialog", self._refuse)
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(uri if "://" in uri else Path(uri).as_uri(), wait_until="load")
        if options.get("java_script_enabled", True):
            self.settle()

    def _refuse(self, dialog: Dialog) -> None:
        self.complaints.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def settle(self) -> None:
        """Wait until what was asked for is shown."""
        if self.page.locator("html").get_attribute("data-files"):
            self.page.locator("html[data-ready]").wait_for(state="attached", timeout=10_000)
        if self.page.locator("#tiles").count():
            self.page.locator("#tiles:not([aria-busy])").wait_for(state="attached")

    def choose(self, select: str, value: str) -> None:
        self.page.select_option(f"#{select}", value)
        self.settle()

    def press(self, *keys: str) -> None:
        for key in keys:
            self.page.keyboard.press(key)
            self.settle()

    @property
    def tiles(self) -> Locator:
        return self.page.locator("figure.tile")

    def names(self) -> list[str]:
        return self.page.locator("figure.tile .uri b").all_text_contents()

    def focused(self) -> str:
        """Name of the image that has the focus, or nothing."""
        found = self.page.locator("figure.tile:focus .uri b")
        return found.inner_text() if found.count() else ""

    def label_of(self, name: str) -> str | None:
        tile = self.tiles.filter(has=self.page.get_by_text(name, exact=True))
        return tile.get_attribute("data-said")

    def close(self) -> None:
        self.context.close()
