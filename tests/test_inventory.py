"""S3 Inventory: what a dump holds, read from the lists that S3 writes instead of listing it."""

import gzip
import hashlib
import io
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.orc
import pyarrow.parquet as pq
import pytest
from command_line import Run

from pipeline import storage
from pipeline.datasets.image_lists import ManifestError
from pipeline.night.dumps import Change, take_in
from pipeline.night.folder import NightFolder
from pipeline.night.inventory import InventoriedDump
from pipeline.night.listing import list_dump
from pipeline.night.manifest import read_manifest

# As S3 encodes keys in CSV inventories: by hand, after the table of form encoding in WHATWG's URL.
ENCODED = {
    "a b.png": "a+b.png",
    "a+b.png": "a%2Bb.png",
    "100%.png": "100%25.png",
    "a%20b.png": "a%2520b.png",
    "Prüfung.png": "Pr%C3%BCfung.png",
    "#1.png": "%231.png",
    "x=1.png": "x%3D1.png",
    'a,"b".png': "a%2C%22b%22.png",
    "plain-1_2.png": "plain-1_2.png",
}
CSV_SCHEMA = "Bucket, Key, VersionId, IsLatest, IsDeleteMarker, Size, LastModifiedDate, ETag"
PLACES = ("bucket", "key", "version_id", "is_latest", "is_delete_marker", "size", "e_tag")
Row = tuple[str, bool, bool]  # key as it is, the latest version, a delete marker
FORMATS = ("CSV", "Parquet", "ORC")


class Account:
    """A bucket with a dump, and beside it the inventories that S3 makes of it."""

    def __init__(self, bucket: str) -> None:
        self.bucket = bucket
        self.dump = f"{bucket}/dumps/2026-03-12"

    def inventory(self, rows: list[Row], form: str = "CSV", num_files: int = 1) -> str:
        """Write an inventory of several files; return its manifest.json."""
        name = self.bucket.removeprefix("s3://")
        files = []
        for number in range(num_files):
            content = DATA_FILES[form](name, rows[number::num_files])
            key = f"lists/{name}/daily/data/{number}.{form.lower()}"
            storage.write_bytes(f"{self.bucket}/{key}", content)
            md5 = hashlib.md5(content, usedforsecurity=False).hexdigest()
            files.append({"key": key, "size": len(content), "MD5checksum": md5})
        manifest = {
            "sourceBucket": name,
            "destinationBucket": f"arn:aws:s3:::{name}",
            "version": "2016-11-30",
            "creationTimestamp": "1773273600000",  # 2026-03-12 00:00 UTC
            "fileFormat": form,
            "fileSchema": CSV_SCHEMA if form == "CSV" else "struct<bucket:string,key:string>",
            "files": files,
        }
        uri = f"{self.bucket}/lists/{name}/daily/2026-03-12T00-00Z/manifest.json"
        storage.write_bytes(uri, json.dumps(manifest, indent=4).encode())
        return uri


def csv_file(bucket: str, rows: list[Row]) -> bytes:
    lines = []
    for key, latest, deleted in rows:
        folder, _, name = key.rpartition("/")
        encoded = f"{folder}/{ENCODED.get(name, name)}"
        size, etag = ("", "") if deleted else ("3", "900150983cd24fb0d6963f7d28e17f72")
        values = [bucket, encoded, "v1", latest, deleted, size, "2026-03-11T20:00:00.000Z", etag]
        words = (str(v).lower() if isinstance(v, bool) else v for v in values)
        lines.append(",".join(f'"{word}"' for word in words))
    return gzip.compress("\n".join(lines).encode())


def table(bucket: str, rows: list[Row]) -> pa.Table:
    etag = "900150983cd24fb0d6963f7d28e17f72"
    columns = [
        [bucket] * len(rows),
        [key for key, _, _ in rows],
        ["v1"] * len(rows),
        [latest for _, latest, _ in rows],
        [deleted for _, _, deleted in rows],
        pa.array([None if deleted else 3 for _, _, deleted in rows], pa.int64()),
        [None if deleted else etag for _, _, deleted in rows],
    ]
    return pa.table(columns, PLACES)


def parquet_file(bucket: str, rows: list[Row]) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(table(bucket, rows), buffer, compression="snappy")
    return buffer.getvalue()


def orc_file(bucket: str, rows: list[Row]) -> bytes:
    buffer = io.BytesIO()
    pyarrow.orc.write_table(table(bucket, rows), buffer, compression="zlib")
    return buffer.getvalue()


DATA_FILES = {"CSV": csv_file, "Parquet": parquet_file, "ORC": orc_file}


@pytest.fixture
def account(s3: str) -> Account:
    return Account(s3)


def current(*names: str) -> list[Row]:
    return [(f"dumps/2026-03-12/{name}", True, False) for name in names]


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("num_files", [1, 3])
def test_an_inventory_lists_what_listing_the_dump_lists(
    account: Account, form: str, num_files: int
) -> None:
    names = [f"Büro 3/{name}" for name in ENCODED] + ["can/deep/1.png", "stray.png"]
    others = ["can/.hidden.png", ".trash/1.png", "can/1.json", "can/Thumbs.db"]
    for name in [*names, *others]:
        storage.write_bytes(f"{account.dump}/{name}", b"abc")
    storage.write_bytes(f"{account.bucket}/dumps/2026-03-123/can/1.png", b"abc")
    rows = current(*names, *others, "can/")  # the console marks a folder so
    rows += [("dumps/2026-03-123/can/1.png", True, False), ("dumps/2026-03-12", True, False)]
    inventory = account.inventory(rows_in_csv(rows, form), form, num_files)
    listed, found = list_dump(account.dump), list_dump(account.dump, inventory)
    assert found.images.equals(listed.images)
    assert found.images.num_rows == len(names)
    assert found.other_files == listed.other_files == {"hidden": 2, ".json": 1, ".db": 1}


def rows_in_csv(rows: list[Row], form: str) -> list[Row]:
    """Encode the folder too, which ``csv_file`` takes as it is."""
    if form != "CSV":
        return rows
    return [(key.replace("Büro 3/", "B%C3%BCro+3/"), *rest) for key, *rest in rows]  # type: ignore[misc]


@pytest.mark.parametrize("form", FORMATS)
def test_old_versions_and_delete_markers_are_left_out(account: Account, form: str) -> None:
    rows = [
        *current("can/1.png"),
        ("dumps/2026-03-12/can/1.png", False, False),  # what 1.png was before
        ("dumps/2026-03-12/can/2.png", True, True),  # deleted
        ("dumps/2026-03-12/can/2.png", False, False),
        ("dumps/2026-03-12/can/3.png", False, True),  # deleted, and written again
        *current("can/3.png"),
    ]
    images = list_dump(account.dump, account.inventory(rows, form)).images
    assert [uri[-5:] for uri in images["image_uri"].to_pylist()] == ["1.png", "3.png"]
    assert set(images["image_etag"].to_pylist()) == {"900150983cd24fb0d6963f7d28e17f72"}
    assert images["size_bytes"].to_pylist() == [3, 3]


def test_an_inventory_without_etag_size_and_versions_is_enough(account: Account) -> None:
    uri = account.inventory(current("can/1.png"))
    manifest = json.loads(storage.read_bytes(uri))
    content = gzip.compress(f'"{manifest["sourceBucket"]}","dumps/2026-03-12/can/1.png"\n'.encode())
    storage.write_bytes(f"{account.bucket}/{manifest['files'][0]['key']}", content)
    del manifest["files"][0]["MD5checksum"]
    storage.write_bytes(uri, json.dumps(manifest | {"fileSchema": "Bucket, Key"}).encode())
    assert list_dump(account.dump, uri).images.to_pylist() == [
        {
            "image_uri": f"{account.dump}/can/1.png",
            "image_etag": None,
            "size_bytes": None,
            "category": "can",
        }
    ]


def test_an_inventoried_dump_is_the_dump_that_was_listed(account: Account, tmp_path: Path) -> None:
    """A later inventory replaces what the prefix had, as a later listing does."""
    folder = NightFolder(str(tmp_path), "2026-03-12")
    early = account.inventory(current("can/1.png", "can/2.png"))
    take_in(InventoriedDump(prefix=account.dump, inventory=early), folder)
    late = account.inventory(current("can/2.png", "can/3.png", "cup/1.png"))
    night, change = take_in(InventoriedDump(prefix=f"{account.dump}/", inventory=late), folder)
    assert change == Change(num_before=2, num_added=2, num_removed=1, num_changed=0)
    assert set(night.rows["dump"].to_pylist()) == {account.dump}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sourceBucket": "other"}, "is the inventory of s3://other, and the dump is s3://"),
        ({"fileFormat": "Avro"}, "format Avro is unknown; choose CSV, Parquet or ORC"),
        ({"fileFormat": "Parquet"}, "no readable Parquet file of an inventory"),
        ({"fileFormat": "ORC"}, "no readable ORC file of an inventory"),
        ({"fileSchema": "Bucket, Key, Size"}, "no readable CSV file of an inventory"),
        ({"fileSchema": CSV_SCHEMA.replace("Key", "Name")}, "has no column of keys"),
        ({"files": []}, "made 2026-03-12T00:00.*lists nothing below"),
    ],
)
def test_an_inventory_that_cannot_be_used_says_why(
    account: Account, change: dict[str, object], message: str
) -> None:
    uri = account.inventory(current("can/1.png"))
    manifest = json.loads(storage.read_bytes(uri))
    storage.write_bytes(uri, json.dumps(manifest | change).encode())
    with pytest.raises(ManifestError, match=message) as caught:
        list_dump(account.dump, uri)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"no gzip", gzip.compress(b"a,b\n" * 99, mtime=0)[:-12]])
def test_a_data_file_that_is_not_the_one_named_is_refused(account: Account, content: bytes) -> None:
    uri = account.inventory(current("can/1.png"))
    key = json.loads(storage.read_bytes(uri))["files"][0]["key"]
    storage.write_bytes(f"{account.bucket}/{key}", content)
    with pytest.raises(ManifestError, match=r"is not the file that .* names: its MD5 is"):
        list_dump(account.dump, uri)


WRONG_TYPES = [
    {"files": ["a.csv.gz"]},
    {"files": 3},
    {"fileSchema": ["key"]},
    {"destinationBucket": 1},
    {"creationTimestamp": "today"},
]


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"[]", b'{"files": []}', b'{"image_uri": "a.png"}\n'),
        *(
            json.dumps(
                {
                    "sourceBucket": "a",
                    "destinationBucket": "arn:aws:s3:::a",
                    "fileFormat": "CSV",
                    "fileSchema": "Bucket, Key",
                    "files": [],
                }
                | wrong
            ).encode()
            for wrong in WRONG_TYPES
        ),
    ],
)
def test_what_is_no_inventory_is_refused(account: Account, content: bytes) -> None:
    storage.write_bytes(f"{account.bucket}/manifest.json", content)
    with pytest.raises(ManifestError, match=r"is not the manifest\.json of an S3 Inventory"):
        list_dump(account.dump, f"{account.bucket}/manifest.json")


def test_an_inventory_alone_does_not_say_where_the_dump_begins(account: Account) -> None:
    uri = account.inventory(current("can/1.png"))
    message = rf"score {account.bucket}/<dump> --inventory {uri}"
    with pytest.raises(ManifestError, match=message):
        read_manifest(uri)


def test_the_command_reads_the_inventory_and_refuses_a_dump_that_is_not_in_it(
    account: Account, run: Run
) -> None:
    storage.write_bytes(f"{account.bucket}/dumps/2026-03-13/can/1.png", b"newer than the inventory")
    uri = account.inventory(current("can/1.png"))
    place = ["--out", f"{account.bucket}/out", "--night", "2026-03-13", "--inventory", uri]
    answer = run("score", f"{account.bucket}/dumps/2026-03-13", *place)
    assert "lists nothing below" in answer.refusal()
    assert not storage.exists(f"{account.bucket}/out")


@pytest.mark.parametrize("header", ["bucket,key,category", "Bucket, Key, Category"])
@pytest.mark.parametrize("suffix", ["csv", "csv.gz"])
def test_keys_of_a_csv_with_a_header_are_url_encoded(
    tmp_path: Path, header: str, suffix: str
) -> None:
    text = "\n".join([header, *(f"dump,cup/{encoded},cup" for encoded in ENCODED.values())])
    content = text.encode() if suffix == "csv" else gzip.compress(text.encode())
    (tmp_path / f"m.{suffix}").write_bytes(content)
    manifest = read_manifest(str(tmp_path / f"m.{suffix}"))
    assert manifest["image_uri"].to_pylist() == sorted(f"s3://dump/cup/{name}" for name in ENCODED)


@pytest.mark.parametrize("suffix", ["parquet", "jsonl", "jsonl.gz"])
def test_keys_of_parquet_and_json_lines_are_taken_as_they_are(tmp_path: Path, suffix: str) -> None:
    rows = [{"bucket": "dump", "key": f"cup/{name}", "category": "cup"} for name in ENCODED]
    path = tmp_path / f"m.{suffix}"
    if suffix == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        text = "\n".join(json.dumps(row) for row in rows).encode()
        path.write_bytes(gzip.compress(text, mtime=0) if suffix.endswith(".gz") else text)
    manifest = read_manifest(str(path))
    assert manifest["image_uri"].to_pylist() == sorted(f"s3://dump/cup/{name}" for name in ENCODED)


@pytest.mark.parametrize("key", ["a b.png", "Prüfung.png", "100%.png", "5%of.png", "1%4.png"])
def test_keys_of_a_csv_that_are_not_encoded_are_refused(tmp_path: Path, key: str) -> None:
    (tmp_path / "m.csv").write_text(f"bucket,key,category\ndump,a+b.png,cup\ndump,{key},cup\n")
    message = rf"m\.csv: keys in CSV are URL-encoded.* 1 of 2 are not, the first is row 2: '{key}'"
    with pytest.raises(ManifestError, match=message):
        read_manifest(str(tmp_path / "m.csv"))


def test_a_key_that_is_encoded_in_another_alphabet_is_refused(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text("bucket,key,category\ndump,Pr%FCfung.png,cup\n")
    with pytest.raises(ManifestError, match=r"m\.csv: a key is no URL-encoded UTF-8"):
        read_manifest(str(tmp_path / "m.csv"))


def test_image_uris_of_a_csv_are_taken_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text("image_uri,category\ns3://dump/cup/a+b%20c.png,cup\n")
    assert read_manifest(str(tmp_path / "m.csv"))["image_uri"].to_pylist() == [
        "s3://dump/cup/a+b%20c.png"
    ]


def test_old_versions_of_a_ready_manifest_are_left_out(tmp_path: Path) -> None:
    lines = ["Bucket,Key,IsLatest,IsDeleteMarker,category", "b,1.png,true,false,cup"]
    lines += ["b,1.png,false,false,cup", "b,2.png,true,true,cup", "b,3.png,,,cup"]
    (tmp_path / "m.csv").write_text("\n".join(lines))
    manifest = read_manifest(str(tmp_path / "m.csv"))
    assert manifest["image_uri"].to_pylist() == ["s3://b/1.png", "s3://b/3.png"]


@pytest.mark.parametrize("content", [b"image_uri,category\na.png,cup\n", b"\x1f\x8b\x08broken"])
def test_what_is_named_gz_and_is_none_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "m.csv.gz").write_bytes(content)
    with pytest.raises(ManifestError, match=r"m\.csv\.gz is no readable \.csv file"):
        read_manifest(str(tmp_path / "m.csv.gz"))
