"""The tree of error classes that the root's module draws is the tree that there is."""

import importlib
import re
from pathlib import Path

import pytest

import model.errors
from model.errors import CategoryFault, NightshiftError, ServiceAway
from pipeline.images.decode import UnreadableImage
from pipeline.registry.connection import RegistryError
from pipeline.storage import ObjectMissing, StorageAway, StorageError

ROOT = Path(__file__).resolve().parents[1]
LAYERS = ("model", "pipeline", "jobs")


def drawn() -> list[tuple[str, str]]:
    """Parent and child of every line of the drawing, by its indentation."""
    lines = re.findall(r"^( {4,})([A-Z]\w+)", model.errors.__doc__ or "", re.MULTILINE)
    above: dict[int, str] = {}
    pairs = []
    for indentation, name in lines:
        above[len(indentation)] = name
        pairs.append((above.get(len(indentation) - 2, ""), name))
    return pairs


def existing(parent: type[Exception]) -> list[tuple[str, str]]:
    ours = [c for c in parent.__subclasses__() if c.__module__.partition(".")[0] in LAYERS]
    pairs = [(parent.__name__, child.__name__) for child in ours]
    return pairs + [pair for child in ours for pair in existing(child)]


def test_the_drawing_shows_every_error_class_below_its_parent() -> None:
    for path in (path for layer in LAYERS for path in (ROOT / layer).rglob("*.py")):
        if path.name != "__main__.py":
            importlib.import_module(".".join(path.relative_to(ROOT).with_suffix("").parts))
    assert sorted(drawn()) == sorted([("", "NightshiftError"), *existing(NightshiftError)])


@pytest.mark.parametrize(
    ("error", "is_away", "is_fault"),
    [
        (StorageAway, True, False),
        (RegistryError, True, False),
        (ObjectMissing, False, False),
        (UnreadableImage, False, False),
    ],
)
def test_a_caller_can_tell_a_service_that_is_away_from_a_category_that_is_no_good(
    error: type[Exception], is_away: bool, is_fault: bool
) -> None:
    assert issubclass(error, ServiceAway) == is_away
    assert issubclass(error, CategoryFault) == is_fault


def test_whoever_handles_a_refused_object_lets_a_storage_that_is_away_pass() -> None:
    assert not issubclass(StorageAway, StorageError)
