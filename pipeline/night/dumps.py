"""The images of a night: its dumps, added up.

One file beside the results holds them all, with the dump that brought each of them and a count of
the files that are no images. It is written whole or not at all, so a night that is killed knows
its dumps or has not begun to. It is a ready manifest itself: scored again, it is the very same
night whatever has happened to its dumps since, and nothing is listed.
"""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc

from pipeline import storage
from pipeline.datasets.image_lists import ManifestError, is_manifest
from pipeline.night.folder import NightError, NightFolder
from pipeline.night.inventory import InventoriedDump
from pipeline.night.listing import Listing, list_dump
from pipeline.night.manifest import MANIFEST_SCHEMA, read_manifest
from pipeline.storage.parquet import from_parquet, to_parquet

NIGHT_SCHEMA = MANIFEST_SCHEMA.append(pa.field("dump", pa.string()))  # null: an earlier release
OTHER_FILES = b"nightshift.other_files"  # in the file's own metadata


@dataclass(frozen=True, kw_only=True)
class NightImages:
    """The images of a night, and what else its dumps hold."""

    rows: pa.Table = field(default_factory=NIGHT_SCHEMA.empty_table)  # sorted by image_uri
    other_files: Mapping[str, Mapping[str, int]] = field(
        default_factory=dict
    )  # of each listed dump, by kind

    @property
    def manifest(self) -> pa.Table:
        """The images alone, as they are cut into shards."""
        return self.rows.select(MANIFEST_SCHEMA.names)

    @property
    def categories(self) -> set[str]:
        """The categories that have images."""
        return set(self.rows["category"].unique().to_pylist())

    @property
    def num_other_files(self) -> dict[str, int]:
        """Files of all dumps that are no images, by kind."""
        counts: Counter[str] = Counter()
        for of_dump in self.other_files.values():
            counts.update(of_dump)
        return dict(sorted(counts.items()))


@dataclass(frozen=True, kw_only=True)
class Change:
    """What a dump changed about the images that its night had."""

    num_before: int = 0
    num_added: int = 0
    num_removed: int = 0  # they are no longer in the dump that had brought them
    num_changed: int = 0  # they were replaced in that dump


def take_in(
    dump: str | InventoriedDump, folder: NightFolder, *, replace: bool = False
) -> tuple[NightImages, Change]:
    """Add a dump to its night and store the night's images.

    A prefix that is listed again, by its storage or by an S3 Inventory, has the images that are
    there now, and no others; what a ready manifest lists is added. The night's own stored manifest
    is the night as it is. With ``replace`` this dump alone is the night from now on.

    Raises:
        StorageError: the dump cannot be read.
        ManifestError: it has no images, or says of an image what another dump contradicts.
        NightError: the night was pruned, and its summary would count this dump alone.
    """
    if isinstance(dump, str) and storage.absolute(dump) == folder.manifest:
        return _read_images(folder), Change()
    night = NightImages()
    if not replace and storage.exists(folder.manifest):
        night = _read_images(folder)
    elif not replace and storage.exists(folder.summary):
        raise NightError(
            f"the night {folder.night} was pruned, and what is left of it would be overwritten; "
            f"score the dump as another night, or with --replace as the whole of this one"
        )
    if isinstance(dump, InventoriedDump):
        night, change = _add_listing(night, list_dump(dump.prefix, dump.inventory))
    elif is_manifest(dump):
        night, change = _add_manifest(night, storage.absolute(dump))
    else:
        night, change = _add_listing(night, list_dump(dump))
    store_images(night, folder)
    return night, change


def store_images(night: NightImages, folder: NightFolder) -> None:
    """Store a night's images beside its results."""
    metadata = {OTHER_FILES: json.dumps(night.other_files, sort_keys=True)}
    rows = night.rows.replace_schema_metadata(metadata)
    storage.write_bytes(folder.manifest, to_parquet(rows))


def _read_images(folder: NightFolder) -> NightImages:
    content = storage.read_bytes(folder.manifest)
    try:
        table = from_parquet(content)
        other_files = json.loads((table.schema.metadata or {}).get(OTHER_FILES, b"{}"))
        if "dump" not in table.column_names:
            table = table.append_column("dump", pa.nulls(table.num_rows, pa.string()))
        rows = table.select(NIGHT_SCHEMA.names).cast(NIGHT_SCHEMA)
    except (pa.ArrowException, KeyError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise ManifestError(
            f"{folder.manifest} does not list the images of a night ({reason}); score the night's "
            f"dump with --replace"
        ) from error
    return NightImages(rows=rows, other_files=other_files)


def _add_manifest(night: NightImages, uri: str) -> tuple[NightImages, Change]:
    listed = read_manifest(uri)
    _refuse_contradictions(night.rows, listed, uri)
    new = _brought_by(uri, _others(listed, night.rows))
    change = Change(num_before=night.rows.num_rows, num_added=new.num_rows)
    return NightImages(rows=_together(night.rows, new), other_files=night.other_files), change


def _add_listing(night: NightImages, listing: Listing) -> tuple[NightImages, Change]:
    noted = pc.equal(night.rows["dump"], listing.uri)
    # Earlier releases did not note which dump an image came from.
    own = pc.coalesce(noted, pc.starts_with(night.rows["image_uri"], f"{listing.uri}/"))
    before, others = night.rows.filter(own), night.rows.filter(pc.invert(own))
    _refuse_contradictions(others, listing.images, listing.uri)
    now = _brought_by(listing.uri, _others(listing.images, others))
    was, still = _pairs(before, now)
    same = pc.fill_null(pc.equal(was["image_etag"], still["image_etag"]), False)
    change = Change(
        num_before=night.rows.num_rows,
        num_added=now.num_rows - still.num_rows,
        num_removed=before.num_rows - still.num_rows,
        num_changed=still.num_rows - (pc.sum(same).as_py() or 0),
    )
    other_files = {**night.other_files, listing.uri: listing.other_files}
    return NightImages(rows=_together(others, now), other_files=other_files), change


def _refuse_contradictions(stored: pa.Table, listed: pa.Table, dump: str) -> None:
    """Fail where a dump says something else of an image than the dump that brought it."""
    was, now = _pairs(stored, listed)
    other_category = pc.not_equal(was["category"], now["category"])
    other_etag = pc.fill_null(pc.not_equal(was["image_etag"], now["image_etag"]), False)
    wrong = pc.or_(other_category, other_etag)
    count = pc.sum(wrong).as_py() or 0
    if not count:
        return
    example = pc.index(wrong, True).as_py()
    was, now = was.slice(example, 1).to_pylist()[0], now.slice(example, 1).to_pylist()[0]
    name = "category" if was["category"] != now["category"] else "image_etag"
    raise ManifestError(
        f"{dump} contradicts what the night has of {count} of its images, for example "
        f"{now['image_uri']}: {name} {now[name]!r}, was {was[name]!r}. With --replace this dump "
        f"alone is the night from now on"
    )


def _pairs(stored: pa.Table, listed: pa.Table) -> tuple[pa.Table, pa.Table]:
    """Return the rows of the images that both tables have, in one order."""
    places = pc.index_in(listed["image_uri"], value_set=stored["image_uri"].combine_chunks())
    return stored.take(places.drop_null()), listed.filter(pc.is_valid(places))


def _others(listed: pa.Table, stored: pa.Table) -> pa.Table:
    known = pc.is_in(listed["image_uri"], value_set=stored["image_uri"].combine_chunks())
    return listed.filter(pc.invert(known))


def _brought_by(dump: str, images: pa.Table) -> pa.Table:
    dumps = pa.array([dump] * images.num_rows, pa.string())
    return pa.table([*images.columns, dumps], NIGHT_SCHEMA)


def _together(some: pa.Table, others: pa.Table) -> pa.Table:
    return pa.concat_tables([some, others]).sort_by("image_uri")
