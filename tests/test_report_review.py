"""An operator's morning, clicked through in a real browser: filter, sort, look, judge, hand in."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from night_maker import NIGHT, NightMaker
from playwright.sync_api import Browser
from report_visit import Visit, open_browser
from typer.testing import CliRunner

from jobs.cli.app import app
from pipeline.night.folder import NightFolder
from pipeline.report.writing import write_report

pytestmark = pytest.mark.browser

NO_STORAGE = "Storage.prototype.setItem = () => { throw new Error('full'); };"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with open_browser() as running:
        yield running


def make_night(
    folder: Path, drift: dict[str, Any] | None = None, discoveries: tuple[str, ...] = ()
) -> str:
    """30 flagged bottles, two flagged cables, one unusual cable that is not flagged."""
    maker = NightMaker(folder)
    maker.add_champion("bottle")
    maker.add_champion("cable")
    for index in range(30):
        maker.add_scored("bottle", f"b{index:02d}.png", 5.0 - index / 10)
        maker.add_scored("cable", f"good{index}.png", 0.5)
    maker.add_scored("cable", "c0.png", 9.0)
    maker.add_scored("cable", "c1.png", 2.0)
    calibration = maker.champions["cable"].reference.calibration
    between = (calibration.scores[-5] + calibration.threshold) / 2
    maker.add_scored("cable", "near.png", between)
    maker.add_unscored("cable", "torn.png", "unreadable", "truncated")
    assert not maker.rows[-2]["flagged"]
    assert maker.rows[-2]["p_value"] <= 0.05
    for row in maker.rows:
        row["flagged_fdr"] = row["image_uri"].endswith(discoveries)
    return write_report(maker.write(drifts=drift))


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    return make_night(tmp_path_factory.mktemp("night"))


@pytest.fixture
def visit(browser: Browser, uri: str) -> Iterator[Visit]:
    opened = Visit(browser, uri, viewport={"width": 1280, "height": 900})
    yield opened
    assert opened.complaints == []
    folder = Path(uri).parents[2].as_uri()
    assert all(url.startswith((f"{folder}/", "data:", "blob:")) for url in opened.requests)
    opened.close()


def test_flagged_images_stand_first_and_each_category_shows_its_worst_before_a_second(
    visit: Visit,
) -> None:
    assert visit.page.locator("#matches").inner_text() == "32 images match"
    assert visit.names()[:6] == ["b00.png", "c0.png", "b01.png", "c1.png", "b02.png", "b03.png"]


def test_filters_by_category_flag_and_p_value(visit: Visit) -> None:
    visit.choose("category", "1")
    assert visit.names() == ["c0.png", "c1.png"]
    visit.choose("show", "all")
    assert visit.names() == ["c0.png", "c1.png", "near.png"]
    visit.choose("show", "unflagged")
    assert visit.names() == ["near.png"]
    visit.choose("p-value", "0.005")
    assert visit.names() == []
    assert visit.page.locator("#matches").inner_text() == "No image matches these filters"
    visit.choose("show", "all")
    assert visit.names() == ["c0.png", "c1.png"]


@pytest.mark.parametrize(("num_above", "limit"), [(9, "0.05"), (1, "0.01"), (0, "0.005")])
def test_a_p_value_at_the_limit_is_within_it(
    browser: Browser, tmp_path: Path, num_above: int, limit: str
) -> None:
    maker = NightMaker(tmp_path)
    maker.add_champion("bottle")  # 199 calibration scores: p = (1 + num_above) / 200
    scores = [*maker.champions["bottle"].reference.calibration.scores, 9.0]
    maker.add_scored("bottle", "edge.png", scores[-num_above - 1])
    assert maker.rows[0]["p_value"] == float(limit)
    visit = Visit(browser, write_report(maker.write()))
    visit.choose("show", "all")
    visit.choose("p-value", limit)
    assert visit.names() == ["edge.png"]
    visit.close()


@pytest.mark.parametrize(
    ("order", "first", "last"),
    [
        ("high", "c0.png", "near.png"),
        ("low", "near.png", "c0.png"),
        ("likely", "near.png", "b29.png"),
        ("category", "b00.png", "near.png"),
    ],
)
def test_sorts_all_images_not_only_those_of_the_page(
    visit: Visit, order: str, first: str, last: str
) -> None:
    visit.choose("show", "all")
    visit.choose("sort", order)
    assert visit.names()[0] == first
    visit.page.locator(".image-pager").first.get_by_role("button", name="Next").click()
    visit.page.get_by_text("25–33 of 33").first.wait_for()
    assert visit.names()[-1] == last


def test_only_one_page_is_in_the_document_and_pages_turn(visit: Visit) -> None:
    pager = visit.page.locator(".image-pager").first
    assert visit.tiles.count() == 24
    assert pager.get_by_role("button", name="Previous").is_disabled()
    pager.get_by_role("button", name="Next").click()
    visit.page.get_by_text("25–32 of 32").first.wait_for()
    assert visit.tiles.count() == 8
    assert pager.get_by_role("button", name="Next").is_disabled()


def test_a_card_leads_to_its_own_images(visit: Visit) -> None:
    visit.page.get_by_role("button", name="Look at the 2 flagged images").click()
    visit.page.locator("figure.tile:focus").wait_for()
    assert visit.names() == ["c0.png", "c1.png"]
    assert visit.focused() == "c0.png"


def test_the_slider_fades_the_heat_maps(visit: Visit) -> None:
    heat = visit.page.locator(".tile .heat").first
    assert heat.evaluate("e => getComputedStyle(e).opacity") == "1"
    visit.page.locator("#heat").focus()
    visit.press(*["ArrowLeft"] * 30)
    assert heat.evaluate("e => getComputedStyle(e).opacity") == "0.7"
    assert visit.focused() == ""  # arrows on the slider move nothing else


def test_keys_move_judge_and_undo(visit: Visit) -> None:
    visit.press("j")
    assert visit.focused() == "b00.png"
    visit.press("j", "ArrowRight", "k")
    assert visit.focused() == "c0.png"
    visit.press("ArrowDown")
    assert visit.focused() == "b03.png"  # four tiles in a row at this width
    visit.press("ArrowUp", "ArrowLeft")
    assert visit.focused() == "b00.png"
    visit.press("a")
    assert (visit.label_of("b00.png"), visit.focused()) == ("defect", "c0.png")
    visit.press("r")
    assert (visit.label_of("c0.png"), visit.focused()) == ("good", "b01.png")
    visit.press("u")
    assert (visit.label_of("c0.png"), visit.focused()) == ("none", "c0.png")
    given = visit.page.locator("#given").inner_text()
    assert given == "1 label in this browser: 1 defect, 0 false alarms"


def test_of_an_image_somebody_may_be_unsure(visit: Visit) -> None:
    visit.press("j", "s", "Enter", "s", "Escape")
    assert [visit.label_of(name) for name in ("b00.png", "c0.png")] == ["unsure", "unsure"]
    given = visit.page.locator("#given").inner_text()
    assert given == "2 labels in this browser: 0 defects, 0 false alarms, 2 unsure"
    button = visit.tiles.first.get_by_role("button", name="Unsure")
    assert button.get_attribute("aria-pressed") == "true"
    button.click()
    assert visit.label_of("b00.png") == "none"
    visit.choose("show", "unsure")
    assert visit.names() == ["c0.png"]


def test_keys_cross_the_border_of_a_page(visit: Visit) -> None:
    visit.press("j", *["ArrowDown"] * 6)
    assert visit.page.get_by_text("25–32 of 32").first.is_visible()
    assert visit.focused() == visit.names()[0] == "b22.png"
    visit.press("k")
    assert visit.focused() == visit.names()[-1] == "b21.png"


def test_letters_do_nothing_while_somebody_is_elsewhere(visit: Visit) -> None:
    visit.page.locator("#show").focus()
    visit.press("j", "a", "r")
    assert visit.page.locator("#given").inner_text() == "No labels in this browser yet"
    visit.page.locator("#download").focus()
    visit.press("a")
    assert visit.page.locator("#download").is_disabled()


def test_the_tab_key_reaches_the_image_and_its_buttons_and_the_focus_is_seen(visit: Visit) -> None:
    visit.press("j", "Tab")
    assert visit.page.locator("button:focus").inner_text() == "Defect"
    visit.press("Enter")
    assert visit.label_of("b00.png") == "defect"
    visit.press("Tab", "Tab", "Tab")
    assert visit.page.locator("figure.tile :focus").count() == 0  # other tiles are skipped
    visit.press(*["Shift+Tab"] * 4)
    assert visit.focused() == "b00.png"
    outline = visit.page.locator("figure.tile:focus").evaluate(
        "e => getComputedStyle(e).outlineStyle"
    )
    assert outline == "solid"


def test_a_pressed_button_pressed_again_takes_the_label_back(visit: Visit) -> None:
    button = visit.tiles.first.get_by_role("button", name="False alarm")
    button.click()
    assert button.get_attribute("aria-pressed") == "true"
    button.click()
    assert button.get_attribute("aria-pressed") == "false"
    assert visit.label_of("b00.png") == "none"


def test_one_image_large_with_a_wipe_keys_and_the_way_back(visit: Visit) -> None:
    visit.press("j", "Enter")
    view = visit.page.locator("#view")
    assert view.is_visible()
    assert "b00.png" in view.locator("#view-address").inner_text()
    assert view.locator("#view-position").inner_text() == "1 of 32"
    view.locator("#wipe").fill("25")
    clip = view.locator(".heat").evaluate("e => getComputedStyle(e).clipPath")
    assert clip in {"inset(0px calc(75%) 0px 0px)", "inset(0px 75% 0px 0px)"}
    view.locator(".shown").focus()
    visit.press("r", "a")
    assert view.locator("#view-position").inner_text() == "3 of 32"
    assert (visit.label_of("b00.png"), visit.label_of("c0.png")) == ("good", "defect")
    visit.press("u")
    assert "c0.png" in view.locator("#view-address").inner_text()
    pressed = view.locator("[data-judge='defect']").get_attribute("aria-pressed")
    assert (pressed, visit.label_of("c0.png")) == ("false", "none")
    visit.press("Escape")
    assert not view.is_visible()
    assert visit.focused() == "c0.png"


def test_every_picture_has_words(visit: Visit) -> None:
    alts = visit.page.locator("figure.tile img").evaluate_all("all => all.map(e => e.alt)")
    assert alts[:2] == ["Original of b00.png", "Heat map over b00.png"]
    assert all(alts)
    unnamed = visit.page.evaluate(
        "[...document.querySelectorAll('select, input')].filter(e => !e.labels.length).length"
    )
    assert unnamed == 0


def test_from_the_page_to_the_next_report(browser: Browser, tmp_path: Path) -> None:
    """Judge, leave, come back, download, import, and see the labels in a browser without any."""
    uri = make_night(tmp_path)
    visit = Visit(browser, uri)
    visit.press("j", "a", "r", "a", "s")  # b00 defect, c0 good, b01 defect, c1 unsure
    visit.page.reload()
    visit.settle()
    assert [visit.label_of(name) for name in ("b00.png", "c0.png", "b01.png", "c1.png")] == [
        "defect", "good", "defect", "unsure",
    ]  # fmt: skip
    visit.choose("show", "open")
    assert visit.page.locator("#matches").inner_text() == "28 images match"
    with visit.page.expect_download() as started:
        visit.page.get_by_role("button", name="Download labels").click()
    file = tmp_path / started.value.suggested_filename
    started.value.save_as(file)
    assert file.name == f"labels-{NIGHT}.jsonl"
    lines = {Path(line["image_uri"]).name: line for line in map(json.loads, file.open())}
    assert {name: line["label"] for name, line in lines.items()} == {
        "b00.png": "defect", "c0.png": "good", "b01.png": "defect", "c1.png": "unsure",
    }  # fmt: skip
    assert {key: value for key, value in lines["b00.png"].items() if key != "labelled_at"} == {
        "image_uri": f"{tmp_path}/dump/bottle/b00.png",
        "image_etag": "e",
        "category": "bottle",
        "label": "defect",
        "night": NIGHT,
        "model_name": "nightshift.bottle",
        "model_version": "1",
    }
    assert visit.complaints == []
    visit.close()

    done = CliRunner().invoke(app, ["labels", "import", str(file), "--out", str(tmp_path)])
    assert done.exit_code == 0, done.output
    assert "4 new labels" in done.stdout
    assert ["bottle", "2", "2", "2", "2", "100%"] in [
        row.split() for row in done.stdout.split("\n")
    ]
    write_report(NightFolder(str(tmp_path), NIGHT))
    other = Visit(browser, uri)
    assert other.page.locator("#given").inner_text() == "No labels in this browser yet"
    other.choose("show", "defect")
    assert other.names() == ["b00.png", "b01.png"]
    other.choose("show", "good")
    assert other.names() == ["c0.png"]
    other.choose("show", "unsure")
    assert other.names() == ["c1.png"]
    other.choose("show", "good")
    assert other.label_of("c0.png") == "good"
    other.press("j", "a")  # whoever looks again may think otherwise
    assert other.label_of("c0.png") == "defect"
    other.press("u")
    assert other.label_of("c0.png") == "good"
    assert other.complaints == []
    other.close()


def test_what_was_imported_is_taken_back_by_pressing_its_label_again(
    browser: Browser, tmp_path: Path
) -> None:
    uri = make_night(tmp_path)
    said = {"image_uri": f"{tmp_path}/dump/bottle/b00.png", "category": "bottle", "label": "good"}
    said |= {"night": NIGHT, "labelled_at": "2026-03-13T06:00:00Z"}
    (tmp_path / "labels.jsonl").write_text(json.dumps(said))
    imported = ["labels", "import", str(tmp_path / "labels.jsonl"), "--out", str(tmp_path)]
    assert CliRunner().invoke(app, imported).exit_code == 0
    write_report(NightFolder(str(tmp_path), NIGHT))
    visit = Visit(browser, uri)
    tile = visit.tiles.filter(has=visit.page.get_by_text("b00.png", exact=True))
    assert visit.label_of("b00.png") == "good"
    tile.get_by_role("button", name="False alarm").click()
    assert visit.label_of("b00.png") == "none"
    given = visit.page.locator("#given").inner_text()
    assert given == "1 label in this browser: 0 defects, 0 false alarms, 1 taken back"
    visit.page.reload()
    visit.settle()
    assert visit.label_of("b00.png") == "none"
    with visit.page.expect_download() as started:
        visit.page.get_by_role("button", name="Download labels").click()
    started.value.save_as(tmp_path / "labels.jsonl")
    assert visit.complaints == []
    visit.close()
    assert "1 taken back" in CliRunner().invoke(app, imported).stdout
    write_report(NightFolder(str(tmp_path), NIGHT))
    other = Visit(browser, uri)
    assert other.label_of("b00.png") == "none"
    other.close()


def test_labels_of_one_night_are_not_those_of_another(browser: Browser, tmp_path: Path) -> None:
    visit = Visit(browser, make_night(tmp_path / "one"))
    visit.press("j", "a")
    visit.page.goto(Path(make_night(tmp_path / "two")).as_uri())
    visit.settle()
    assert visit.page.locator("#given").inner_text() == "No labels in this browser yet"
    visit.close()


def test_a_browser_that_keeps_nothing_says_so_and_still_hands_out_labels(
    browser: Browser, uri: str
) -> None:
    visit = Visit(browser, uri, init_script=NO_STORAGE)
    assert not visit.page.locator("#loss").is_visible()
    visit.press("j", "a")
    assert visit.page.locator("#loss").is_visible()
    with visit.page.expect_download() as started:
        visit.page.get_by_role("button", name="Download labels").click()
    [line] = Path(started.value.path()).read_text().splitlines()
    assert json.loads(line)["label"] == "defect"
    visit.close()


def test_a_shifted_category_is_folded_away_until_somebody_asks(
    browser: Browser, tmp_path: Path
) -> None:
    uri = make_night(tmp_path, {"bottle": {"alert": True, "reason": "darker", "score_ks": 0.5}})
    visit = Visit(browser, uri)
    assert visit.names() == ["c0.png", "c1.png"]
    fold = visit.page.locator("#fold")
    assert fold.inner_text().startswith("30 images of bottle folded away")
    visit.choose("category", "1")
    assert not fold.is_visible()
    visit.choose("category", "")
    fold.get_by_role("button", name="Show them").click()
    visit.settle()
    assert visit.page.locator("#matches").inner_text() == "32 images match"
    assert not fold.is_visible()
    visit.page.reload()
    visit.settle()
    visit.page.locator(".alert").get_by_role("button", name="Show them").click()
    visit.page.locator("figure.tile:focus").wait_for()
    assert visit.page.locator("#matches").inner_text() == "30 images match"
    assert visit.complaints == []
    visit.close()


def test_discoveries_can_be_chosen_where_there_are_any(
    browser: Browser, uri: str, tmp_path: Path
) -> None:
    plain = Visit(browser, uri)
    assert plain.page.locator("#show option[value=discoveries]").count() == 0
    plain.close()
    visit = Visit(browser, make_night(tmp_path, discoveries=("c0.png", "near.png")))
    assert "Discoveries: 2" in visit.page.locator("header").inner_text()
    visit.choose("show", "discoveries")
    assert visit.names() == ["c0.png", "near.png"]
    states = visit.tiles.locator(".badge").all_inner_texts()
    found = [state.removesuffix(", audit") for state in states]  # the sample goes by addresses
    assert found == ["Flagged, discovery", "Not flagged, discovery"]
    visit.close()


def test_a_budget_that_ends_within_a_sample_is_longer_by_the_rest_of_it(
    browser: Browser, tmp_path: Path
) -> None:
    make_night(tmp_path)
    folder = NightFolder(str(tmp_path), NIGHT)
    summary = json.loads(Path(folder.summary).read_text()) | {"audit_images": 24}
    Path(folder.summary).write_text(json.dumps(summary))
    visit = Visit(browser, write_report(folder))
    visit.choose("show", "first")
    visit.choose("budget", "20")
    assert visit.page.locator("#matches").inner_text() == "24 images match"
    badges = visit.page.locator("figure.tile .badge").all_inner_texts()
    assert all(badge.endswith(", audit") for badge in badges)
    visit.close()


def test_images_worth_a_label_come_within_a_budget_and_half_of_them_are_audit(
    visit: Visit,
) -> None:
    visit.page.get_by_role("button", name="Look at the images most worth a label").click()
    visit.choose("budget", "20")
    assert visit.page.locator("#matches").inner_text() == "20 images match"
    badges = visit.page.locator("figure.tile .badge").all_inner_texts()
    assert [badge.endswith(", audit") for badge in badges] == 2 * (5 * [True] + 5 * [False])
    visit.page.get_by_role("button", name="Look at the audit sample").click()
    visit.settle()
    badges = visit.page.locator("figure.tile .badge").all_inner_texts()
    assert len(badges) == 10
    assert all(badge.endswith(", audit") for badge in badges)
    usual = visit.page.locator("figure.tile.unflagged").first
    assert usual.locator("[data-judge=good]").inner_text() == "Good"
    usual.locator("[data-judge=good]").click()
    assert "1 false alarm" in visit.page.locator("#given").inner_text()
