"""``promote: gate``: a new version goes live where the evidence says so, the first one at once."""

from pathlib import Path

import pytest
from factory import category, write_catalogue
from test_gate import Factory, champion, factory, template  # noqa: F401  fixtures

from jobs.onboard.gated import ask_gate, promote_first, refuse_without_results
from jobs.onboard.onboard import OnboardingOptions, OnboardingStatus, _registered
from pipeline.catalogue.catalogue import CatalogueError, Category, load_catalogue
from pipeline.onboarding.key import onboarding_key
from pipeline.registry import models


def gated(factory: Factory, name: str = "steel") -> Category:  # noqa: F811
    images = factory.root / "dump/steel"
    return category(images, name, layout="folder", promote="gate", results=factory.out)


def waits(asked: Category, version: models.RegisteredVersion, *, promote: bool = True) -> bool:
    """Register as an onboarding does; whether the version waits for the gate."""
    options = OnboardingOptions(runs="unused", promote=promote)
    return _registered(asked, OnboardingStatus.ONBOARDED, version, options).gate is not None


@pytest.fixture
def challenger(factory: Factory) -> models.RegisteredVersion:  # noqa: F811
    found = models.find_version("steel", 2)
    assert found is not None
    return found


def test_the_first_version_of_a_category_goes_live_at_once(factory: Factory) -> None:  # noqa: F811
    version = models.register("wood", "first", factory.template.root / "champion")
    assert not waits(gated(factory, "wood"), version)
    assert models.champions()["wood"].version == "1"


def test_a_first_version_waits_where_another_went_live_meanwhile(
    challenger: models.RegisteredVersion,
) -> None:
    version, said = promote_first(challenger)
    assert not version.is_champion
    assert "the champion has changed since, from none to version 1" in said["gate"]
    assert champion() == "1"


def test_a_later_version_waits_and_the_gate_decides(
    factory: Factory,  # noqa: F811
    challenger: models.RegisteredVersion,
) -> None:
    assert waits(gated(factory), challenger)
    assert champion() == "1"
    [(promoted, said)] = ask_gate([gated(factory)]).values()
    assert (promoted, said.partition(":")[0], champion()) == (None, "NEEDS LABELS", "1")
    factory.label(factory.highest[:6], "defect")
    [(promoted, said)] = ask_gate([gated(factory)]).values()
    assert (promoted, said.partition(":")[0], champion()) == ("2", "PROMOTE", "2")


def test_without_the_setting_a_new_version_is_champion_as_ever(
    factory: Factory,  # noqa: F811
    challenger: models.RegisteredVersion,
) -> None:
    plain = gated(factory).model_copy(update={"promote": "always"})
    assert not waits(plain, challenger)
    assert champion() == "2"


def test_nobody_is_asked_where_nothing_is_to_be_promoted(
    factory: Factory,  # noqa: F811
    challenger: models.RegisteredVersion,
) -> None:
    assert not waits(gated(factory), challenger, promote=False)
    assert champion() == "1"


def test_a_gate_that_cannot_be_asked_leaves_the_champion_and_says_why(
    factory: Factory,  # noqa: F811
) -> None:
    labels = Path(factory.out, "labels/category=steel")
    labels.mkdir(parents=True)
    (labels / "2026-03-12-0.parquet").write_bytes(b"torn")
    [(promoted, said)] = ask_gate([gated(factory)]).values()
    assert (promoted, champion()) == (None, "1")
    assert said.startswith("could not be asked: ")
    assert "does not hold labels" in said


def test_a_gate_without_nights_is_refused_before_anything_is_trained(tmp_path: Path) -> None:
    images = {"steel": tmp_path / "a", "wood": tmp_path / "b"}
    given = load_catalogue(str(write_catalogue(tmp_path / "c.yaml", images, {"promote": "gate"})))
    with pytest.raises(CatalogueError, match="gate of 2 categories, first steel, needs the nights"):
        refuse_without_results(given)
    named = {"promote": "gate", "results": "nights"}
    given = load_catalogue(str(write_catalogue(tmp_path / "d.yaml", images, named)))
    refuse_without_results(given)
    assert given[0].results == f"{tmp_path}/nights"


def test_a_category_that_begins_to_ask_the_gate_is_not_onboarded_again(
    factory: Factory,  # noqa: F811
) -> None:
    plain = gated(factory).model_copy(update={"promote": "always", "results": None})
    assert onboarding_key(gated(factory)) == onboarding_key(plain)
