"""What a study may search, and what a configuration changes."""

import math
from pathlib import Path
from typing import Any

import pytest
import yaml
from command_line import Run
from factory import SETTINGS, category

from pipeline.catalogue.catalogue import CatalogueError, load_catalogue
from pipeline.study.settings import Study, differences, load_study
from pipeline.study.space import (
    DEFAULT_SPACE,
    PARAMETERS,
    Domain,
    WrongDomain,
    apply,
    decode,
    findings_of_values,
    label,
    read_domain,
    read_space,
)


def study(tmp_path: Path, section: Any, **changes: Any) -> Study:
    document = {
        "defaults": SETTINGS,
        "categories": [{"name": "steel", "images": "steel"}],
        "study": section,
    }
    path = tmp_path / "catalogue.yaml"
    path.write_text(yaml.safe_dump(document))
    return load_study(str(path), "first", load_catalogue(str(path)), changes)


@pytest.mark.parametrize(
    ("given", "expected", "values"),
    [
        ({"uniform": [0, 2]}, Domain("uniform", (0, 2)), (0, 2)),
        ({"loguniform": [0.1, 4]}, Domain("loguniform", (0.1, 4)), (0.1, 4)),
        ({"quniform": [0, 1, 0.25]}, Domain("quniform", (0, 1, 0.25)), (0, 1)),
        ({"randint": [10, 41]}, Domain("randint", (10, 41)), (10, 40)),
        ({"choice": ["a", "b"]}, Domain("choice", ("a", "b")), ("a", "b")),
        ({"grid": [[2], [2, 3]]}, Domain("grid", ([2], [2, 3])), ([2], [2, 3])),
        (0.5, Domain("choice", (0.5,)), (0.5,)),
    ],
)
def test_a_domain_is_read_as_users_of_ray_tune_write_it(
    given: Any, expected: Domain, values: tuple[Any, ...]
) -> None:
    assert read_domain(given) == expected
    assert expected.values == values
    assert read_domain(expected.to_json()) == expected


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"normal": [0, 1]}, "expected one of uniform, loguniform"),
        ({"uniform": [0, 1], "choice": [1]}, "expected one of"),
        ({"choice": []}, "expected a list of values"),
        ({"choice": 3}, "expected a list of values"),
        ({"uniform": [1]}, r"expected \[low, high\]"),
        ({"uniform": ["a", "b"]}, r"expected \[low, high\], numbers"),
        ({"uniform": [2, 1]}, "nothing lies in"),
        ({"loguniform": [0, 1]}, "above 0"),
        ({"quniform": [0, 1]}, r"expected \[low, high, step\]"),
        ({"randint": [3, 3]}, "nothing lies in"),
        ({"randint": [1.5, 3]}, "whole numbers"),
        ({"uniform": [0, math.inf]}, "numbers"),
    ],
)
def test_a_domain_that_nothing_can_be_drawn_from_is_refused(given: Any, why: str) -> None:
    with pytest.raises(WrongDomain, match=why):
        read_domain(given)


def test_the_default_space_fits_the_default_settings() -> None:
    space, findings = read_space(DEFAULT_SPACE)
    assert findings == []
    assert findings_of_values(space, category("/nowhere")) == []


def test_an_unknown_parameter_and_an_empty_space_are_named() -> None:
    assert read_space({"sigmas": 1, "th_plus": 1})[1] == [
        "sigmas: unknown parameter; did you mean `sigma`?"
    ]
    for given in ({}, {"sigma": 1.0, "layers": [2, 3]}):
        (finding,) = read_space(given)[1]
        assert finding.startswith(f"the space is empty: {len(given)} parameters")
    (finding,) = read_space({"crop": {"randint": [64, 128]}})[1]
    assert "expected a choice or a grid" in finding


@pytest.mark.parametrize(
    ("space", "why"),
    [
        ({"layers": {"choice": [[2], [2, 5]]}}, "layers: 2+5: layers must be an ascending subset"),
        ({"layers": {"choice": [2, 3]}}, "layers: 2: Input should be a valid list"),
        ({"patch_size": {"choice": [3, 4]}}, "patch_size: 4: Input should be 1, 3, 5 or 7"),
        (
            {"backbone": {"choice": ["resnet18", "resnet"]}},
            "backbone: resnet: no backbone `resnet`",
        ),
        ({"sigma": {"uniform": [0, 1]}}, "sigma: 0: Input should be greater than 0"),
        (
            {"sigma_spread": {"choice": [0.5, 2]}},
            "sigma_spread: 0.5: Input should be greater than or",
        ),
        (
            {"passes": {"choice": [1, 2.5]}},
            "passes: 2.5: Input should be a valid integer",
        ),
        ({"loss": {"choice": ["truncated_l1", "l2"]}}, "loss: l2: Input should be 'truncated_l1'"),
        ({"crop": {"choice": [64, 100]}}, "crop: 100: "),
    ],
)
def test_a_value_that_a_category_cannot_be_trained_with_is_named(
    tmp_path: Path, space: Any, why: str
) -> None:
    with pytest.raises(CatalogueError) as error:
        study(tmp_path, {"space": space})
    assert f"study.space.{why}" in str(error.value)
    assert "(steel)" in str(error.value)


def test_every_parameter_changes_the_setting_it_names() -> None:
    steel = category("/nowhere", resize=80, training={"sigma": (0.5, 2.0)})
    changed = apply(
        {
            "sigma": 2.0,
            "sigma_spread": 4,
            "sigma_unit": "channel_std",
            "th_plus": 0.25,
            "loss": "cross_entropy",
            "hidden": 16.0,
            "adaptor": "linear",
            "passes": 7,
            "layers": (1, 3),
            "patch_size": 5,
            "backbone": "resnet18",
            "crop": 96,
            "fit": "pad",
        },
        steel,
    )
    patch = changed.recipe.patch
    assert patch.sigma == (1.0, 4.0)  # 2 / sqrt(4) to 2 x sqrt(4)
    assert patch.margins == (0.25, steel.recipe.patch.margins[1])
    assert (patch.sigma_unit, patch.loss, patch.passes) == ("channel_std", "cross_entropy", 7)
    assert (patch.head.hidden, patch.head.adaptor) == (16, "linear")
    assert (changed.layers, changed.patch_size, changed.backbone) == ([1, 3], 5, "resnet18")
    assert (changed.preprocessing.crop, changed.preprocessing.fit) == (96, "pad")
    assert changed.preprocessing.resize == 120  # 80 x 96 / 64
    assert set(PARAMETERS) - {"th_minus"} <= {
        *("sigma", "sigma_spread", "sigma_unit", "th_plus", "loss", "hidden", "adaptor", "passes"),
        *("layers", "patch_size", "backbone", "crop", "fit"),
    }


def test_the_centre_of_sigma_moves_and_its_spread_stays_unless_it_is_given() -> None:
    steel = category("/nowhere", training={"sigma": (0.5, 2.0)})
    assert apply({"sigma": 3.0}, steel).recipe.patch.sigma == (1.5, 6.0)
    assert apply({"sigma_spread": 1}, steel).recipe.patch.sigma == (1.0, 1.0)
    assert apply({}, steel) == steel


def test_weights_of_one_backbone_are_never_those_of_another(tmp_path: Path) -> None:
    found = study(
        tmp_path,
        {
            "space": {"backbone": {"choice": ["efficientnet_lite0", "resnet18", "resnet50"]}},
            "weights": {"resnet18": "own.pth"},
        },
    )
    steel = category("/nowhere", weights="lite.pth")
    assert found.apply({"backbone": "efficientnet_lite0"}, steel).weights_uri == "lite.pth"
    assert found.apply({"backbone": "resnet18"}, steel).weights_uri == str(tmp_path / "own.pth")
    assert found.apply({"backbone": "resnet50"}, steel).weights_uri is None


def test_a_list_goes_by_its_label_and_comes_back() -> None:
    space, _ = read_space({"layers": {"choice": [[2], [2, 3]]}, "sigma": {"uniform": [1, 2]}})
    assert [label(value) for value in space["layers"].arguments] == ["2", "2+3"]
    assert decode({"layers": "2+3", "sigma": 1.5}, space) == {"layers": [2, 3], "sigma": 1.5}


def test_the_section_has_defaults_and_refuses_what_it_does_not_know(tmp_path: Path) -> None:
    plain = study(tmp_path, None, trials=7)
    assert plain.settings.trials == 7
    assert set(plain.space) == set(DEFAULT_SPACE)
    assert plain.num_combinations is None
    grids = {"sigma": {"grid": [1, 2, 3]}, "th_plus": {"grid": [0.1, 0.5]}}
    assert study(tmp_path, {"space": grids}).num_combinations == 6
    with pytest.raises(CatalogueError, match=r"study.trails: unknown key; did you mean `trials`"):
        study(tmp_path, {"trails": 3})
    with pytest.raises(CatalogueError, match=r"study.trials: .*greater than 0; found 0"):
        study(tmp_path, {"trials": 0})


def test_a_layout_or_a_backbone_that_there_is_not_is_named(tmp_path: Path) -> None:
    section = {
        "validation": {"steel": {"images": "labelled", "layout": "mvtek"}},
        "weights": {"resnet81": "own.pth"},
    }
    with pytest.raises(CatalogueError) as error:
        study(tmp_path, section)
    assert "study.validation.steel.layout: no layout `mvtek`; did you mean" in str(error.value)
    assert "study.weights.resnet81: no backbone `resnet81`; did you mean" in str(error.value)


def test_two_studies_differ_where_their_settings_do(tmp_path: Path) -> None:
    first = study(tmp_path, {"trials": 5}).identity
    second = study(tmp_path, {"trials": 6, "space": {"sigma": {"uniform": [1, 2]}}}).identity
    assert differences(first, first) == []
    lines = differences(first, second)
    assert "study.trials: 5 -> 6" in lines
    assert 'space.sigma: {"loguniform": [0.25, 4.0]} -> {"uniform": [1, 2]}' in lines
    assert 'space.th_plus: {"uniform": [0.1, 1.0]} -> (not there)' in lines


def test_concurrency_is_no_part_of_what_a_study_is(tmp_path: Path) -> None:
    assert study(tmp_path, {"concurrency": 1}).identity == study(tmp_path, {}).identity


def test_an_empty_space_is_one_line_for_the_operator(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "catalogue.yaml"
    document = {"categories": [{"name": "steel", "images": "x"}], "study": {"space": {"sigma": 1}}}
    path.write_text(yaml.safe_dump(document))
    assert "the space is empty" in run("tune", path, "--study", "first").refusal()
