"""What a category finds with its own setting, and with tiles beside it or without them.

Both settings are trained on the same few good images as the catalogue says, and shown the same
made defects on the same unseen ones.
"""

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from pydantic import ValidationError

from model.errors import CategoryFault
from model.preprocessing import Preprocessing
from model.tiles import LEAST_SIZE, STEP, Tiles
from pipeline.backbones import Fetch
from pipeline.calibration import fit
from pipeline.catalogue.catalogue import Category
from pipeline.feature_store.place import StorePlace
from pipeline.images.placement import size_cut, size_seen
from pipeline.onboarding.defect_sizes import NOTE, SizeFound, measure_sizes
from pipeline.onboarding.found_settings import with_found_settings
from pipeline.onboarding.prepare import make_detector, prepare, score_unseen
from pipeline.onboarding.size_curve import size_figure
from pipeline.onboarding.size_words import sizes_in_words
from pipeline.onboarding.squeeze import Squeeze
from pipeline.pages import plot_style as style
from pipeline.pages.words import percent

NUM_IMAGES = 48  # unseen good ones, with a defect of each size
LEARNED_FROM = 120  # good images, or as many as the false-alarm rate needs
ROOM = 1.1  # times as many: some are copies, or cannot be read
NONE_MADE = "no defect fits or is seen"
WHOLE = 0.995  # of the pixels are kept: nothing is lost
ALONE = "there is nothing to compare with: "

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Which sizes are found by each setting of a category."""

    category: str
    false_alarm_rate: float
    num_learned_from: int  # good images, at most
    curves: Mapping[str, Sequence[SizeFound]] = field(default_factory=dict)  # by the setting's name
    without: str = ""  # why there is no second setting, or none at all

    @property
    def picture(self) -> bytes:
        """The curves as a PNG."""
        return style.png(size_figure(self.category, self.curves, self.false_alarm_rate))

    @property
    def sentence(self) -> str:
        """Say what is found of each size."""
        found = [
            f"{name}: {sizes_in_words([asdict(each) for each in sizes]) or NONE_MADE}"
            for name, sizes in self.curves.items()
        ]
        learned = f"each setting learned from at most {self.num_learned_from} good images"
        rate = f"at {percent(self.false_alarm_rate)} false alarms"
        said = [f"{'; '.join(found)}, {rate}; {NOTE}; {learned}"] if found else []
        return ". ".join([*said, *([self.without] if self.without else [])])

    @property
    def metrics(self) -> dict[str, float]:
        """The shares found, by name."""
        return {
            f"{self.category}/{name}/defects_{each.size}px_{kind}": value
            for name, sizes in self.curves.items()
            for each in sizes
            for kind, value in (
                ("found", each.share),
                ("found_low", each.low),
                ("found_high", each.high),
            )
        }

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "note": NOTE,
            "false_alarm_rate": self.false_alarm_rate,
            "learned_from_at_most": self.num_learned_from,
            "settings": {name: [asdict(e) for e in each] for name, each in self.curves.items()},
            "without": self.without,
        }


def compare_settings(
    category: Category,
    squeeze: Squeeze | None,
    uris: Sequence[str],
    fetch: Fetch,
    features: StorePlace | None = None,
) -> Comparison:
    """Train a category's setting and the other one, and measure both.

    Args:
        category: as the catalogue has it.
        squeeze: what its setting keeps of its images.
        uris: its good images.
        fetch: what loads a backbone.
        features: the store of features that were computed before, if there is one. What is cut
            into tiles for this alone is not kept: it would be many times the images themselves.
    """
    own = on_few_images(category)
    other, alone = _other(own, squeeze)
    without = [alone] if alone else []
    settings = [each for each in (own, other) if each is not None]
    ways = [with_found_settings(each, uris).preprocessing for each in settings]
    curves = {}
    for setting in settings:
        name = name_of(setting, is_own=setting is own)
        _say_passes(category.name, name, setting, squeeze)
        try:
            curves[name] = _measure(setting, ways, fetch, None if setting.tiles else features)
        except CategoryFault as error:
            logger.info("%s, %s: %s", category.name, name, error)
            without.append(f"{name}: {error}")
    return Comparison(
        category=category.name,
        false_alarm_rate=category.false_alarm_rate,
        num_learned_from=own.max_images or 0,
        curves=curves,
        without=". ".join(without),
    )


def on_few_images(category: Category) -> Category:
    """Return a category that learns from a few images, no fewer than its false-alarm rate needs."""
    needed = category.calibration_config.min_images * (1 if category.calibration == "cross" else 2)
    most = max(LEARNED_FROM, math.ceil(ROOM * needed))
    return category.model_copy(update={"max_images": min(most, category.max_images or most)})


def other_setting(category: Category, image: tuple[int, int]) -> Category:
    """Return the category with tiles or, where it has them, as one input as its preset says.

    Args:
        category: the one at hand.
        image: height and width of what is looked at of an ordinary image: tiles are not larger.

    Raises:
        ValueError: it cannot be had.
    """
    without_crop = dict.fromkeys(("crop", "resize", "fit"))
    largest = max(LEAST_SIZE, math.ceil(max(image) / STEP) * STEP)
    tiles = None if category.tiles else Tiles(size=min(Tiles.size, largest))
    return Category.model_validate({**category.model_dump(), **without_crop, "tiles": tiles})


def name_of(category: Category, *, is_own: bool) -> str:
    """Name a setting as the picture, the answer and MLflow do, which takes no comma."""
    what = f"tiles of {category.tiles.size}" if category.tiles else "one input"
    return f"as it is: {what}" if is_own else what


def _other(category: Category, squeeze: Squeeze | None) -> tuple[Category | None, str]:
    """Return the other setting, or why there is none."""
    if squeeze is None or (category.tiles is None and squeeze.kept >= WHOLE):
        return None, f"{ALONE}the images are no larger than the network's input"
    try:
        size = size_seen(squeeze.image, category.preprocessing)
        return other_setting(category, size), ""
    except ValidationError as error:
        said = error.errors()[0]["msg"].removeprefix("Value error, ")
        return None, f"{ALONE}{said}"


def _say_passes(name: str, setting: str, category: Category, squeeze: Squeeze | None) -> None:
    """Say before it begins what learning from a setting's images costs."""
    inputs, tiles = 1, category.tiles
    if tiles is not None and squeeze is not None:
        inputs = tiles.num_inputs(size_cut(squeeze.image, category.preprocessing))
    passes = inputs * (category.max_images or 0)
    logger.info("%s, %s: at most %s passes of the network to come", name, setting, f"{passes:,}")


def _measure(
    category: Category, ways: Sequence[Preprocessing], fetch: Fetch, features: StorePlace | None
) -> list[SizeFound]:
    """Train a setting and return what it finds.

    Raises:
        CategoryFault: it cannot be onboarded.
    """
    prepared = prepare(category, features=features, fetch=fetch, told=())
    for _ in prepared.trainer.run():
        pass
    detector = make_detector(prepared, prepared.trainer)
    unseen = score_unseen(prepared, prepared.trainer, detector)
    calibration = fit(unseen.scores, category.calibration_config)
    return measure_sizes(prepared, detector, calibration, NUM_IMAGES, ways)
