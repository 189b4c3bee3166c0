"""The table of labels: beside the results, in files that are added and never changed.

``<out>/labels/category=<category>/<night>-<digest>.parquet`` holds what one import brought of one
category and night. The name is a digest of the content: the same labels twice are one file, an
import that was killed is finished by importing again, and two people never overwrite each other.
What a night's report needs of a thousand categories is found by names alone.

Earlier releases stored labels by night, ``<out>/labels/night=<night>/<digest>.parquet``. They are
read as they are, and taken in by the next import; ``taken_in.json`` says which have been.
"""

import hashlib
import json
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from itertools import pairwise

import pyarrow as pa
import pyarrow.compute as pc

from pipeline import storage
from pipeline.catalogue.category_name import file_name
from pipeline.catalogue.rename_table import read_renames
from pipeline.catalogue.renames import Rename, earlier_names, name_now
from pipeline.images.prefetch import read_ahead
from pipeline.labels.label import LABEL_SCHEMA, LATER, LabelsError
from pipeline.labels.week_copies import WeekCopies
from pipeline.storage.parquet import from_parquet, to_parquet

SUFFIX = ".parquet"
OF_CATEGORY, OF_NIGHT = "category=", "night="  # how the folders below labels/ begin
NO_NIGHT = "none"
PARALLEL = 16  # requests; small files cost their way and little else


class LabelTable:
    """All labels below one folder of results. Listings and earlier releases' files are kept."""

    def __init__(self, out: str, renames: Iterable[Rename] = ()) -> None:
        """Take the folder or prefix that ``score --out`` was given; nothing is read yet.

        Renames are those of the registry, which the results may not have been told of yet.
        """
        self.out = storage.absolute(out)
        self._given = tuple(renames)
        self.folder = storage.join(self.out, "labels")

    @property
    def is_empty(self) -> bool:
        """Whether nothing was ever stored in it, or nothing is there at all."""
        return not self._listed

    def categories(self) -> list[str]:
        """Every category that has a label, by its name of today, sorted.

        Raises:
            LabelsError: a stored file is damaged.
        """
        named = {name for name in self._folders if not name.startswith("_")}
        others = [self._files(name)[:1] for name in self._folders - named]
        rows = self._read([uri for first in others for uri in first])
        found = {*named, *_distinct(rows), *_distinct(self._earlier)}
        for name in found & {rename.old for rename in self._renames}:
            found |= {*self._today(self._named([name]))}
            if not self.of_category(name).num_rows:  # all of them have another name today
                found.remove(name)
        return sorted(found)

    def of_category(self, category: str) -> pa.Table:
        """Every label that was ever given to a category's images, LABEL_SCHEMA, in no order.

        Those that were given under an earlier name are among them, with that name.

        Raises:
            LabelsError: a stored file is damaged.
        """
        names = [category, *(name for name, _ in earlier_names(category, self._renames))]
        rows = self._named(names)
        if not self._renames:
            return rows
        return rows.filter(pa.array([name == category for name in self._today(rows)], pa.bool_()))

    def _named(self, names: Sequence[str]) -> pa.Table:
        """Every label with one of these names."""
        rows = self._read([uri for name in names for uri in self._files(file_name(name))])
        rows = pa.concat_tables([rows, self._earlier])
        return rows.filter(pc.is_in(rows["category"], value_set=pa.array(names, pa.string())))

    def _today(self, rows: pa.Table) -> list[str]:
        """What the category of each label is called today; its model says which one it was."""
        return [
            name_now(
                (row["model_name"] or "").partition(".")[2] or row["category"],
                row["night"] or row["labelled_at"].date().isoformat(),
                self._renames,
            )
            for row in rows.select(["category", "model_name", "night", "labelled_at"]).to_pylist()
        ]

    def of_night(self, night: str | None, categories: Iterable[str]) -> pa.Table:
        """Every label that was ever given to these categories' images of a night, in no order.

        Categories are called as they were that night. Without a night: the labels that have none.

        Raises:
            LabelsError: a stored file is damaged.
        """
        return self._of_dates({night or NO_NIGHT}, {*categories})

    def of_nights(
        self,
        nights: Collection[str],
        categories: Iterable[str],
        copies: WeekCopies | None = None,
    ) -> pa.Table:
        """Every label that was ever given to these categories' images of some nights.

        Categories are called as they were on the last of the nights, in the labels too. With
        copies most of them are read from there.

        Raises:
            LabelsError: a stored file is damaged.
        """
        names = {*categories}
        if not self._renames:
            return self._of_dates({*nights}, names, copies)
        by_name_today = defaultdict(list)
        for name in sorted(names):
            by_name_today[name_now(name, max(nights), self._renames)].append(name)
        wanted = names.union(
            *({n for n, _ in earlier_names(today, self._renames)} for today in by_name_today)
        )
        rows = self._of_dates({*nights}, wanted, copies)

        def on_last_night(own: str, today: str) -> str | None:
            known = by_name_today.get(today, [None])  # two on the day of the rename itself
            return own if own in known else today if today in known else known[0]

        names_then = map(on_last_night, rows["category"].to_pylist(), self._today(rows))
        called = pa.array(list(names_then), pa.string())
        place = LABEL_SCHEMA.get_field_index("category")
        return rows.filter(pc.is_valid(called)).set_column(
            place, LABEL_SCHEMA.field(place), called.drop_null()
        )

    def _of_dates(
        self, dates: Collection[str], wanted: Collection[str], copies: WeekCopies | None = None
    ) -> pa.Table:
        """Every label with one of these names and nights, NO_NIGHT among them."""
        there = sorted({*map(file_name, wanted)} & self._folders)
        listed = read_ahead(self._files, there, PARALLEL)
        files = [uri for own in listed for uri in own if _night_of(uri) in dates]
        rows = copies.read(files, _read_each) if copies else self._read(files)
        of_night = pc.is_in(self._earlier["night"], value_set=pa.array(sorted(dates), pa.string()))
        earlier = self._earlier.filter(of_night)
        own = pc.is_in(earlier["category"], value_set=pa.array(sorted(wanted), pa.string()))
        return pa.concat_tables([rows, earlier.filter(own)])

    def append(self, rows: pa.Table) -> int:
        """Store labels, whole files or none of each; return how many files were not there before.

        Args:
            rows: LABEL_SCHEMA; of any categories and nights.
        """
        files = [self._file(part) for part in _parts(rows)]
        written = list(read_ahead(_write_if_missing, files, PARALLEL))
        self._forget("_listed", "_folders")
        return sum(written)

    def take_in(self) -> int:
        """Store the labels of earlier releases' files in the table, once; return how many files."""
        known = self._taken_in
        found = {name: self._names(name) for name in self._nights}
        new = {night: sorted({*names} - {*known.get(night, ())}) for night, names in found.items()}
        uris = [storage.join(self.folder, night, name) for night in new for name in new[night]]
        if uris:
            self.append(self._read(uris))
            content = json.dumps({**known, **found}, sort_keys=True).encode()
            storage.write_bytes(self._record, content)
            self._forget("_taken_in", "_earlier")
        return len(uris)

    def _forget(self, *names: str) -> None:
        for name in names:
            self.__dict__.pop(name, None)

    @property
    def _record(self) -> str:
        return storage.join(self.folder, "taken_in.json")

    @cached_property
    def _renames(self) -> list[Rename]:
        return [*dict.fromkeys([*read_renames(self.out), *self._given])]

    @cached_property
    def _listed(self) -> list[str]:
        return storage.names_below(self.folder)

    @cached_property
    def _folders(self) -> set[str]:
        """Names of the categories' folders, without their beginning."""
        names = [name for name in self._listed if name.startswith(OF_CATEGORY)]
        return {name.removeprefix(OF_CATEGORY) for name in names}

    @cached_property
    def _nights(self) -> list[str]:
        """Folders of earlier releases."""
        return [name for name in self._listed if name.startswith(OF_NIGHT)]

    @cached_property
    def _taken_in(self) -> Mapping[str, list[str]]:
        """Files of earlier releases that are in the table; without a record they are read twice."""
        content = storage.read_if_there(self._record)
        with suppress(ValueError):
            record: dict[str, list[str]] = json.loads(content or b"{}")
            return record
        return {}

    @cached_property
    def _earlier(self) -> pa.Table:
        """What lies by night only."""
        new = [night for night in self._nights if night not in self._taken_in]
        files = [
            storage.join(self.folder, night, name) for night in new for name in self._names(night)
        ]
        return self._read(files)

    def _names(self, folder: str) -> list[str]:
        names = storage.names_below(storage.join(self.folder, folder))
        return [name for name in names if name.endswith(SUFFIX)]

    def _files(self, name: str) -> list[str]:
        folder = f"{OF_CATEGORY}{name}"
        return [storage.join(self.folder, folder, each) for each in self._names(folder)]

    def _read(self, uris: Collection[str]) -> pa.Table:
        return pa.concat_tables([LABEL_SCHEMA.empty_table(), *_read_each(uris)])

    def _file(self, rows: pa.Table) -> tuple[str, pa.Table]:
        """Where rows of one category and night go."""
        category, night = rows["category"][0].as_py(), rows["night"][0].as_py()
        name = f"{night or NO_NIGHT}-{_digest(rows)}{SUFFIX}"
        return storage.join(self.folder, f"{OF_CATEGORY}{file_name(category)}", name), rows


def table_beside(out: str) -> LabelTable:
    """Return the table of labels of results that are there, for commands that only read it.

    Raises:
        LabelsError: nothing is there, so that the address is most likely mistyped.
    """
    table = LabelTable(out)
    if not storage.names_below(table.out):
        raise LabelsError(f"{table.out}: nothing is there; name the folder that score --out names")
    return table


def _night_of(uri: str) -> str:
    """Night of a file by its name: <night>-<digest>.parquet."""
    return uri.rpartition("/")[2].rpartition("-")[0]


def _distinct(rows: pa.Table) -> list[str]:
    names: list[str] = rows["category"].unique().to_pylist()
    return names


def _parts(rows: pa.Table) -> list[pa.Table]:
    """The rows of each category and night, each in one order whatever order they came in."""
    order = ("category", "night", "image_uri", "labelled_at", "label")
    ordered = rows.sort_by([(name, "ascending") for name in order])
    keys = list(zip(ordered["category"].to_pylist(), ordered["night"].to_pylist(), strict=True))
    starts = [row for row, key in enumerate(keys) if not row or key != keys[row - 1]]
    return [ordered.slice(start, stop - start) for start, stop in pairwise([*starts, len(keys)])]


def _read(uri: str) -> pa.Table:
    try:
        rows = from_parquet(storage.read_bytes(uri))
        for name in LATER.difference(rows.column_names):
            value = pa.scalar(
                "unknown" if name == "chosen" else None, LABEL_SCHEMA.field(name).type
            )
            rows = rows.append_column(name, pa.repeat(value, rows.num_rows))
        return rows.select(LABEL_SCHEMA.names).cast(LABEL_SCHEMA)
    except (pa.ArrowException, KeyError) as error:
        raise LabelsError(
            f"{uri} does not hold labels ({error}); delete it and import its labels again"
        ) from error


def _read_each(uris: Collection[str]) -> list[pa.Table]:
    return list(read_ahead(_read, uris, PARALLEL))


def _write_if_missing(file: tuple[str, pa.Table]) -> bool:
    uri, rows = file
    if storage.exists(uri):
        return False
    return storage.write_new(uri, to_parquet(rows))


def _digest(rows: pa.Table) -> str:
    content = repr([tuple(row.values()) for row in rows.to_pylist()])
    return hashlib.sha256(content.encode(errors="surrogatepass")).hexdigest()[:32]
