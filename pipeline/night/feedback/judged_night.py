"""A night's results as far as labels need them: what an image is, and whether it was flagged."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.images.decode import ImageStatus
from pipeline.images.prefetch import read_ahead
from pipeline.labels.audit import AUDIT_IMAGES
from pipeline.night.folder import NightFolder
from pipeline.night.results import PARALLEL_READS, RESULT_SCHEMA, read_shard, stored_shards
from pipeline.night.summary import read_summary
from pipeline.storage import ObjectMissing

COLUMNS = ["image_uri", "image_etag", "category", "status", "flagged"]
Rows = dict[str, dict[str, Any]]  # by image_uri


@dataclass(frozen=True)
class JudgedNight:
    """One night; its rows are read once, and only the columns that labels need."""

    folder: NightFolder

    @cached_property
    def table(self) -> pa.Table:
        """Every row of the night.

        Raises:
            ResultsError: a shard is damaged or of another format.
        """
        uris = [self.folder.shard(name) for name in sorted(stored_shards(self.folder))]
        read = read_ahead(lambda uri: read_shard(uri, COLUMNS), uris, PARALLEL_READS)
        return pa.concat_tables([RESULT_SCHEMA.empty_table().select(COLUMNS), *read])

    def rows_of(self, uris: Iterable[str]) -> Rows:
        """The rows of these images, as far as the night has them."""
        wanted = pa.array(sorted({*uris}), pa.string())
        own = self.table.filter(pc.is_in(self.table["image_uri"], value_set=wanted))
        return {row["image_uri"]: row for row in own.to_pylist()}

    @cached_property
    def scored(self) -> Mapping[str, Sequence[str]]:
        """Addresses of the scored images by category."""
        own = self.table.filter(pc.equal(self.table["status"], ImageStatus.OK.value))
        found: dict[str, list[str]] = defaultdict(list)
        columns = (own[name].to_pylist() for name in ("category", "image_uri"))
        for category, uri in zip(*columns, strict=True):
            found[category].append(uri)
        return found

    @cached_property
    def flagged(self) -> Collection[str]:
        """Addresses of the flagged images."""
        return {*self.table.filter(self.table["flagged"])["image_uri"].to_pylist()}

    @cached_property
    def audit_images(self) -> int:
        """Images of a category that were drawn for the audit."""
        try:
            return read_summary(self.folder)["audit_images"]
        except ObjectMissing:
            return AUDIT_IMAGES

    @cached_property
    def categories(self) -> Collection[str]:
        """Those that had images, also where the rows of an old night were removed since."""
        if self.table.num_rows:
            names: list[str] = self.table["category"].unique().to_pylist()
            return names
        try:
            return read_summary(self.folder)["categories"].keys()
        except ObjectMissing:
            return ()
