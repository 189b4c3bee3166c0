"""A night's rows as one CSV file, for a spreadsheet or a database.

One line per image after a line of column names, which are those of the result rows
(``RESULT_SCHEMA`` in ``results.py``), ordered by category and address within each shard. UTF-8,
commas, texts in double quotes, an empty cell where there is no value, true and false, times in
UTC. A name or an error text may begin as a formula does, and a spreadsheet would run it: such a
text has a single quote in front. Regions are JSON.
"""

import json
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

from pipeline import storage
from pipeline.night.folder import NightFolder
from pipeline.night.results import RESULT_SCHEMA, each_shard

FORMULA = r"^[=+\-@＝＋－＠\t\r\n]"  # as a spreadsheet begins one, in wide letters too


def write_csv(folder: NightFolder, uri: str) -> None:
    """Write the rows of a settled night, one shard in memory at a time; whole or not at all.

    Raises:
        ResultsError: a shard is damaged.
        StorageError: the file cannot be written.
    """
    with tempfile.TemporaryDirectory(prefix="nightshift-csv-") as scratch:
        path = Path(scratch, "rows.csv")
        with csv.CSVWriter(path, _flat(RESULT_SCHEMA.empty_table()).schema) as file:
            for rows in each_shard(folder):
                file.write_table(without_formulas(_flat(rows)))
        storage.write_file(uri, path)


def _flat(rows: pa.Table) -> pa.Table:
    """Write lists as JSON: a cell holds none."""
    column = rows.schema.get_field_index("regions")
    lists = rows["regions"].to_pylist()
    texts = [None if each is None else json.dumps(each) for each in lists]
    return rows.set_column(column, "regions", pa.array(texts, pa.string()))


def without_formulas(rows: pa.Table) -> pa.Table:
    """Put a single quote in front of texts that a spreadsheet would run."""
    for index, field in enumerate(rows.schema):
        if field.type == pa.string():
            texts = rows.column(index)
            quoted = pc.binary_join_element_wise("'", texts, "")
            is_formula = pc.match_substring_regex(texts, FORMULA)
            rows = rows.set_column(index, field, pc.if_else(is_formula, quoted, texts))
    return rows
