"""Data sets that are a list of images: Parquet, CSV, JSON Lines, Lookout for Vision."""

import csv
import json
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from layout_rows import seen

from model.errors import CategoryFault
from pipeline.datasets.image_lists import ManifestError
from pipeline.datasets.layouts import LayoutError, Sample, read_layout

MANIFEST_ROWS = [
    {"image_uri": "a.png", "split": "train", "label": "good", "mask_uri": None},
    {"image_uri": "b.png", "split": "validation", "label": "OK", "mask_uri": None},
    {"image_uri": "c.png", "split": "test", "label": "normal", "mask_uri": None},
    {"image_uri": "d.png", "split": "test", "label": "scratch", "mask_uri": "masks/d.png"},
    {"image_uri": "e.png", "split": "train", "label": "dent", "mask_uri": None},
]
FORMS = ["parquet", "pq", "csv", "jsonl", "json", "ndjson", "manifest"]
MANIFEST_SEEN = [
    ("a.png", "train", "good", ()),
    ("b.png", "train", "good", ()),
    ("c.png", "test", "good", ()),
    ("d.png", "test", "scratch", ("masks/d.png",)),
    ("e.png", "test", "dent", ()),  # a defect never trains
]


@pytest.mark.parametrize("form", [*FORMS, *map(str.upper, FORMS)])
def test_a_manifest_in_every_format(tmp_path: Path, form: str) -> None:
    path = tmp_path / f"list.{form}"
    if form.lower() in ("parquet", "pq"):
        pq.write_table(pa.Table.from_pylist(MANIFEST_ROWS), path)
    elif form.lower() == "csv":
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(MANIFEST_ROWS[0]))
            writer.writeheader()
            writer.writerows(MANIFEST_ROWS)
    else:
        path.write_text("\n".join(json.dumps(row) for row in MANIFEST_ROWS))
    assert seen("manifest", str(path)) == MANIFEST_SEEN


def manifest(folder: Path, rows: list[dict[str, object]]) -> str:
    path = folder / "list.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return str(path)


def test_a_manifest_of_image_names_alone_is_all_good(tmp_path: Path) -> None:
    uri = manifest(tmp_path, [{"image_uri": f"{i}.png"} for i in range(5)])
    assert seen("manifest", uri) == [(f"{i}.png", "train", "good", ()) for i in range(5)]


def test_a_manifest_with_defects_but_no_split_keeps_good_images_for_the_test(
    tmp_path: Path,
) -> None:
    rows: list[dict[str, object]] = [
        {"image_uri": f"{i:03d}.png", "defect": "good"} for i in range(200)
    ]
    uri = manifest(tmp_path, [*rows, {"image_uri": "x.png", "defect": "crack"}])
    samples = read_layout("manifest", uri).samples
    held_back = sum(sample.is_good and sample.split == "test" for sample in samples)
    assert 35 <= held_back <= 85  # 200 draws at 0.3: mean 60, four standard deviations 26
    assert samples[-1].defect == "crack"
    assert samples[-1].split == "test"


def test_the_json_lines_of_lookout_for_vision(tmp_path: Path) -> None:
    def line(name: str, label: int, **more: object) -> dict[str, object]:
        word = "anomaly" if label else "normal"
        kind = "groundtruth/image-classification"
        metadata = {"confidence": 1, "class-name": word, "human-annotated": "yes", "type": kind}
        return {
            "source-ref": f"s3://factory/{name}",
            "anomaly-label": label,
            "anomaly-label-metadata": metadata,
            **more,
        }

    colours = {"0": {"class-name": "BACKGROUND", "hex-color": "#ffffff", "confidence": 0.0}}
    mask = {
        "anomaly-mask-ref": "s3://factory/masks/2.png",
        "anomaly-mask-ref-metadata": {"internal-color-map": colours},
    }
    rows = [line(f"{i}.png", 0) for i in range(10, 40)] + [line("2.png", 1, **mask)]
    path = tmp_path / "train.manifest"
    path.write_text("\n".join(json.dumps(row) for row in rows))
    samples = read_layout("manifest", str(path)).samples
    assert samples[10] == Sample(
        "s3://factory/2.png", "test", "anomaly", ("s3://factory/masks/2.png",)
    )
    assert sum(sample.is_good for sample in samples) == 30
    assert {sample.split for sample in samples if sample.is_good} == {"train", "test"}


def test_the_class_name_of_another_labelling_job_counts_too(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [
        {"source-ref": "a.png", "my-job": 1, "my-job-metadata": {"class-name": "normal"}},
        {"source-ref": "b.png", "my-job": 0, "my-job-metadata": {"class-name": "dent"}},
        *({"source-ref": f"{i}.png", "my-job-metadata": {"class-name": "OK"}} for i in range(9)),
    ]
    assert [row for row in seen("manifest", manifest(tmp_path, rows)) if row[2] != "good"] == [
        ("b.png", "test", "dent", ())
    ]


@pytest.mark.parametrize(
    ("row", "error", "message"),
    [
        ({"image_uri": "../up.png"}, ManifestError, "leads out of the manifest's folder"),
        ({"image_uri": "a.png"}, ManifestError, r"more than once.*a\.png"),
        ({"image_uri": None}, ManifestError, "1 of 2 rows have no image_uri"),
        ({"image_uri": "b.png", "split": "dev"}, LayoutError, r"b\.png: split 'dev' is unknown"),
    ],
)
def test_a_manifest_that_cannot_be_meant_is_refused(
    tmp_path: Path, row: dict[str, object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        read_layout("manifest", manifest(tmp_path, [{"image_uri": "a.png"}, row]))


def csv_of(folder: Path, text: str) -> str:
    (folder / "list.csv").write_text(text, encoding="utf-8")
    return str(folder / "list.csv")


@pytest.mark.parametrize(
    "header",
    [
        *("image_uri,label", "image_uri, label", " Image_URI ,LABEL ", "\ufeffimage_uri,label"),
        *("image-uri,Label", "source-ref,class_name", "IMAGE URI,anomaly label"),
    ],
)
def test_headers_count_in_any_case_and_with_blanks(tmp_path: Path, header: str) -> None:
    uri = csv_of(tmp_path, f"{header}\na.png,good\nb.png, Broken \nc.png,OK\n")
    found = {(name, defect) for name, _, defect, _ in seen("manifest", uri)}
    assert found == {("a.png", "good"), ("b.png", "broken"), ("c.png", "good")}


@pytest.mark.parametrize(
    ("header", "meant"),
    [
        ("image_uri,lable", "label"),
        ("image_uri,labels", "label"),
        ("image_url,label", "image_uri"),
        ("image_uri,defects", "defect"),
        ("image_uri,label,splitt", "split"),
        ("image_uri,label,mask_url", "mask_uri"),
    ],
)
def test_a_header_that_is_nearly_right_is_refused(tmp_path: Path, header: str, meant: str) -> None:
    uri = csv_of(tmp_path, f"{header}\n" + ",".join(["a.png"] * (header.count(",") + 1)))
    with pytest.raises(ManifestError, match=f"to mean `{meant}`"):
        read_layout("manifest", uri)


def test_blanks_around_values_of_csv_do_not_count(tmp_path: Path) -> None:
    uri = csv_of(tmp_path, "label, image_uri, mask_uri\nOK, a b.png,\ncrack, c.png, m/c.png\n")
    assert seen("manifest", uri) == [
        ("a b.png", "train", "good", ()),
        ("c.png", "test", "crack", ("m/c.png",)),
    ]


def test_two_keys_alike_are_refused(tmp_path: Path) -> None:
    rows = [{"image_uri": "a.png", "label": "good"}, {"image_uri": "b", "label": "x", "Label": "y"}]
    with pytest.raises(ManifestError, match="line 2: two keys are named alike"):
        read_layout("manifest", manifest(tmp_path, rows))


def test_two_headers_alike_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="two columns are named like 'label'"):
        read_layout("manifest", csv_of(tmp_path, "image_uri,label,Label\na.png,good,bad\n"))


def test_defects_and_unused_columns_are_named(tmp_path: Path) -> None:
    rows = [f"{i}.png,good,x,1" for i in range(20)]
    rows += ["x.png,crack,x,1", "y.png,dent,x,1", "z.png,dent,x,1"]
    uri = csv_of(tmp_path, "\n".join(["image_uri,defect,label,shift", *rows]))
    assert read_layout("manifest", uri).findings == (
        "defects: 1 crack, 2 dent",
        "columns that are not used: label, shift",
    )


@pytest.mark.parametrize(
    ("label", "what"),
    [("", "no"), ("   ", "no"), ('"[""crack""]"', "a nested"), ('"{""a"": 1}"', "a nested")],
)
def test_rows_without_a_plain_label_refuse_the_category(
    tmp_path: Path, label: str, what: str
) -> None:
    text = f"image_uri,label\na.png,good\nb.png,{label}\nc.png,{label}\n"
    message = rf"2 of 3 rows have {what} label in the column `label`, first row 2 \(.*b\.png: "
    with pytest.raises(LayoutError, match=message):
        read_layout("manifest", csv_of(tmp_path, text))


@pytest.mark.parametrize("label", [None, "", ["crack"], {"class": "crack"}, [{"rect": ["crack"]}]])
def test_json_lines_without_a_plain_label_refuse_the_category(
    tmp_path: Path, label: object
) -> None:
    rows = [{"image_uri": "a.png", "label": "good"}, {"image_uri": "b.png", "label": label}]
    with pytest.raises(CategoryFault, match=r"1 of 2 rows have (no|a nested) label"):
        read_layout("manifest", manifest(tmp_path, rows))


def test_a_label_that_is_nearly_good_is_refused(tmp_path: Path) -> None:
    text = "image_uri,label\na.png,good\nb.png,goood\n"
    message = r"1 of 2 rows .* first row 2 \(.*b\.png: 'goood'\); is it to mean `good`\?"
    with pytest.raises(LayoutError, match=message):
        read_layout("manifest", csv_of(tmp_path, text))


@pytest.mark.parametrize("column", ["image_uri", "label", "split", "mask_uri"])
def test_a_column_of_lists_refuses_the_category(tmp_path: Path, column: str) -> None:
    columns = {"image_uri": ["a.png", "b.png"]} | {column: [["a.png"], ["b.png"]]}
    pq.write_table(pa.table(columns), tmp_path / "list.parquet")
    with pytest.raises(CategoryFault, match=rf"list\.parquet: the column `{column}` is of type li"):
        read_layout("manifest", str(tmp_path / "list.parquet"))


@pytest.mark.parametrize("label", ["None", "nan", "NULL", "n/a", "?", "unlabeled"])
def test_a_word_for_a_missing_value_is_no_label(tmp_path: Path, label: str) -> None:
    text = f"image_uri,label\na.png,good\nb.png,{label}\nc.png,{label}\n"
    message = rf"2 of 3 rows have a word for a missing value .* row 2 .*'{re.escape(label)}'"
    with pytest.raises(LayoutError, match=message):
        read_layout("manifest", csv_of(tmp_path, text))


@pytest.mark.parametrize(
    "column",
    ["class", "Class ID", "verdict", "is_anomaly", "defect_type", "label_name", "bounding-box"],
)
def test_labels_under_another_name_are_not_passed_over(tmp_path: Path, column: str) -> None:
    uri = csv_of(tmp_path, f"image_uri,{column}\na.png,good\nb.png,broken\n")
    with pytest.raises(CategoryFault, match=rf"is the column '{column}' to mean `label`"):
        read_layout("manifest", uri)
    (tmp_path / "list.csv").write_text(f"image_uri,label,{column}\na.png,good,x\n")
    findings = read_layout("manifest", uri).findings
    assert findings == (f"columns that are not used: {column}",)


@pytest.mark.parametrize(
    ("column", "values"),
    [
        *(("status", "ok broken"), ("state", "OK dent"), ("outcome", "passed failed")),
        *(("decision", "accept reject"), ("grade", "good B"), ("condition", "normal worn")),
        *(
            ("station 4", "i.O. n.i.O."),
            ("remark", "NG NG"),
            ("y", "0 1"),
            ("is_bad", "false true"),
        ),
        *(("faulty", "0 1"), ("nok", "1 1"), ("reject", "no yes"), ("Rejected", "0.0 1.0")),
    ],
)
def test_a_column_that_holds_labels_is_not_passed_over(
    tmp_path: Path, column: str, values: str
) -> None:
    first, second = values.split()
    uri = csv_of(tmp_path, f"image_uri,note,{column}\na.png,x,{first}\nb.png,x,{second}\n")
    with pytest.raises(CategoryFault, match=rf"is the column '{column}' to mean `label`.* all 2"):
        read_layout("manifest", uri)
    (tmp_path / "list.csv").write_text(f"image_uri,label,{column}\na.png,good,{first}\n")
    assert read_layout("manifest", uri).findings == (f"columns that are not used: {column}",)


@pytest.mark.parametrize(
    ("column", "values"),
    [
        *(
            ("status", "ok OK"),
            ("shift", "0 1"),
            ("is_bad", "0 0"),
            ("nok", "No no"),
            ("camera", "left right"),
        ),
        *(("flash", "false true"), ("note", " x"), ("day", "2026-05-01 2026-05-02")),
    ],
)
def test_a_column_without_labels_leaves_all_images_good(
    tmp_path: Path, column: str, values: str
) -> None:
    first, second = values.split(" ")
    uri = csv_of(tmp_path, f"image_uri,{column}\na.png,{first}\nb.png,{second}\n")
    assert read_layout("manifest", uri).findings == (f"columns that are not used: {column}",)


def test_labels_are_found_beside_columns_that_hold_no_text(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [
        {"image_uri": "a.png", "box": [1, 2], "status": "ok"},
        {"image_uri": "b.png", "box": [3, 4], "status": "dent"},
    ]
    with pytest.raises(LayoutError, match="is the column 'status' to mean `label`"):
        read_layout("manifest", manifest(tmp_path, rows))


@pytest.mark.parametrize("column", ["subset", "set", "partition", "fold"])
@pytest.mark.parametrize("values", [("train", "test"), ("Training", "validation"), ("test", "")])
def test_a_column_that_holds_splits_is_not_passed_over(
    tmp_path: Path, column: str, values: tuple[str, str]
) -> None:
    text = f"image_uri,label,{column}\na.png,good,{values[0]}\nb.png,good,{values[1]}\n"
    uri = csv_of(tmp_path, text)
    with pytest.raises(LayoutError, match=rf"is the column '{column}' to mean `split`"):
        read_layout("manifest", uri)
    (tmp_path / "list.csv").write_text(text.replace("label", "split").replace("good", "train"))
    assert read_layout("manifest", uri).findings == (f"columns that are not used: {column}",)


@pytest.mark.parametrize("header", ["image,label", "image_uri;label", "file,category"])
def test_a_list_without_a_column_of_images_says_what_it_has(tmp_path: Path, header: str) -> None:
    uri = csv_of(tmp_path, f"{header}\n{header}\n")
    with pytest.raises(LayoutError, match="has no column `image_uri`; it has " + header[:4]):
        read_layout("manifest", uri)


def test_masks_of_good_images_are_named(tmp_path: Path) -> None:
    text = "image_uri,label,mask_uri\na.png,good,m.png\nb.png,good,\n"
    assert read_layout("manifest", csv_of(tmp_path, text)).findings == (
        f"masks of good images, not used: 1, first of {tmp_path}/a.png",
    )


@pytest.mark.parametrize("label", ["", " ", "nan", "nrmal"])
def test_the_split_file_of_visa_has_plain_labels_too(tmp_path: Path, label: str) -> None:
    (tmp_path / "split_csv").mkdir()
    text = f"object,split,label,image,mask\ncup,train,normal,a.JPG,\ncup,test,{label},b.JPG,\n"
    (tmp_path / "split_csv/1cls.csv").write_text(text)
    with pytest.raises(LayoutError, match=r"1cls\.csv: 1 of 2 rows have .*first row 2 \(b\.JPG"):
        read_layout("visa", str(tmp_path / "cup"))
