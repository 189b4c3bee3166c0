"""Ready manifests, and the cut of a list of images into shards."""

import json
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import storage
from pipeline.datasets.image_lists import ROWS_AT_ONCE, ManifestError, read_columns
from pipeline.night.manifest import (
    MANIFEST_SCHEMA,
    read_manifest,
    shards,
)


def write(folder: Path, name: str, content: str | bytes = "x") -> str:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return str(path)


def table_of(num_rows: int) -> pa.Table:
    return pa.table(
        [
            [f"s3://dump/category/{i:06d}.png" for i in range(num_rows)],
            [f"etag{i}" for i in range(num_rows)],
            list(range(num_rows)),
            ["category"] * num_rows,
        ],
        MANIFEST_SCHEMA,
    )


CSV = "category,image_uri,etag,size\ncup,s3://b/2.png,e2,20\n007,images/1.png,,\n"
JSON_LINES = (
    '{"source-ref": "s3://b/2.png", "category": "cup", "etag": "\\"e2\\"", "size": 20}\n\n'
    '{"source-ref": "images/1.png", "category": "007", "anomaly-label-metadata": {"x": 1}}\n'
)


@pytest.mark.parametrize(
    ("name", "content"), [("m.csv", CSV), ("m.jsonl", JSON_LINES), ("m.manifest", JSON_LINES)]
)
def test_ready_manifests_mean_the_same_in_every_format(
    tmp_path: Path, name: str, content: str
) -> None:
    manifest = read_manifest(write(tmp_path, name, content))
    assert manifest.schema == MANIFEST_SCHEMA
    assert manifest.to_pylist() == [
        {
            "image_uri": f"{tmp_path}/images/1.png",
            "image_etag": None,
            "size_bytes": None,
            "category": "007",
        },
        {"image_uri": "s3://b/2.png", "image_etag": "e2", "size_bytes": 20, "category": "cup"},
    ]


def test_an_s3_inventory_names_bucket_and_key(tmp_path: Path) -> None:
    inventory = {
        "bucket": ["dump", "dump"],
        "key": ["cup/b c%.png", "cup/a.png"],
        "size": pa.array([7, 8], pa.int64()),
        "e_tag": ["f", "e"],
        "category": pa.array(["cup", "cup"]).dictionary_encode(),
    }
    pq.write_table(pa.table(inventory), tmp_path / "m.parquet")
    manifest = read_manifest(str(tmp_path / "m.parquet"))
    assert manifest["image_uri"].to_pylist() == ["s3://dump/cup/a.png", "s3://dump/cup/b c%.png"]
    assert manifest["image_etag"].to_pylist() == ["e", "f"]
    assert manifest["size_bytes"].to_pylist() == [8, 7]


def test_a_manifest_on_s3_resolves_against_its_own_prefix(s3: str) -> None:
    storage.write_bytes(f"{s3}/lists/m.csv", b"image_uri,category\nsub/./1.png,cup\n")
    manifest = read_manifest(f"{s3}/lists/m.csv")
    assert manifest["image_uri"].to_pylist() == [f"{s3}/lists/sub/1.png"]


def test_a_spreadsheet_with_byte_order_mark_and_quoted_commas_is_read(tmp_path: Path) -> None:
    content = '\ufeffimage_uri,category,remark\n"s3://b/a,b.png",cup,"two\nlines"\n'
    manifest = read_manifest(write(tmp_path, "m.csv", content))
    assert manifest["image_uri"].to_pylist() == ["s3://b/a,b.png"]


@pytest.mark.parametrize("path", ["../other/1.png", "..", "images/../../1.png"])
def test_a_path_that_leaves_the_manifests_folder_is_refused(tmp_path: Path, path: str) -> None:
    uri = write(tmp_path, "m.csv", f"image_uri,category\n{path},cup\n")
    with pytest.raises(ManifestError, match="leads out of the manifest's folder"):
        read_manifest(uri)


def test_an_image_listed_twice_is_refused_with_an_example(tmp_path: Path) -> None:
    lines = ["image_uri,category", "a.png,cup", "s3://b/1,cup", "./a.png,cup", "s3://b/2,cup"]
    uri = write(tmp_path, "m.csv", "\n".join(lines))
    with pytest.raises(ManifestError, match=r"1 values of image_uri .* more than once.*a\.png"):
        read_manifest(uri)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("m.csv", "uri,category\na,cup\n", "no row has image_uri or source-ref"),
        ("m.csv", "image_uri,kind\na,cup\n", "no row has category"),
        ("m.csv", "image_uri,category\n,cup\na,cup\n", "1 of 2 rows have no image_uri.* row 1;"),
        ("m.csv", "image_uri,category,size\na,cup,big\n", "size must be a whole number"),
        ("m.csv", "image_uri,category\na\n", "no readable .csv file"),
        ("m.csv", "", "no readable .csv file"),
        ("m.jsonl", '{"image_uri": "a", "category": "c"}\n{"image_uri"\n', "line 2 is not JSON"),
        ("m.json", '[{"image_uri": "a"}]', "line 1 is not a JSON object"),
        ("m.jsonl", "", "no row has image_uri"),
        ("m.parquet", "no parquet", "no readable .parquet file"),
        ("m.xlsx", "x", "a manifest ends in .parquet, .pq, .csv, .jsonl"),
    ],
)
def test_an_unusable_manifest_says_what_is_wrong(
    tmp_path: Path, name: str, content: str, message: str
) -> None:
    with pytest.raises(ManifestError, match=message) as caught:
        read_manifest(write(tmp_path, name, content))
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_manifest_is_named(tmp_path: Path) -> None:
    with pytest.raises(storage.ObjectMissing, match=r"gone\.csv does not exist"):
        read_manifest(str(tmp_path / "gone.csv"))


def test_shards_hold_every_row_once_and_in_order() -> None:
    manifest = table_of(1300)
    parts = shards(manifest)
    assert [part.rows.num_rows for part in parts] == [512, 512, 276]
    assert pa.concat_tables([part.rows for part in parts]).equals(manifest)


def test_a_shard_holds_one_category_and_another_categorys_images_do_not_rename_it() -> None:
    manifest = table_of(7)
    mixed = manifest.set_column(3, "category", pa.array(list("bacabca")))
    parts = shards(mixed, 2)
    assert [(part.category, part.rows.num_rows) for part in parts] == [
        *(("a", 2), ("a", 1), ("b", 2), ("c", 2)),
    ]
    for part in parts:
        assert part.rows["category"].unique().to_pylist() == [part.category]
    more = pa.concat_tables([mixed, table_of(9).slice(7)])  # two images of a fourth category
    assert [p.name for p in shards(more, 2) if p.category in "abc"] == [p.name for p in parts]


@given(num_rows=st.integers(0, 40), size=st.integers(1, 50))
def test_shards_partition_any_manifest(num_rows: int, size: int) -> None:
    manifest = table_of(num_rows)
    parts = shards(manifest, size)
    assert sum(part.rows.num_rows for part in parts) == num_rows
    assert all(part.rows.num_rows == size for part in parts[:-1])
    assert len({part.name for part in parts}) == len(parts)


def test_shard_names_are_a_category_a_position_and_twelve_hex_digits() -> None:
    names = [part.name for part in shards(table_of(3), 1)]
    assert [name.split("-")[:2] for name in names] == [["category", f"0000{i}"] for i in range(3)]
    assert all(re.fullmatch("[0-9a-f]{12}", name.split("-")[2]) for name in names)


@pytest.mark.parametrize("category", ["", "../..", "Büro 3", "a/b", "-", "_x", "x" * 300])
def test_a_folder_that_cannot_be_a_category_still_names_a_shard(category: str) -> None:
    manifest = table_of(1).set_column(3, "category", pa.array([category]))
    (shard,) = shards(manifest)
    assert shard.category == category
    assert re.fullmatch("_[0-9a-f]{12}-00000-[0-9a-f]{12}", shard.name)


@pytest.mark.parametrize("column", ["image_uri", "image_etag"])
def test_a_changed_row_renames_its_own_shard_only(column: str) -> None:
    manifest = table_of(6)
    place = manifest.column_names.index(column)
    values = manifest[column].to_pylist()
    values[3] += "x"
    changed = manifest.set_column(place, column, pa.array(values))
    before = [part.name for part in shards(manifest, 2)]
    after = [part.name for part in shards(changed, 2)]
    assert [old == new for old, new in zip(before, after, strict=True)] == [True, False, True]


def test_the_same_rows_have_the_same_names_however_the_table_is_chunked() -> None:
    manifest = table_of(10)
    pieces = pa.concat_tables([manifest.slice(0, 3), manifest.slice(3)])
    assert [s.name for s in shards(pieces, 4)] == [s.name for s in shards(manifest, 4)]


def test_a_shard_needs_a_row() -> None:
    with pytest.raises(ValueError, match="rows_per_shard must be at least 1, got 0"):
        shards(table_of(1), 0)


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_a_manifest_longer_than_what_is_handled_at_once_is_complete(
    tmp_path: Path, suffix: str
) -> None:
    names = [f"d/{i:07d}.png" for i in range(ROWS_AT_ONCE + 10)]
    lines = {
        "csv": ["image_uri,category", *(f"{name},cup" for name in names)],
        "jsonl": [json.dumps({"image_uri": name, "category": "cup"}) for name in names],
    }
    manifest = read_manifest(write(tmp_path, f"m.{suffix}", "\n".join(lines[suffix])))
    assert manifest["image_uri"].to_pylist() == [f"{tmp_path}/{name}" for name in names]


NO_TEXT = {
    "list<": pa.array([["a.png"], ["b.png"]]),
    "large_list<": pa.array([["a.png"], None], pa.large_list(pa.string())),
    "struct<": pa.array([{"uri": "a.png"}, {"uri": "b.png"}]),
    "map<": pa.array([[("uri", "a.png")], []], pa.map_(pa.string(), pa.string())),
    "binary": pa.array([b"\xff\xd8", b"a.png"]),
    "fixed_size_binary": pa.array([b"\xff" * 16] * 2, pa.binary(16)),
}


@pytest.mark.parametrize("kind", NO_TEXT)
@pytest.mark.parametrize("column", ["image_uri", "category", "etag", "size"])
def test_a_column_that_holds_no_text_is_refused_with_its_type(
    tmp_path: Path, column: str, kind: str
) -> None:
    columns = {"image_uri": pa.array(["a.png", "b.png"]), "category": pa.array(["cup", "cup"])}
    pq.write_table(pa.table(columns | {column: NO_TEXT[kind]}), tmp_path / "m.parquet")
    message = rf"m\.parquet: the column `{column}` is of type {kind}.*plain text"
    with pytest.raises(ManifestError, match=message) as caught:
        read_manifest(str(tmp_path / "m.parquet"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", [["a.png"], {"uri": "a.png"}, [], {}])
@pytest.mark.parametrize("column", ["image_uri", "category", "etag", "size"])
def test_nested_values_of_json_lines_are_refused_with_an_example(
    tmp_path: Path, column: str, value: object
) -> None:
    rows = [{"image_uri": f"{n}.png", "category": "cup", "etag": "e", "size": n} for n in range(4)]
    content = "\n\n".join(
        json.dumps(row | {column: value} if row["size"] in (1, 3) else row) for row in rows
    )
    message = rf"2 of 4 rows have a nested \w+ in the column `{column}`, first row 2: [\[{{]"
    with pytest.raises(ManifestError, match=message):
        read_manifest(write(tmp_path, "m.jsonl", content))


@pytest.mark.parametrize(
    ("values", "text"),
    [
        (pa.array([7, 12]), ["12", "7"]),
        (pa.array([b"7", b"12"]), ["12", "7"]),  # as tools write text that do not annotate it
        (pa.array(["7", "12"], pa.large_string()), ["12", "7"]),
        (pa.array(["7", "12"]).dictionary_encode(), ["12", "7"]),
        (pa.array([None, None], pa.list_(pa.string())), ["", ""]),  # no value of any type
    ],
)
def test_numbers_and_text_of_any_width_are_text(
    tmp_path: Path, values: pa.Array, text: list[str]
) -> None:
    names = pa.array(["b.png", "a.png"])
    table = {"image_uri": names, "category": pa.array(["x", "x"]), "source": values}
    pq.write_table(pa.table(table), tmp_path / "m.parquet")
    found = read_columns(str(tmp_path / "m.parquet"), {"source": ("source",)})["source"]
    assert sorted(found.fill_null("").to_pylist()) == text


def test_a_nested_column_that_nobody_asks_for_is_no_fault(tmp_path: Path) -> None:
    columns = {"image_uri": ["a.png"], "category": ["cup"], "boxes": [[1, 2]]}
    pq.write_table(pa.table(columns), tmp_path / "m.parquet")
    assert read_manifest(str(tmp_path / "m.parquet")).num_rows == 1
    line = json.dumps({"image_uri": "a.png", "category": "cup", "boxes": [1, 2]})
    assert read_manifest(write(tmp_path, "m.jsonl", line)).num_rows == 1


def test_two_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    names = ["image_uri", "category", "category"]
    pq.write_table(pa.table([["a.png"], ["cup"], ["can"]], names), tmp_path / "m.parquet")
    with pytest.raises(ManifestError, match="two columns are named like 'category'"):
        read_manifest(str(tmp_path / "m.parquet"))
