"""The order of the folders: each imports from those below it alone, and none in a circle."""

import ast
from collections import Counter
from graphlib import CycleError, TopologicalSorter
from pathlib import PurePath

import pytest
from source import PACKAGES, module_name, modules_imported, parsed, source_files

# From the bottom to the top. A module that lies in no folder stands for itself.
ORDER = {
    "pipeline": (
        *("version", "checks", "storage", "calibration", "images", "pages", "datasets"),
        *("catalogue", "labels", "backbones", "feature_store", "inspection", "engine_check"),
        "package",
        *("predictor", "registry"),
        *("measuring", "onboarding", "synthesis", "evaluation"),
        *("night", "night/fleet", "night/scoring", "night/settling", "night/feedback"),
        *("category_changes", "data_report", "promotion", "replay", "report", "study", "doctor"),
    ),
    "jobs": (
        *("local", "cluster", "terminal"),
        *("onboard", "night", "evaluate", "synthesise", "study", "doctor", "demo"),
        *("cli", "__main__"),
    ),
}

Graph = dict[str, set[str]]


def folder_of(path: str) -> str:
    """The folder of a file within its layer, or the file itself where it lies in none."""
    inside = PurePath(path).relative_to(PurePath(path).parts[0])
    return str(inside.with_suffix("") if inside.parent == PurePath() else inside.parent)


def module_graph(layer: str) -> Graph:
    """Which modules of a layer each of them imports; the layer itself holds nothing."""
    modules = {module_name(path): path for path in source_files(layer) if "/" in path}
    del modules[layer]
    return {
        name: modules_imported(parsed(path), set(modules)) - {name}
        for name, path in modules.items()
    }


def folder_graph(layer: str) -> Graph:
    folders = {module_name(path): folder_of(path) for path in source_files(layer)}
    graph: Graph = {}
    for name, needed in module_graph(layer).items():
        others = graph.setdefault(folders[name], set())
        others |= {folders[other] for other in needed} - {folders[name]}
    return graph


def circle(graph: Graph) -> str:
    """A circle of a graph, in words; empty where there is none."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return " is imported by ".join(error.args[1])
    return ""


def imported_upwards(graph: Graph, order: tuple[str, ...]) -> list[str]:
    height = {folder: place for place, folder in enumerate(order)}
    return [
        f"{folder} imports {other}"
        for folder, others in graph.items()
        for other in sorted(others)
        if height[other] > height[folder]
    ]


@pytest.mark.parametrize(
    ("path", "folder"),
    [
        ("pipeline/night/fleet/hold.py", "night/fleet"),
        ("pipeline/night/summary.py", "night"),
        ("pipeline/calibration.py", "calibration"),
        ("pipeline/storage/__init__.py", "storage"),
    ],
)
def test_a_loose_module_stands_for_itself(path: str, folder: str) -> None:
    assert folder_of(path) == folder


@pytest.mark.parametrize(
    "source",
    [
        "import a.b.c",
        "from a.b import c",
        "from a.b.c import name",
        "def late():\n    from a.b.c import name",
    ],
)
def test_a_module_is_found_however_it_is_imported(source: str) -> None:
    assert modules_imported(ast.parse(source), {"a.b", "a.b.c"}) == {"a.b.c"}


def test_a_circle_is_named() -> None:
    graph = {"onboarding": {"measuring"}, "measuring": {"storage", "onboarding"}, "storage": set()}
    assert circle(graph) in (
        "onboarding is imported by measuring is imported by onboarding",
        "measuring is imported by onboarding is imported by measuring",
    )


def test_an_import_upwards_is_named() -> None:
    graph = {"storage": {"images"}, "images": {"storage"}}
    assert imported_upwards(graph, ("storage", "images")) == ["storage imports images"]


@pytest.mark.parametrize("layer", ORDER)
def test_no_two_folders_import_each_other_in_a_circle(layer: str) -> None:
    assert circle(folder_graph(layer)) == ""


@pytest.mark.parametrize("layer", PACKAGES)
def test_no_two_modules_import_each_other_in_a_circle(layer: str) -> None:
    assert circle(module_graph(layer)) == ""


@pytest.mark.parametrize("layer", ORDER)
def test_every_folder_has_its_place_in_the_order(layer: str) -> None:
    assert set(folder_graph(layer)) == set(ORDER[layer])


@pytest.mark.parametrize("layer", ORDER)
def test_a_folder_imports_from_those_below_it_alone(layer: str) -> None:
    assert imported_upwards(folder_graph(layer), ORDER[layer]) == []


@pytest.mark.parametrize("layer", [*PACKAGES, "tests"])
def test_no_basename_stands_twice_in_a_layer(layer: str) -> None:
    names = [PurePath(path).name for path in source_files(layer)]
    entries = {"__init__.py", "__main__.py"}  # Python gives these names
    assert [
        name for name, count in Counter(names).items() if count > 1 and name not in entries
    ] == []
