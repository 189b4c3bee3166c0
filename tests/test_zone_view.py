"""What an inspection says and shows of zones that do not count."""

import base64
import io
from pathlib import Path

import numpy as np
from factory import category, make_category
from PIL import Image

from pipeline.data_report.category_reading import Reader
from pipeline.data_report.inspection import inspect_catalogue
from pipeline.data_report.zone_view import IGNORED, SIDE, line_of_zones, picture_of_zones

HALF = {"size": [96, 96], "ignore": [[[0, 0], [48, 0], [48, 96], [0, 96]]], "min_area": 300}


def test_zones_are_said_and_drawn_over_a_good_image(tmp_path: Path) -> None:
    images = make_category(tmp_path / "images", num_good=4, num_test=1)
    whole, half = category(images, "whole"), category(images, "half", zones=HALF)
    wrong = category(
        images, "wrong", zones={"size": [96, 96], "min_area": 9000, "roi": [0] * 2 + [32] * 2}
    )
    done = inspect_catalogue("c.yaml", [whole, half, wrong], Reader())
    lines = {
        name: {each.check.name: each.check for each in r.lines} for name, r in done.reports.items()
    }
    assert "zones" not in lines["whole"]
    said = "32 of 64 positions of the map count; an anomaly has 3 of them at least"
    assert lines["half"]["zones"].finding == said
    assert "min_area 9000 pixels are" in done.errors["wrong"]
    page = done.files()["index.html"].decode()
    assert page.count('alt="Zones of ') == 1
    assert done.reports["half"].zones_picture in page


def test_the_picture_has_the_whole_image_its_ignored_part_and_a_frame(tmp_path: Path) -> None:
    Image.new("RGB", (192, 96), (0, 200, 0)).save(tmp_path / "a.png")
    zones = {"size": [48, 96], "ignore": [[[0, 0], [48, 0], [48, 48], [0, 48]]]}
    own = category(tmp_path, zones=zones | {"roi": [48, 0, 48, 48]})
    line = line_of_zones(own)
    assert line is not None
    assert line.check.finding.endswith("48 x 48 pixels are looked at")
    address = picture_of_zones(own, [str(tmp_path / "gone.png"), str(tmp_path / "a.png")])
    picture = Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2])))
    assert picture.size == (SIDE, SIDE)
    pixels = np.asarray(picture, int)
    red = np.array(IGNORED) * 0.6 + np.array([0, 200, 0]) * 0.4
    assert np.abs(pixels[SIDE // 2, SIDE // 4] - red).max() < 12
    assert np.abs(pixels[SIDE // 2, 3 * SIDE // 4] - [0, 200, 0]).max() < 12
    assert pixels[SIDE // 2, SIDE // 2 + 1].min() > 150
