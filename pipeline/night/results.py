"""The night's answer: one row per image of the dump, one Parquet object per shard.

A shard is written whole or not at all, so a night is the set of its finished shards and running
it again only adds what is missing.
"""

from collections.abc import Iterable, Iterator, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from model.errors import NightshiftError
from pipeline import storage
from pipeline.images.decode import ImageStatus
from pipeline.images.image_statistics import STATISTICS
from pipeline.images.prefetch import read_ahead
from pipeline.night.folder import SUFFIX, NightFolder
from pipeline.storage.parquet import from_parquet, to_parquet

REGION = pa.struct(
    [
        *(pa.field(name, pa.int32()) for name in ("x", "y", "width", "height")),
        pa.field("area", pa.int64()),
        *(pa.field(name, pa.float32()) for name in ("share", "peak", "centroid_x", "centroid_y")),
    ]
)
# A status other than ok leaves empty what only a scored image has; it is flagged by nothing.
RESULT_SCHEMA = pa.schema(
    [
        pa.field("image_uri", pa.string(), nullable=False),
        pa.field("image_etag", pa.string()),
        pa.field("category", pa.string(), nullable=False),
        pa.field("status", pa.string(), nullable=False),
        pa.field("error", pa.string()),
        pa.field("score", pa.float32()),
        pa.field("p_value", pa.float64()),
        pa.field("flagged", pa.bool_()),
        pa.field("flagged_fdr", pa.bool_()),  # false until the whole night is settled
        pa.field("threshold", pa.float32()),
        pa.field("false_alarm_rate", pa.float64()),
        pa.field("model_name", pa.string()),
        pa.field("model_version", pa.string()),
        pa.field("model_digest", pa.string()),
        pa.field("map_uri", pa.string()),
        *(pa.field(name, pa.float32()) for name in STATISTICS),
        pa.field("image_mode", pa.string()),  # of the file: RGB, L, L;uint16
        pa.field("outside_range", pa.float32()),  # share of the file's numbers
        pa.field("image_width", pa.int32()),  # of the upright image, pixels
        pa.field("image_height", pa.int32()),
        pa.field("regions", pa.list_(REGION)),  # in its pixels; null where the champion has none
        pa.field("num_regions", pa.int32()),
        pa.field("area_share", pa.float32()),  # of all regions together
        pa.field("scored_at", pa.timestamp("us", tz="UTC")),
        pa.field("shard", pa.string(), nullable=False),
    ]
)

REGIONS = ("image_width", "image_height", "regions", "num_regions", "area_share")
LATER = ("image_mode", "outside_range", *REGIONS)  # null in the rows of earlier releases
FLAGS = ("flagged", "flagged_fdr")  # earlier releases left them null where there is no score
PARALLEL_READS = 8
FINAL = pa.array([ImageStatus.OK.value, ImageStatus.UNROUTED.value])
BAD = (ImageStatus.UNREADABLE, ImageStatus.TOO_LARGE, ImageStatus.SEVERAL_PAGES)
BAD_BYTES = pa.array([status.value for status in BAD])


class ResultsError(NightshiftError):
    """The stored results of a night contradict themselves or cannot be read."""


def write_shard(folder: NightFolder, name: str, table: pa.Table) -> None:
    """Store the rows of one shard, whole or not at all.

    A second write of the same shard replaces the first.

    Raises:
        pa.ArrowInvalid, KeyError: ``table`` does not fit RESULT_SCHEMA.
    """
    rows = table.select(RESULT_SCHEMA.names).cast(RESULT_SCHEMA)
    storage.write_bytes(folder.shard(name), to_parquet(rows))


def stored_shards(folder: NightFolder) -> dict[str, str]:
    """Etags of the shards that are stored, by name; empty before the night's first one."""
    objects = storage.objects_below(folder.results)
    names = [item.uri[len(folder.results) + 1 :] for item in objects]
    return {
        name.removesuffix(SUFFIX): item.etag
        for name, item in zip(names, objects, strict=True)
        if name.endswith(SUFFIX) and "/" not in name
    }


def remove_shards(folder: NightFolder, names: Iterable[str]) -> None:
    """Forget shards, for example of an earlier manifest; one that is gone already is fine."""
    for name in names:
        storage.delete(folder.shard(name))


def read_night(folder: NightFolder) -> pa.Table:
    """All rows of a night, sorted by image_uri; no rows when no shard is stored.

    Raises:
        ResultsError: a shard is damaged or of another format, or an image is there twice.
    """
    tables = list(each_shard(folder))
    rows = pa.concat_tables([RESULT_SCHEMA.empty_table(), *tables]).sort_by("image_uri")
    refuse_duplicates(rows, folder.night, rows.num_rows)
    return rows


def each_shard(folder: NightFolder) -> Iterator[pa.Table]:
    """Yield the rows of one shard after another, in the order of their names.

    Raises:
        ResultsError: a shard is damaged or of another format.
    """
    uris = [folder.shard(name) for name in sorted(stored_shards(folder))]
    yield from read_ahead(read_shard, uris, PARALLEL_READS)


def read_shard(uri: str, columns: Sequence[str] = RESULT_SCHEMA.names) -> pa.Table:
    """Some columns of one shard, in the types of RESULT_SCHEMA.

    Raises:
        ResultsError: it is damaged or of another format.
    """
    wanted = pa.schema([RESULT_SCHEMA.field(name) for name in columns])
    try:
        rows = from_parquet(storage.read_bytes(uri), columns)
        for name in {*columns}.intersection(LATER).difference(rows.column_names):
            rows = rows.append_column(name, pa.nulls(rows.num_rows))
        rows = rows.select(list(columns)).cast(wanted)
    except (pa.ArrowException, KeyError) as error:
        raise ResultsError(
            f"{uri} does not hold result rows ({error}); delete it and score the night again"
        ) from error
    for name in FLAGS:
        if name in columns:
            column = rows.schema.get_field_index(name)
            rows = rows.set_column(column, wanted.field(column), pc.fill_null(rows[name], False))
    return rows


def is_final(rows: pa.Table) -> pa.ChunkedArray:
    """Which rows will not change: scored ones, and those whose very bytes are no good.

    Without an etag nobody knows whether the bytes are still the same.
    """
    bad_bytes = pc.is_in(rows["status"], value_set=BAD_BYTES)
    bad_for_good = pc.and_(bad_bytes, pc.is_valid(rows["image_etag"]))
    return pc.or_(pc.is_in(rows["status"], value_set=FINAL), bad_for_good)


def refuse_duplicates(rows: pa.Table, night: str, num_rows: int) -> None:
    """Fail when an image has two rows among all of a night, or among those that may be there twice.

    ``num_rows`` is of the whole night.

    Raises:
        ResultsError: with the images counted, and one of them named with its shards.
    """
    uris = rows["image_uri"]
    num_surplus = len(uris) - pc.count_distinct(uris).as_py()
    if not num_surplus:
        return
    counts = uris.value_counts()
    twice = counts.filter(pc.greater(counts.field("counts"), 1)).field("values")
    example = twice[0].as_py()
    shards = rows.filter(pc.equal(uris, example))["shard"].unique().to_pylist()
    raise ResultsError(
        f"{len(twice)} of {num_rows - num_surplus} images of night {night} have more than one "
        f"row, first {example} in shard(s) {', '.join(shards)}; each needs exactly one. "
        f"Delete the shards that should not be there and score the night again"
    )


def by_category(rows: pa.Table) -> dict[str, pa.Table]:
    """The rows of each category, categories in alphabetical order."""
    ordered = rows.sort_by("category")
    groups, start = {}, 0
    for entry in ordered["category"].value_counts().to_pylist():
        groups[entry["values"]] = ordered.slice(start, entry["counts"])
        start += entry["counts"]
    return groups
