"""The catalogue: what it may say, and what is said about everything else."""

import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline import storage
from pipeline.catalogue.catalogue import (
    CatalogueError,
    Category,
    Settings,
    load_catalogue,
    select,
)
from pipeline.onboarding.key import onboarding_key

SHA256 = "5f" * 32
PUBLISHED = ("paper", "official")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "catalogue.yaml"


def entry(**settings: Any) -> dict[str, Any]:
    return {"name": "bottle", "images": "bottle", **settings}


def load(path: Path, *entries: Any, **top: Any) -> list[Category]:
    path.write_text(yaml.safe_dump({**top, "categories": list(entries)}))
    return load_catalogue(str(path))


def findings(path: Path, text: str) -> list[str]:
    """What is found wrong with a file, one entry per line, each without the file's name."""
    path.write_text(text)
    with pytest.raises(CatalogueError, match=r"catalogue\.yaml") as caught:
        load_catalogue(str(path))
    lines = str(caught.value).splitlines()
    assert all(line.startswith(f"{path}: ") for line in lines)
    return [line.removeprefix(f"{path}: ") for line in lines]


def test_two_lines_are_enough_and_the_rest_has_defaults(path: Path) -> None:
    (bottle,) = load(path, entry())
    assert (bottle.name, bottle.layout, bottle.backbone) == ("bottle", "mvtec", "wide_resnet50_2")
    assert (bottle.layers, bottle.weights_uri, bottle.false_alarm_rate) == ([2, 3], None, 0.01)
    assert (bottle.preprocessing.resize, bottle.preprocessing.crop) == (256, 224)


@pytest.mark.parametrize(
    ("preset", "fit", "sizes", "heads"),
    [
        ("default", "stretch", (256, 224), ("paper", 4)),
        ("paper", "crop", (256, 224), ("paper", 1)),
        ("official", "crop", (329, 288), ("official", 1)),
    ],
)
def test_a_preset_brings_images_features_and_heads_and_leaves_room_for_changes(
    path: Path, preset: str, fit: str, sizes: tuple[int, int], heads: tuple[str, int]
) -> None:
    (found,) = load(path, entry(preset=preset))
    seen = found.preprocessing
    assert (seen.fit, (seen.resize, seen.crop)) == (fit, sizes)
    assert (found.embedding.kind, found.recipe.members) == heads
    (changed,) = load(path, entry(preset=preset, fit="pad", crop=128, embedding_kind="paper"))
    seen = changed.preprocessing
    assert (seen.fit, seen.resize, seen.crop) == ("pad", sizes[0], 128)
    assert changed.embedding.kind == "paper"


def test_the_numeric_mode_is_float32_until_another_one_is_asked_for(path: Path) -> None:
    for preset in ("default", *PUBLISHED):
        assert load(path, entry(preset=preset))[0].backbone_config.precision == "float32"
    (given,) = load(path, entry(preset="paper", precision="bfloat16"))
    assert given.backbone_config.precision == "bfloat16"
    (to_choose,) = load(path, entry(precision="auto"))
    assert to_choose.backbone_config.precision == "float32"  # until onboarding has tried both
    with pytest.raises(CatalogueError, match="precision"):
        load(path, entry(precision="float16"))


def test_the_released_codes_presets_are_as_published(path: Path) -> None:
    paper, official = (load(path, entry(preset=name))[0].recipe.patch for name in PUBLISHED)
    assert (paper.batch_images, official.batch_images) == (4, 8)
    assert (paper.optimisers, official.optimisers) == (("adam", "adam"), ("adam", "adamw"))
    for recipe in (paper, official):
        assert (recipe.sigma, recipe.sigma_unit) == ((0.015, 0.015), "absolute")
        assert recipe.margins == (0.5, 0.5)
        assert (recipe.head.adaptor, recipe.head.hidden, recipe.passes) == ("linear", 1024, 160)


def test_a_category_overrides_the_defaults_setting_by_setting(path: Path) -> None:
    defaults = {
        "backbone": "resnet18",
        "false_alarm_rate": 0.05,
        "training": {"passes": 7, "hidden": 9},
    }
    bottle, cable = load(
        path,
        entry(backbone="resnet50", training={"passes": 3}),
        {"name": "cable", "images": "c"},
        defaults=defaults,
    )
    assert (bottle.backbone, bottle.false_alarm_rate) == ("resnet50", 0.05)
    assert (bottle.recipe.patch.passes, bottle.recipe.patch.head.hidden) == (3, 9)
    assert (cable.backbone, cable.recipe.patch.passes) == ("resnet18", 7)


def test_a_thousand_categories_are_a_list_of_names(path: Path) -> None:
    names = [f"part-{number}" for number in range(1000)]
    defaults = {"images": "s3://factory/{name}", "layout": "folder", "weights": "w/{name}.pth"}
    found = load(path, *names, defaults=defaults)
    assert [category.name for category in found] == names
    assert found[7].images == "s3://factory/part-7"
    assert found[7].weights_uri == f"{path.parent}/w/part-7.pth"
    assert {category.layout for category in found} == {"folder"}


def test_names_and_entries_mix_and_an_entry_has_the_last_word(path: Path) -> None:
    plain, own = load(
        path,
        "plain",
        {"name": "own", "images": "/elsewhere", "layout": "btad", "weights": "random"},
        defaults={"images": "parts/{name}", "layout": "folder"},
    )
    assert (plain.images, plain.layout) == (f"{path.parent}/parts/plain", "folder")
    assert (own.images, own.layout, own.weights_uri) == ("/elsewhere", "btad", "random")


def test_every_setting_but_the_name_may_be_a_default(path: Path) -> None:
    text = "defaults: {name: a}\ncategories: [{name: b, images: x}]"
    assert findings(path, text)[0].startswith("defaults.name: unknown key; known: images, layout")
    assert set(Settings.model_fields) == set(Category.model_fields) - {"name"}


def test_a_category_is_the_same_however_it_was_written(path: Path) -> None:
    images = path.parent / "parts" / "bottle"
    images.mkdir(parents=True)
    (images / "0.png").write_bytes(b"pixels")
    written: list[tuple[Any, dict[str, Any]]] = [
        ("bottle", {"images": "parts/{name}", "layout": "folder", "weights": "/{name}.pth"}),
        (entry(images="parts/{name}", layout="folder", weights={"uri": "/{name}.pth"}), {}),
        (entry(images=str(images), weights="/bottle.pth"), {"images": "x", "layout": "folder"}),
    ]
    found = [load(path, each, defaults=defaults)[0] for each, defaults in written]
    assert found[0] == found[1] == found[2]
    assert len({onboarding_key(category) for category in found}) == 1


@pytest.mark.parametrize("images", ["{names}", "{}", "{name", "name}", "{name!r}", "{{name}"])
def test_nothing_but_the_name_may_stand_in_braces(path: Path, images: str) -> None:
    with pytest.raises(CatalogueError, match=r"\[0\]\.images: expected nothing but \{nam"):
        load(path, entry(images=images))
    text = yaml.safe_dump({"defaults": {"images": images}, "categories": ["a", "b"]})
    (finding,) = findings(path, text)  # once, however many categories it is wrong in
    assert finding.startswith("defaults.images: expected nothing but {name} in braces, found ")


def test_a_brace_of_the_address_itself_is_written_twice(path: Path) -> None:
    (bottle,) = load(path, entry(images="/data/{{2026}}/{name}"))
    assert bottle.images == "/data/{2026}/bottle"
    assert Category.model_validate(bottle.model_dump()) == bottle  # on its way to a worker


def test_a_name_that_is_there_as_a_name_and_as_an_entry_is_there_twice(path: Path) -> None:
    with pytest.raises(CatalogueError, match="categories: name `bottle` is there 2 times"):
        load(path, "bottle", entry(), defaults={"images": "{name}"})


def test_a_plain_name_needs_images_and_a_slug(path: Path) -> None:
    assert findings(path, "categories: [bottle]") == ["categories[0].images: is required"]
    (finding,) = findings(path, "defaults: {images: '{name}'}\ncategories: [Big Bottle]")
    assert finding.startswith("categories[0].name: expected a slug of a-z")


def test_relative_paths_start_at_the_file_wherever_it_is_read_from(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path.write_text(yaml.safe_dump({"categories": [entry(images="../raw/b", weights="w.pth")]}))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    (bottle,) = load_catalogue("../catalogue.yaml")
    assert bottle.images == f"{tmp_path.parent}/raw/b"
    assert bottle.weights_uri == f"{tmp_path}/w.pth"


def test_absolute_places_stay_as_they_are(path: Path) -> None:
    (bottle,) = load(path, entry(images="s3://factory/b", weights="s3://weights/w.pth"))
    assert (bottle.images, bottle.weights_uri) == ("s3://factory/b", "s3://weights/w.pth")


def test_random_weights_are_a_word_and_not_a_file(path: Path) -> None:
    (bottle,) = load(path, entry(weights="random"))
    assert bottle.weights_uri == "random"
    assert bottle.backbone_config.weights == "random"


def test_weights_may_carry_the_sha256_they_must_have(path: Path) -> None:
    (bottle,) = load(path, entry(weights={"uri": "/w.pth", "sha256": SHA256}))
    assert (bottle.backbone_config.weights, bottle.backbone_config.sha256) == ("/w.pth", SHA256)


def test_a_category_survives_the_way_to_a_worker(path: Path) -> None:
    weights = {"uri": "/w.pth", "sha256": SHA256}
    (bottle,) = load(path, entry(weights=weights, training={"sigma": [0.5, 2.0]}))
    assert Category.model_validate(bottle.model_dump()) == bottle
    assert Category.model_validate(bottle.model_dump(mode="json")) == bottle


def test_a_catalogue_on_s3_has_paths_beside_it(s3: str) -> None:
    content = yaml.safe_dump({"categories": [entry()]}).encode()
    storage.write_bytes(f"{s3}/settings/catalogue.yaml", content)
    storage.write_bytes(f"{s3}/catalogue.yaml", content)
    assert load_catalogue(f"{s3}/settings/catalogue.yaml")[0].images == f"{s3}/settings/bottle"
    assert load_catalogue(f"{s3}/catalogue.yaml")[0].images == f"{s3}/bottle"


def test_anchors_and_merge_keys_are_welcome(path: Path) -> None:
    path.write_text(
        "categories:\n"
        "  - &first {name: a, images: a, crop: 64, resize: 64}\n"
        "  - {<<: *first, name: b}\n"
    )
    first, second = load_catalogue(str(path))
    assert (second.name, second.images, second.crop) == ("b", first.images, 64)


@pytest.mark.parametrize(
    ("settings", "finding"),
    [
        (
            {"preset": "paper", "calibration": "cross"},
            "calibration: cross needs members that leave images out; "
            "set training.members to 2 or more",
        ),
        ({"training": {"members": 1}}, "training.members: 1 leaves no member that has not seen"),
        ({"fit": "squash"}, "fit: "),
        ({"fals_alarm_rate": 0.1}, "fals_alarm_rate: unknown key; did you mean `false_alarm_rate`"),
        ({"colour": 1}, "colour: unknown key; known: images, layout, backbone, weights"),
        ({"training": {"pases": 3}}, "training.pases: unknown key; did you mean `passes`"),
        ({"training": {"kept": 150}}, "training.kept: is gone, .* lower `hidden` for smaller ones"),
        ({"training": {"passes": 0}}, "training.passes: Input should be greater than 0; found 0"),
        ({"training": 7}, "training: Input should be a valid dictionary"),
        ({"resize": "large"}, "resize: Input should be a valid integer.*found 'large'"),
        ({"layers": 2}, "layers: Input should be a valid list; found 2"),
        ({"images": ""}, "images: String should have at least 1 character"),
        ({"images": None}, "images: Input should be a valid string; found None"),
        ({"weights": 7}, "weights: Input should be a valid dictionary"),
        (
            {"weights": {"uri": "w", "sha": SHA256}},
            "weights.sha: unknown key; did you mean `sha256",
        ),
        ({"weights": {"uri": "w", "sha256": "abc"}}, "weights.sha256: String should match"),
        ({"weights": {"sha256": SHA256}}, "weights.uri: is required"),
        ({"false_alarm_rate": 0}, "false_alarm_rate: Input should be greater than 0; found 0"),
        ({"false_alarm_rate": 1.0}, "false_alarm_rate: Input should be less than 1; found 1.0"),
        ({"fdr": 0}, "fdr: Input should be greater than 0; found 0"),
        ({"fdr": 1.0}, "fdr: Input should be less than 1; found 1.0"),
        ({"false_alarm_rate": float("nan")}, "false_alarm_rate: .*; found nan"),
        ({"calibration_share": 0.6}, "calibration_share: .*less than or equal to 0.5"),
        ({"backbone": "resnet81"}, "backbone: no backbone `resnet81`; did you mean `resnet18`"),
        ({"layout": "mvtek"}, "layout: no layout `mvtek`; did you mean `mvtec`"),
        ({"layers": [1, 5]}, r"layers must be an ascending subset of \[1, 2, 3, 4\], got \[1, 5\]"),
        ({"layers": []}, "layers must be an ascending subset"),
        ({"layers": [3, 2]}, "layers must be an ascending subset"),
        ({"fit": "crop", "crop": 288}, r"crop must lie in \[32, resize=256\], got 288"),
        ({"fit": "crop", "crop": [64, 288]}, r"crop must lie in .*, got 64 x 288"),
        ({"crop": [64, 100]}, "crop must be a multiple of 32, got 64 x 100"),
        ({"crop": [64, 0]}, r"crop must lie in \[32, 4096\], got 64 x 0"),
        ({"crop": [64, 64, 3]}, r"crop: expected the pixels of a .*or \[height, width\]"),
        ({"crop": "64"}, "crop: expected the pixels of a square"),
        ({"crop": [96, 64], "fit": "keep"}, "fit: keep finds the proportions; crop is the side"),
        ({"crop": 100}, "crop must be a multiple of 32, got 100"),
        ({"fit": "crop", "resize": 100_000}, "resize must be at most 4096"),
        ({"images": "ftp://host/b"}, "ftp"),
    ],
)
def test_a_wrong_setting_is_named_with_file_and_key(
    path: Path, settings: dict[str, Any], finding: str
) -> None:
    with pytest.raises(CatalogueError, match=rf"{path}: categories\[0\].*{finding}") as caught:
        load(path, entry(**settings))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "name",
    ["../x", "a/b", "Bottle", "-a", "_a", ".a", "", "a b", "a.b", "ä", "a" * 58, "a\n", None, 3],
)
def test_a_name_that_is_no_slug_is_refused(path: Path, name: Any) -> None:
    with pytest.raises(CatalogueError, match=r"categories\[0\]\.name: expected a slug of a-z"):
        load(path, entry(name=name))


@pytest.mark.parametrize("name", ["a", "0", "a" * 57, "solar-mono_2"])
def test_a_slug_is_a_name(path: Path, name: str) -> None:
    assert load(path, entry(name=name))[0].name == name


def test_a_category_without_a_name_is_told_so(path: Path) -> None:
    text = "categories: [{images: b}]"
    assert findings(path, text) == ["categories[0].name: is required"]


def test_everything_that_is_wrong_is_said_at_once(path: Path) -> None:
    text = """\
default: {}
defaults: {bakbone: resnet18}
categories:
  - {name: a, images: x, crop: 300}
  - {name: B, images: x}
  - {name: a, images: y, layers: [9]}
  - {name: c, images: y, layout: nothing-like-it, backbone: vgg}
  - 7
"""
    found = findings(path, text)
    assert [line.partition(":")[0] for line in found] == [
        "default",
        "defaults.bakbone",
        "categories[0]",
        "categories[1].name",
        "categories[2]",
        "categories[3].layout",
        "categories[3].backbone",
        "categories[4]",
        "categories",
    ]
    assert found[0].endswith("did you mean `defaults`?")
    assert found[-2] == "categories[4]: expected a name or a mapping of settings, found 7"
    assert found[-1] == "categories: name `a` is there 2 times; names must be unique"


def test_a_default_that_is_wrong_in_a_thousand_categories_is_not_a_thousand_lines(
    path: Path,
) -> None:
    names = "".join(f"  - {{name: c{i}, images: x}}\n" for i in range(1000))
    found = findings(path, f"defaults: {{crop: 100}}\ncategories:\n{names}")
    assert len(found) == 41
    assert found[-1] == "and 960 more"


def test_a_category_twice_is_refused(path: Path) -> None:
    with pytest.raises(CatalogueError, match="name `bottle` is there 3 times; names must be uniq"):
        load(path, entry(), entry(images="other"), entry())


def test_a_key_twice_is_refused_where_yaml_would_keep_the_last(path: Path) -> None:
    text = "categories:\n  - name: a\n    images: x\n    images: y\n"
    path.write_text(text)
    with pytest.raises(CatalogueError, match=r"yaml is not valid YAML: line 4, .*'images' is giv"):
        load_catalogue(str(path))


@pytest.mark.parametrize(
    ("text", "finding"),
    [
        ("categories: []", "categories: expected at least one category, found none"),
        ("", "expected a mapping with the key `categories`, a list"),
        ("- name: a", "expected a mapping with the key `categories`, a list"),
        ("categories: {a: b}", "expected a mapping with the key `categories`, a list"),
        ("defaults: []\ncategories: [{name: a, images: x}]", "defaults: expected a mapping of set"),
    ],
)
def test_a_file_of_another_shape_is_refused(path: Path, text: str, finding: str) -> None:
    assert findings(path, text)[0].startswith(finding)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a: [", "line 1, column 5"),
        ("categories: !!python/object/apply:os.system ['touch {marker}']", "could not determine a"),
        ("categories: !!python/name:os.system ''", "could not determine a constructor"),
        ("categories: !!python/object/new:tuple [[1]]", "could not determine a constructor"),
        ("categories: [{name: a, images: 2024-99-99}]", "month must be in 1..12"),
        ("categories: !!timestamp soon", ""),
        ("categories: !!int many", "many"),
        ("categories: !!bool maybe", "maybe"),
        ("? {a: b}\n: c", "unhashable key"),
        ("a: \x00", "special characters are not allowed"),
        ("[" * 20_000, "nested too deep"),
    ],
)
def test_hostile_yaml_is_refused_in_one_line_and_builds_nothing(
    path: Path, tmp_path: Path, text: str, reason: str
) -> None:
    marker = tmp_path / "marker"
    path.write_text(text.replace("{marker}", str(marker)))
    with pytest.raises(
        CatalogueError, match=rf"catalogue\.yaml is not valid YAML: .*{reason}"
    ) as e:
        load_catalogue(str(path))
    assert "\n" not in str(e.value)
    assert not marker.exists()


def test_aliases_cannot_blow_a_message_up(path: Path) -> None:
    levels = "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12))
    started = time.monotonic()
    text = f"a0: &a0 [x]\n{levels}categories: [{{name: *a11, images: *a11}}]\n"
    found = findings(path, text)
    assert sum(len(line) for line in found) < 10_000
    assert time.monotonic() - started < 20


def test_a_file_that_is_not_there_is_named(path: Path, tmp_path: Path) -> None:
    with pytest.raises(CatalogueError, match=rf"catalogue {path} does not exist; check the path"):
        load_catalogue(str(path))
    with pytest.raises(CatalogueError, match=f"catalogue {tmp_path} is a folder"):
        load_catalogue(str(tmp_path))


def test_bytes_that_are_no_text_are_refused(path: Path) -> None:
    path.write_bytes(b"\x89PNG\r\n\x1a\n\xff\xfe")
    with pytest.raises(CatalogueError, match="is not valid YAML"):
        load_catalogue(str(path))


def test_only_keeps_what_is_named_in_the_order_of_the_file(path: Path) -> None:
    categories = load(path, *(entry(name=name) for name in "abc"))
    assert [category.name for category in select(categories, ["c", "a"])] == ["a", "c"]
    assert select(categories, []) == categories
    with pytest.raises(CatalogueError, match=r"--only d: no such category; known: a, b, c"):
        select(categories, ["a", "d"])
