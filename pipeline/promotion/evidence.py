"""The images by which champion and challenger are compared, and what is said of them.

None was chosen by its score, or the comparison would favour whoever chose it: a random sample of
the last nights' images, drawn by a hash, and images that were labelled whatever their score, of
nights or from elsewhere. What was labelled for its score, or nobody knows why, counts where it
happens to be in the sample, and nowhere else: what a champion flagged favours it, what a customer
sent back favours whoever comes next.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline import storage
from pipeline.backbones import Fetch
from pipeline.catalogue.rename_table import read_renames
from pipeline.catalogue.renames import names_on
from pipeline.labels.label import WHATEVER_THE_SCORE, labels_of, standing
from pipeline.labels.label_table import LabelTable
from pipeline.labels.parts import is_for_gate
from pipeline.night.folder import NightFolder, nights_below
from pipeline.night.manifest import read_manifest
from pipeline.package import Package
from pipeline.promotion.gate_verdict import Tally, count
from pipeline.promotion.image_scores import ImageFile, score_by_each

MOST_LOOKED_AT = 3  # nights for each that is wanted: a category may have no image in some


@dataclass(frozen=True, kw_only=True)
class GateImage:
    """One image of the comparison."""

    file: ImageFile
    category: str  # as its night called it
    night: str | None  # that it was drawn of
    label: str  # good, defect, or empty for none and for unsure


@dataclass(frozen=True, kw_only=True)
class Side:
    """What one of the two says of all images together."""

    flagged: int
    promised: float  # its false-alarm rate
    ks: float | None  # Kolmogorov-Smirnov distance of its scores from its calibration's; 1 is far


@dataclass(frozen=True, kw_only=True)
class Open:
    """An image on which they differ and that nobody has labelled."""

    image_uri: str
    image_etag: str | None
    category: str  # as its night called it
    night: str | None
    flagged_by: str  # champion or challenger
    champion_p: float
    challenger_p: float
    champion_score: float
    challenger_score: float


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """Both on the same images."""

    tally: Tally
    champion: Side
    challenger: Side
    nights: Sequence[str]  # that images were drawn of
    left_out: dict[str, int]  # images that count for neither, by why
    open_images: Sequence[Open]  # those whose label decides most first


def gather(
    category: str, out: str, nights: int, images: int, *, kept_half: bool
) -> list[GateImage]:
    """List the images of a comparison; nothing is scored yet.

    Args:
        category: its name.
        out: folder of results.
        nights: how many of the last ones with images of the category are drawn of.
        images: how many are drawn of them in all.
        kept_half: leave out images that one of the two may have learned from, labelled or not:
            without their labels alone, good images would seem to be more than they are.

    Raises:
        LabelsError, ManifestError: a stored file is damaged.
    """
    rows = LabelTable(out).of_category(category)
    drawn = _drawn(category, out, nights, images, kept_half=kept_half)
    said = labels_of(rows, {image.file.uri: image.file.etag for image in drawn})
    found = {image.file.uri: replace(image, label=said.get(image.file.uri, "")) for image in drawn}
    for row in _independent(rows).to_pylist():
        image = GateImage(
            file=ImageFile(row["image_uri"], row["image_etag"]),
            category=row["category"],
            night=row["night"],
            label=row["label"],
        )
        found.setdefault(image.file.uri, image)
    kept = [
        replace(image, label="") if image.label == "unsure" else image
        for image in found.values()
        if is_for_gate(image.file.uri) or not kept_half
    ]
    return sorted(kept, key=lambda image: not image.label)  # of copies the first counts


def _independent(rows: pa.Table) -> pa.Table:
    """Labels of images that no score of ours has chosen."""
    told = standing(rows)
    return told.filter(pc.is_in(told["chosen"], value_set=pa.array(WHATEVER_THE_SCORE)))


def _drawn(
    category: str, out: str, nights: int, images: int, *, kept_half: bool
) -> list[GateImage]:
    """Draw as many images of each of the last nights, none of them twice."""
    found = list(islice(_nights_with_images(category, out, MOST_LOOKED_AT * nights), nights))
    drawn: dict[str, GateImage] = {}
    for place, own in enumerate(found):
        share = (images - len(drawn)) // (len(found) - place)
        new = [
            image
            for image in own
            if image.file.uri not in drawn and (is_for_gate(image.file.uri) or not kept_half)
        ]
        drawn |= {image.file.uri: image for image in sorted(new, key=_place)[:share]}
    return list(drawn.values())


def _nights_with_images(category: str, out: str, most: int) -> Iterator[list[GateImage]]:
    """Yield the category's images of each night that has any, the newest first."""
    renames = read_renames(storage.absolute(out))
    for folder in reversed(nights_below(out, "manifest")[-most:]):
        if own := _of_night(names_on(folder.night, category, renames), folder):
            yield own


def _of_night(names: Sequence[str], folder: NightFolder) -> list[GateImage]:
    """Images of a night, by the names that the category had then."""
    try:
        manifest = read_manifest(folder.manifest)
    except storage.ObjectMissing:
        return []
    own = manifest.filter(pc.is_in(manifest["category"], value_set=pa.array(names, pa.string())))
    return [
        GateImage(
            file=ImageFile(row["image_uri"], row["image_etag"]),
            category=row["category"],
            night=folder.night,
            label="",
        )
        for row in own.select(["image_uri", "image_etag", "category"]).to_pylist()
    ]


def _place(image: GateImage) -> bytes:
    """Another order than the audit's, so that the two samples know nothing of each other."""
    text = f"gate {image.night} {image.file.uri}"
    return hashlib.sha256(text.encode(errors="surrogatepass")).digest()


def compare(
    champion: Package, challenger: Package, images: Sequence[GateImage], fetch: Fetch | None = None
) -> Evidence:
    """Score images by both and count on which they differ; ``fetch`` loads backbones.

    Raises:
        CategoryFault: a package cannot be used on this machine.
        StorageAway: the storage does not answer.
    """
    done = score_by_each([champion, challenger], [image.file for image in images], fetch)
    unseen = done.is_unseen
    kept = [image for image, is_kept in zip(images, unseen, strict=True) if is_kept]
    scores = done.scores[:, unseen]
    flags = [
        package.reference.calibration.flagged(own)
        for package, own in zip((champion, challenger), scores, strict=True)
    ]
    labels = np.array([image.label for image in kept], dtype=str)
    return Evidence(
        tally=count(flags[0], flags[1], labels),
        champion=_side(champion, scores[0], flags[0]),
        challenger=_side(challenger, scores[1], flags[1]),
        nights=sorted({image.night for image in kept if image.night}),
        left_out=done.left_out,
        open_images=_open(champion, challenger, kept, scores),
    )


def _side(package: Package, scores_N: NDArray[np.float32], flags_N: NDArray[np.bool_]) -> Side:
    from scipy import stats  # noqa: PLC0415  a second to import

    calibration = package.reference.calibration
    ks = stats.ks_2samp(scores_N, calibration.scores).statistic if len(scores_N) else None
    return Side(
        flagged=int(flags_N.sum()),
        promised=calibration.false_alarm_rate,
        ks=None if ks is None else float(ks),
    )


def _open(
    champion: Package,
    challenger: Package,
    images: Sequence[GateImage],
    scores_2N: NDArray[np.float32],
) -> list[Open]:
    """Images to label: those that the challenger alone flags first, the most unusual first."""
    references = champion.reference.calibration, challenger.reference.calibration
    p_2N = [each.p_value(own) for each, own in zip(references, scores_2N, strict=True)]
    flags = [each.flagged(own) for each, own in zip(references, scores_2N, strict=True)]
    found = [
        Open(
            image_uri=image.file.uri,
            image_etag=image.file.etag,
            category=image.category,
            night=image.night,
            flagged_by="challenger" if flags[1][place] else "champion",
            champion_p=float(p_2N[0][place]),
            challenger_p=float(p_2N[1][place]),
            champion_score=float(scores_2N[0, place]),
            challenger_score=float(scores_2N[1, place]),
        )
        for place, image in enumerate(images)
        if not image.label and flags[0][place] != flags[1][place]
    ]
    return sorted(found, key=_by_worth)


def _by_worth(image: Open) -> tuple[bool, float, float]:
    by_champion = image.flagged_by == "champion"
    p_value = image.champion_p if by_champion else image.challenger_p
    return by_champion, p_value, -(image.champion_score if by_champion else image.challenger_score)
