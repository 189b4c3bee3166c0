"""Labels as tests bring them in: a file, and what the command line would say of it."""

import datetime as dt
from typing import Any

from pipeline.labels.foreign import Source
from pipeline.night.feedback.label_import import Imported, import_labels

READ_AT = dt.datetime(2026, 3, 20, 12, 0, tzinfo=dt.UTC)


def import_file(file: str, out: str, **source: Any) -> list[Imported]:
    """Import a file of labels; what each night's came to."""
    return import_labels(Source(**{"uri": file, "read_at": READ_AT, **source}), out).nights
