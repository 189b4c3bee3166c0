"""What a worker is given to score, and what it answers; light, for whoever only passes it on."""

from dataclasses import dataclass, replace

from pipeline.labels.audit import Draw
from pipeline.night.manifest import Shard


@dataclass(frozen=True, slots=True)
class Task:
    """One shard to score."""

    name: str  # of its results
    shard: Shard
    reuse: tuple[str, ...] = ()  # stored shards that may hold some of its rows, ready made
    audit: Draw | None = None  # whose images keep their pictures whatever their score

    def again(self) -> "Task":
        """Return what is left when its worker was lost: nothing, where it was stored already."""
        return replace(self, reuse=(self.name, *self.reuse))


@dataclass(frozen=True, slots=True)
class Written:
    """What became of one shard."""

    name: str
    statuses: dict[str, int]  # images by status
    num_flagged: int
    num_scored: int  # images; the rows of the others were there
