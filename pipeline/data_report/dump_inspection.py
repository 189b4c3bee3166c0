"""An inspection of a night's dump before it is scored, category by category."""

import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import pyarrow as pa
import pyarrow.compute as pc

from model.errors import CategoryFault
from pipeline import storage
from pipeline.checks import Check, failed, passed, warned
from pipeline.data_report.category_report import CategoryReport, report_of_error
from pipeline.data_report.dump_checks import examine_dump
from pipeline.data_report.dump_reading import DumpReader, champions_for, listed_dump
from pipeline.data_report.inspection import Inspection, Told
from pipeline.datasets.image_lists import ManifestError
from pipeline.datasets.samples import some
from pipeline.images.file_names import kinds_in_words
from pipeline.images.prefetch import read_ahead
from pipeline.inspection.category_summary import CategorySummary
from pipeline.inspection.found import Line
from pipeline.inspection.training_summary import TrainingImages
from pipeline.night.fleet.fleet import Champion, Fleet
from pipeline.night.listing import Listing
from pipeline.pages.words import plural

NO_FOLDER = "(no category)"  # of images that lie beside the categories' folders

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class DumpRequest:
    """What is to be inspected."""

    dump: str  # prefix of images, or a manifest
    out: str  # folder or prefix of all nights' results
    only: Collection[str] = ()  # categories; none: all


def inspect_dump(
    request: DumpRequest, reader: DumpReader, told: Told = lambda _: None
) -> Inspection:
    """Look at a dump's categories one after the other; one that cannot be read stops no other.

    Each report is ``told`` as it is there.

    Raises:
        StorageError, ManifestError: the dump cannot be listed.
        RegistryError, FleetError: the champions cannot be had.
        ServiceAway: what every category needs is away.
    """
    listing = listed_dump(request.dump)
    by_category = dict(_by_category(listing.images, request.only))
    fleet = champions_for(request.out, set(by_category))
    trained_on = _training_images(fleet)
    summaries = [  # by the names of today
        replace(each.summary, name=category)
        for category, each in trained_on.items()
        if each and each.summary
    ]
    reports = {}
    for category, uris in by_category.items():
        name = category or NO_FOLDER
        if category in fleet.unusable:
            report = report_of_error(name, fleet.unusable[category])
        elif category not in fleet.champions:
            report = _unrouted(name, len(uris))
        else:
            known = fleet.champions[category], trained_on[category]
            report = _look(known, uris, reader, summaries)
        reports[name] = report
        told(report)
    whole = [] if request.only else _whole(listing, by_category, fleet)
    return Inspection(place=listing.uri, reports=reports, whole=whole, kind="dump")


def _by_category(images: pa.Table, only: Collection[str]) -> Iterator[tuple[str, list[str]]]:
    """Yield each category with the addresses of its images.

    Raises:
        ManifestError: one that is asked for has no images.
    """
    known = sorted(images["category"].unique().to_pylist())
    for name in only:
        if name not in known:
            raise ManifestError(
                f"--only {name}: the dump has no such category; it has {some(known)}"
            )
    for name in known:
        if not only or name in only:
            rows = images.filter(pc.equal(images["category"], name))
            yield name, rows["image_uri"].to_pylist()


def _training_images(fleet: Fleet) -> dict[str, TrainingImages | None]:
    """Return what each champion's package says of its training images."""

    def load(champion: Champion) -> TrainingImages | None:
        try:
            return champion.load_training_images()
        except CategoryFault as error:
            logger.warning("%s", error)
            return None

    return dict(zip(fleet.champions, read_ahead(load, fleet.champions.values()), strict=True))


def _look(
    known: tuple[Champion, TrainingImages | None],
    uris: Sequence[str],
    reader: DumpReader,
    summaries: Sequence[CategorySummary],
) -> CategoryReport:
    champion, trained_on = known
    try:
        reading = reader.read(champion, uris, trained_on)
    except (CategoryFault, storage.StorageError) as error:
        logger.info("%s cannot be inspected: %s", champion.category, error)
        return report_of_error(champion.category, str(error))
    return CategoryReport(
        name=champion.category,
        num_images=len(uris),
        lines=examine_dump(reading, summaries),
        preprocessing=reading.preprocessing,
    )


def _unrouted(name: str, num_images: int) -> CategoryReport:
    counted = passed("images", f"{plural(num_images, 'image')}, none looked at")
    unrouted = warned(
        "unrouted",
        f"no champion: no score for {plural(num_images, 'image')}",
        "Onboard the category, or correct the folder's name.",
    )
    lines = [Line(check=counted), Line(check=unrouted)]
    return CategoryReport(name=name, num_images=num_images, lines=lines)


def _whole(listing: Listing, by_category: Mapping[str, Sequence[str]], fleet: Fleet) -> list[Line]:
    """Return what there is to say of the dump beside its categories."""
    known = {*fleet.champions, *fleet.unusable}  # one that is no good is told by its own report
    without = {c: len(u) for c, u in by_category.items() if c not in known}
    return [
        Line(check=check)
        for check in (
            _routing(without, listing.images.num_rows),
            _missing(sorted(fleet.without_images)),
            passed("other files", kinds_in_words(listing.other_files) or "none"),
        )
    ]


def _routing(without: Mapping[str, int], num_images: int) -> Check:
    if not without:
        return passed("unrouted", f"all {num_images:,} images have a champion")
    names = some([f"{count:,} of {name or NO_FOLDER}" for name, count in without.items()])
    total = sum(without.values())
    finding = f"{total:,} of {num_images:,} images have no champion: {names}"
    if total == num_images:
        return failed(
            "unrouted",
            finding,
            "A dump is <dump>/<category>/<image>: see whether its address is right, and onboard "
            "its categories.",
        )
    return warned("unrouted", finding, "Onboard these categories, or correct the folders' names.")


def _missing(silent: Sequence[str]) -> Check:
    if not silent:
        return passed("missing categories", "every champion has images")
    return warned(
        "missing categories",
        f"champions without an image in this dump: {some(silent)}",
        "Nothing to do where other dumps of the night bring them.",
    )
