"""A study's folder: what it is, what each trial gave, what was trained again.

study/                 <out>/<name>
  identity.json        what makes it this study; another one under its name is refused
  features/<view>/     what trials read
  search/              the state of Ray Tune
  trials/<id>.json     one for each trial, rewritten at every rung
  repeats/<digest>.json
  study.json, study.html, catalogue.yaml
"""

import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from hashlib import sha256
from typing import Any

from model.errors import NightshiftError
from pipeline import storage
from pipeline.study.run import RUNGS, Repeat
from pipeline.study.sets import Passes
from pipeline.study.settings import Study, differences

IDENTITY, RESULT, PAGE, FRAGMENT = "identity.json", "study.json", "study.html", "catalogue.yaml"
MOST_DIFFERENCES = 12


class StudyError(NightshiftError):
    """A study that cannot be begun, gone on with, or answered."""


class TrialStatus(StrEnum):
    """How a trial stands."""

    RUNNING = "running"
    COMPLETE = "complete"
    STOPPED = "stopped"  # early
    FAILED = "failed"


@dataclass(kw_only=True)
class TrialRecord:
    """What is known of one trial."""

    trial: str
    configuration: dict[str, Any]
    status: TrialStatus = TrialStatus.RUNNING
    rungs: list[dict[str, Any]] = field(default_factory=list)  # as ``StudyTrial.advance`` gave them
    error: str | None = None
    seconds: float = 0.0

    @property
    def objective(self) -> float | None:
        """The mean over categories at the last rung reached."""
        return self.rungs[-1]["objective"] if self.rungs else None

    @property
    def is_whole(self) -> bool:
        """Whether every pass was trained."""
        return len(self.rungs) == len(RUNGS)

    def of(self, category: str, name: str = "objective") -> float | None:
        """Return a metric of one category at the last rung reached."""
        if not self.rungs:
            return None
        found: float | None = self.rungs[-1]["categories"].get(category, {}).get(name)
        return found


@dataclass(frozen=True)
class StudyFolder:
    """Where everything of a study lies."""

    uri: str  # local folder or S3 prefix

    def join(self, *parts: str) -> str:
        """Return an address below the folder."""
        return storage.join(self.uri, *parts)

    def begin(self, study: Study, *, resume: bool) -> None:
        """Claim the folder for a study.

        Raises:
            StudyError: another study has this name, or this one is there and not to be resumed.
        """
        identity = self.join(IDENTITY)
        now = json.loads(json.dumps(study.identity))
        if not storage.exists(identity):
            if resume:
                raise StudyError(
                    f"there is no study {study.name} under {self.uri} to resume; "
                    f"leave --resume out to begin it, or correct --out"
                )
            storage.write_bytes(identity, json.dumps(now, indent=1, sort_keys=True).encode())
            return
        found = differences(json.loads(storage.read_bytes(identity)), now)
        if found:
            more = f"; and {len(found) - MOST_DIFFERENCES} more" * (len(found) > MOST_DIFFERENCES)
            raise StudyError(
                f"a study {study.name} exists under {self.uri} that is not this one: "
                f"{'; '.join(found[:MOST_DIFFERENCES])}{more}. "
                f"Give this one another name, or take the old settings back and resume"
            )
        if not resume:
            raise StudyError(
                f"a study {study.name} with this very space exists under {self.uri}; "
                f"--resume goes on with it, another name begins a new one"
            )

    def write_trial(self, record: TrialRecord) -> None:
        """Note how far a trial is."""
        self._write("trials", record.trial, asdict(record))

    def trials(self) -> dict[str, TrialRecord]:
        """Return all trials that were noted, by id."""
        found = [
            TrialRecord(**{**values, "status": TrialStatus(values["status"])})
            for values in self._read("trials")
        ]
        return {record.trial: record for record in found}

    def write_repeat(self, repeat: Repeat) -> None:
        """Keep what a finalist's training gave."""
        name = repeat_name(repeat.configuration, repeat.category, repeat.repeat)
        self._write("repeats", name, asdict(repeat))

    def repeats(self) -> dict[str, Repeat]:
        """Return what was trained again, by ``repeat_name``."""
        found = [Repeat(**values) for values in self._read("repeats")]
        return {repeat_name(r.configuration, r.category, r.repeat): r for r in found}

    def note(self, name: str, values: Mapping[str, Any]) -> None:
        """Keep a few facts that a resumed study needs."""
        self._write("notes", name, values)

    def noted(self, name: str) -> dict[str, Any]:
        """Return what ``note`` kept; nothing when there is none."""
        content = storage.read_if_there(self.join("notes", f"{name}.json"))
        values: dict[str, Any] = json.loads(content) if content else {}
        return values

    def _write(self, kind: str, name: str, values: Mapping[str, Any]) -> None:
        storage.write_bytes(self.join(kind, f"{name}.json"), json.dumps(values).encode())

    def _read(self, kind: str) -> list[dict[str, Any]]:
        uris = sorted(item.uri for item in storage.objects_below(self.join(kind)))
        return [json.loads(storage.read_bytes(uri)) for uri in uris if uri.endswith(".json")]


@dataclass(frozen=True)
class Ledger:
    """What a study has cost so far, over all the times it was begun or resumed."""

    folder: StudyFolder

    def embedded(self, view: str, took: Passes) -> None:
        """Add the backbone passes over a view's images."""
        if took.images:
            values = self.to_json()
            values["images"][view] = took.images
            values["backbone_passes"][view] = values["backbone_passes"].get(view, 0) + took.passes
            values["from_store"][view] = took.images - took.passes
            self.folder.note("ledger", values)

    def took(self, stage: str, started: float) -> None:
        """Add the time since ``started``, of the monotonic clock."""
        values = self.to_json()
        values["seconds"][stage] = values["seconds"].get(stage, 0.0) + time.monotonic() - started
        self.folder.note("ledger", values)

    def features(self) -> dict[str, int]:
        """Return how many images were embedded, and how many of them came from a store."""
        values = self.to_json()
        return {name: sum(values[name].values()) for name in ("images", "from_store")}

    def to_json(self) -> dict[str, Any]:
        """Return images and passes by view, and seconds by stage."""
        empty: dict[str, Any] = {
            name: {} for name in ("images", "backbone_passes", "from_store", "seconds")
        }
        return empty | self.folder.noted("ledger")


def repeat_name(configuration: Mapping[str, Any], category: str, repeat: int) -> str:
    """Name one training of a finalist."""
    text = json.dumps([dict(configuration), category, repeat], sort_keys=True)
    return f"{category}-{repeat}-{sha256(text.encode()).hexdigest()[:12]}"
