"""The gate's page in a browser: what a person chooses there can be imported."""

import dataclasses
import datetime as dt
import json
from pathlib import Path

import pytest
from report_visit import open_browser

from model.preprocessing import Preprocessing
from pipeline.labels.foreign import Source
from pipeline.labels.reading import read_labels
from pipeline.promotion.evidence import Evidence, Open, Side
from pipeline.promotion.gate_answer import GateAnswer
from pipeline.promotion.gate_page import gate_page
from pipeline.promotion.gate_verdict import GateConfig, Tally, judge

ODD = 's3://dump/steel/"><img src=x onerror=alert(1)>.png'
TALLY = Tally(
    images=60, defects=2, goods=0, defects_gained=2, defects_lost=0, goods_more=0, goods_fewer=0,
    open_gained=2, open_lost=0, open_alike=0,
)  # fmt: skip


def answer(folder: Path) -> GateAnswer:
    judgement = judge(TALLY, GateConfig(margin=0.2))
    images = [
        Open(
            image_uri=uri, image_etag=etag, category="steel", night="2026-03-12",
            flagged_by="challenger", champion_p=0.5, challenger_p=0.05, champion_score=1.0,
            challenger_score=2.0,
        )
        for uri, etag in ((str(folder / "gone.png"), "e"), (ODD, None))
    ]  # fmt: skip
    side = Side(flagged=1, promised=0.2, ks=0.1)
    evidence = Evidence(
        tally=TALLY, champion=side, challenger=side, nights=["2026-03-12"], left_out={},
        open_images=images,
    )  # fmt: skip
    return GateAnswer(
        category="steel", verdict=judgement.verdict, reason=judgement.reason, champion="1",
        challenger="2", promoted=False, margin=0.2, evidence=evidence, judgement=judgement,
    )  # fmt: skip


def with_open_images(folder: Path, number: int) -> str:
    said = answer(folder)
    assert said.evidence is not None
    first = said.evidence.open_images[0]
    images = [
        dataclasses.replace(first, image_uri=str(folder / f"{place}.png"))
        for place in range(number)
    ]
    evidence = dataclasses.replace(said.evidence, open_images=images)
    return gate_page(dataclasses.replace(said, evidence=evidence), Preprocessing())


def test_all_images_that_are_to_be_labelled_stand_on_the_page(tmp_path: Path) -> None:
    page = with_open_images(tmp_path, 75)
    assert page.count('<figure class="pair">') == 75
    assert "label all of them, then ask again once" in page


def test_those_that_find_no_place_on_the_page_are_named(tmp_path: Path) -> None:
    page = with_open_images(tmp_path, 502)
    assert page.count('<figure class="pair">') == 500
    assert "label all of them and the 2 that are only in gate.json, then ask again once" in page


def test_the_page_says_what_missed_defects_do_to_the_margin(tmp_path: Path) -> None:
    page = gate_page(answer(tmp_path), Preprocessing())  # margin 0.2, 60 images, 2 of them defects
    assert "a share of the 58 images taken for good" in page
    assert "0.222 if d is 10 %, 0.4 if it is 50 %" in page


@pytest.mark.browser
def test_labels_of_the_gates_page_can_be_imported(tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text(gate_page(answer(tmp_path), Preprocessing()))
    with open_browser() as browser:
        page = browser.new_page(viewport={"width": 1000, "height": 1100})
        complaints: list[str] = []
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto((tmp_path / "index.html").as_uri())
        assert page.locator("#download").is_disabled()
        page.locator("figure").nth(0).get_by_text("defect").click()
        page.locator("figure").nth(1).get_by_text("good").click()
        page.locator("figure").nth(1).get_by_text("unsure").click()  # one label an image
        with page.expect_download() as download:
            page.locator("#download").click()
        content = Path(download.value.path()).read_bytes()
        page.screenshot(path=str(tmp_path / "page.png"), full_page=True)
    assert complaints == []
    when = dt.datetime.now(dt.UTC)
    read = read_labels(content, Source(uri="labels.jsonl", read_at=when))
    assert read.problems == {}
    said = {label.image_uri: (label.label, label.night) for label in read.labels.values()}
    assert said == {
        str(tmp_path / "gone.png"): ("defect", "2026-03-12"),
        ODD: ("unsure", "2026-03-12"),
    }
    assert json.loads(content.splitlines()[0])["image_etag"] == "e"
