"""The key of an onboarding: the same in every release, or an upgrade would onboard all again."""

from collections.abc import Sequence
from pathlib import Path

import factory
import pytest

from jobs.local.s3 import LocalS3
from pipeline import storage
from pipeline.catalogue.catalogue import Category, Training, load_catalogue
from pipeline.onboarding.key import FIRST_SETTINGS, FIRST_TRAINING, onboarding_key

BUCKET = "s3://golden-key"
CATALOGUE = b"""
defaults: {backbone: efficientnet_lite0}
categories:
  - {name: steel, images: steel}
  - {name: bolts, images: bolts.csv, layout: manifest, preset: paper, calibration: cross,
     cache_gb: 2.5, training: {members: 2, sigma: 1, adaptor: two_layer}}
"""
# As the release of November 2026 computed them. Another value onboards every fleet again.
KEYS = {
    "steel": "184302f59bc178a38500781a277f9d2e65314bed3f539699180c205674413c73",
    "bolts": "64b24b6c6ffd98db3e89f2c718772d6703bb0bb591327f9019b6b24178a88c56",
}


def test_keys_are_those_of_earlier_releases(s3: str, s3_server: LocalS3) -> None:
    assert s3_server.create_bucket(BUCKET.removeprefix("s3://")) == BUCKET
    files = {
        "steel/train/good/1.png": b"one",
        "steel/train/good/2.png": b"two",
        "bolts.csv": b"image_uri,split,etag\n1.png,train,e1\n",
        "catalogue.yaml": CATALOGUE,
    }
    for name, content in files.items():
        storage.write_bytes(f"{BUCKET}/{name}", content)
    categories = load_catalogue(f"{BUCKET}/catalogue.yaml")
    assert {category.name: onboarding_key(category) for category in categories} == KEYS


def test_every_first_setting_is_still_there() -> None:
    """One that goes needs a line among those that stay in the key as if nobody had set them."""
    assert {*Category.model_fields} >= FIRST_SETTINGS
    assert {*Training.model_fields} >= FIRST_TRAINING


@pytest.mark.parametrize(
    "changes", [{"crop": 32}, {"training": {"passes": 3}}, {"name": "other"}, {"fdr": 0.2}]
)
def test_another_setting_is_another_onboarding(tmp_path: Path, changes: dict[str, object]) -> None:
    images = factory.make_category(tmp_path / "steel", num_good=1, num_test=0)
    plain, changed = factory.category(images), factory.category(images, **changes)
    assert onboarding_key(plain) != onboarding_key(changed)


def test_other_files_are_another_onboarding(tmp_path: Path) -> None:
    images = factory.make_category(tmp_path / "steel", num_good=1, num_test=0)
    before = onboarding_key(factory.category(images))
    assert onboarding_key(factory.category(images)) == before
    factory.write_images(images / "train/good", range(1, 2))
    assert onboarding_key(factory.category(images)) != before


class Listed:
    """A category whose manifest lists images of several folders, and a mask."""

    def __init__(self, place: str, etags: Sequence[str] = ()) -> None:
        self.place = place
        self.images = [f"{place}/2026-03-11/1.png", f"{place}/2026-03-12/2.png", f"{place}/3.png"]
        self.mask = f"{place}/masks/3.png"
        for uri in [*self.images, self.mask]:
            storage.write_bytes(uri, b"as onboarded")
        lines = ["image_uri,label,mask_uri", "2026-03-11/1.png,good,", "2026-03-12/2.png,good,"]
        lines.append("3.png,dent,masks/3.png")
        if etags:
            lines = [f"{line},{etag}" for line, etag in zip(lines, ["etag", *etags], strict=True)]
        storage.write_bytes(f"{place}/list.csv", "\n".join(lines).encode())

    @property
    def key(self) -> str:
        return onboarding_key(factory.category(f"{self.place}/list.csv", layout="manifest"))


@pytest.fixture(params=["local", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path) if request.param == "local" else request.getfixturevalue("s3") + "/steel"


@pytest.mark.parametrize("replaced", [0, 1, 2, "mask"])
def test_a_listed_file_that_was_replaced_is_another_onboarding(
    place: str, replaced: int | str
) -> None:
    listed = Listed(place)
    before = listed.key
    storage.write_bytes(f"{place}/2026-03-11/other.png", b"of nobody")
    assert listed.key == before
    uri = listed.mask if replaced == "mask" else listed.images[int(replaced)]
    storage.write_bytes(uri, b"replaced in its place")
    assert listed.key != before


def test_a_listed_image_that_is_gone_is_another_onboarding(place: str) -> None:
    listed = Listed(place)
    before = listed.key
    storage.delete(listed.images[0])
    assert listed.key != before


def test_etags_that_a_manifest_gives_are_believed(place: str) -> None:
    listed = Listed(place, ["e1", "", "e3"])
    before = listed.key
    for uri in (listed.images[0], listed.images[2]):
        storage.write_bytes(uri, b"replaced in its place")
    assert listed.key == before
    storage.write_bytes(listed.images[1], b"its etag is not given")
    assert listed.key != before
