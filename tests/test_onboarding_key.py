"""The key of an onboarding: the same in every release, or an upgrade would onboard all again."""

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
    "bolts": "b86b4a2f16df7afc8f05089d20b3e2e871f815be682db95f0c2b00fced3eaa69",
}


def test_keys_are_those_of_earlier_releases(s3: str, s3_server: LocalS3) -> None:
    assert s3_server.create_bucket(BUCKET.removeprefix("s3://")) == BUCKET
    files = {
        "steel/train/good/1.png": b"one",
        "steel/train/good/2.png": b"two",
        "bolts.csv": b"image_uri,split\n1.png,train\n",
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
