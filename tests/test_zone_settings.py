"""What the catalogue says of zones: what is refused, and which polygons are right."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from factory import category

from model.zones import Zones
from pipeline.catalogue.catalogue import CatalogueError, load_catalogue
from pipeline.catalogue.zone_settings import ZoneSettings
from pipeline.onboarding.zones import zones_of

HALF = {"size": [96, 96], "ignore": [[[0, 0], [48, 0], [48, 96], [0, 96]]]}


@pytest.mark.parametrize(
    ("zones", "message"),
    [
        ({"min_area": 5}, "zones: size is required"),
        ({"size": [96, 96], "min_area": 9217}, "zones: min_area 9217 is more than the 9216 pix"),
        ({"size": [96, 96], "min_area": 0}, "zones.min_area: Input should be greater than 0"),
        ({"size": [96, 96], "roi": [60, 0, 40, 40]}, r"zones: roi \[60, 0, 40, 40\] is not inside"),
        ({"size": [96, 96], "roi": [-1, 0, 40, 40]}, "is not inside of the 96 x 96 pixels"),
        ({"size": [96, 96], "roi": [0, 0, 40, 31]}, "zones: roi is 40 x 31 pixels; it needs 32"),
        ({"size": [96, 96], "ignore": [[[0, 0], [9, 9]]]}, "zones.ignore: expected polygons, each"),
        ({"size": [96, 96], "ignore": 3}, "zones.ignore: expected polygons, each"),
        (
            {"size": [96, 96], "ignore": [[[0, 0], [97, 0], [0, 9]]]},
            r"1 of 3 .* first \[97.0, 0.0\]",
        ),
        ({"size": [96, 96], "ignore": [[[0, 0], [9, 9], [9, 0], [0, 9]]]}, "0]: crosses itself be"),
        ({"size": [96, 96], "ignore": [[[0, 0], [9, 9], [18, 18]]]}, "all points lie on one line"),
        ({"size": [96, 96], "ignore": [[[9, 9]] * 4]}, "all points lie on one line"),
        (
            {"size": [96, 96], "ignore": [[[0, 0], [0, 0], [9, 9], [9, 0], [0, 9], [0, 0]]]},
            "crosses itself between points 2 and 4",
        ),
        (
            {"size": [96, 96], "ignore": [[[0, 0], [8, 0], [8, 8], [4, 0], [0, 8]]]},
            "crosses itself between points 1 and 3",  # touches it
        ),
        ({"sise": [96, 96]}, "zones.sise: unknown key; did you mean `size`"),
    ],
)
def test_zones_that_cannot_be_are_refused_in_one_line(
    zones: dict[str, Any], message: str, tmp_path: Path
) -> None:
    entry = {"name": "steel", "images": "x", "zones": zones}
    (tmp_path / "c.yaml").write_text(json.dumps({"categories": [entry]}))
    with pytest.raises(CatalogueError, match=message) as told:
        load_catalogue(str(tmp_path / "c.yaml"))
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    "polygon",
    [
        HALF["ignore"][0],
        [*HALF["ignore"][0], HALF["ignore"][0][0]],  # closed, as GeoJSON has it
        [point for point in HALF["ignore"][0] for _ in range(3)],
        [*HALF["ignore"][0], [0, 50]],  # one more on an edge
        list(reversed(HALF["ignore"][0])),
    ],
    ids=["open", "closed", "doubled", "on an edge", "reversed"],
)
def test_a_polygon_may_be_closed_and_have_a_point_twice(polygon: Any) -> None:
    assert zones_of(category("x", zones=HALF | {"ignore": [polygon]})) == Zones(
        ignored=("11110000",) * 8
    )


def test_a_polygon_of_many_points_is_checked_as_one_of_few() -> None:
    angles = np.linspace(0, 2 * np.pi, 500, endpoint=False)
    circle = np.stack([48 + 40 * np.cos(angles), 48 + 40 * np.sin(angles)], axis=1)
    assert ZoneSettings(size=(96, 96), ignore=[circle.tolist()]).is_set
    circle[[100, 300]] = circle[[300, 100]]
    with pytest.raises(ValueError, match="crosses itself between points 50 and 151"):
        ZoneSettings(size=(96, 96), ignore=[circle[::2].tolist()])
    star = 48 + 48j + 40 * np.exp(4j * np.pi * np.arange(5) / 5)
    with pytest.raises(ValueError, match="crosses itself between points 1 and 3"):
        ZoneSettings(size=(96, 96), ignore=[[(p.real, p.imag) for p in star]])
