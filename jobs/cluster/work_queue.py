"""Work that several slots share: what waits, who has what, and what became of it."""

import pickle
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from typing import Any

from jobs.cluster.progress_board import JobProgress, ProgressBoard

MOST_DEATHS = 2  # of the worker that has a job, with no checkpoint between them: the job kills it
MOST_LOST_NODES = 4  # of a job: any node may be lost, but hardly so many


@dataclass(frozen=True, kw_only=True)
class Job:
    """One piece of work."""

    name: str
    size: int = 1  # how much it is, compared with the others
    group: str = ""  # what a worker keeps loaded from one job of the group to the next
    payload: Any = None  # what the worker is sent: plain values, which need no import here
    is_last_try: bool = False  # a worker has died of it, and another death ends it


@dataclass(frozen=True, kw_only=True)
class Ended:
    """What became of a job."""

    name: str
    error: str | None = None
    value: bytes | None = None  # what it came to, which the queue hands on unread

    @property
    def result(self) -> Any:
        """What the job came to; None where it failed."""
        return None if self.value is None else pickle.loads(self.value)  # noqa: S301  our worker's


@dataclass(frozen=True, kw_only=True)
class Holder:
    """Where a job is being done."""

    job: str
    node: str


@dataclass(frozen=True, kw_only=True)
class News:
    """What has happened since so many jobs had ended."""

    ended: list[Ended]
    num_waiting: int
    held: dict[str, Holder]  # by slot: what is being done
    progress: JobProgress  # of every job that has told of itself
    away: list[str]  # why workers have left their slots, since the beginning

    @property
    def is_over(self) -> bool:
        """Whether nothing is left to do."""
        return not (self.num_waiting or self.held)


@dataclass(frozen=True, kw_only=True)
class _Held:
    job: Job
    node: str
    worker: str


class WorkQueue(ProgressBoard):
    """Gives jobs to slots, the largest first; a slot does one at a time.

    A slot is one run, and its name outlives its worker: another worker that asks for work
    while the slot still has some was started anew, and is given the same job again. Every job ends
    once, whoever says so. An answer may get lost on its way: whatever is asked can be asked again.
    """

    def __init__(self, jobs: Iterable[Job]) -> None:
        super().__init__()
        self._waiting = sorted(jobs, key=lambda job: -job.size)
        self._held: dict[str, _Held] = {}
        self._groups: dict[str, str] = {}  # by slot: what it has loaded
        self._ahead: dict[str, str] = {}  # by slot: the job that it makes ready
        self._deaths: Counter[str] = Counter()
        self._reasons: dict[str, str] = {}
        self._lost_nodes: Counter[str] = Counter()
        self._ended: list[Ended] = []
        self._num_known = 0  # of what has ended: the command has heard of it
        self._over: set[str] = set()
        self._away: list[str] = []

    def take(self, slot: str, worker: str, node: str) -> Job | None:
        """Return what a worker of the slot does next; None: nothing waits any more.

        Args:
            slot: the run.
            worker: the process, by a name that no other ever has.
            node: where it is.
        """
        if slot in self._held and self._held[slot].worker != worker:
            self._count_death(slot)
        job = self._held[slot].job if slot in self._held else self._next(slot)
        if job is None:
            return None
        self._held[slot] = _Held(job=job, node=node, worker=worker)
        self._groups[slot] = job.group
        return replace(job, is_last_try=self._deaths[job.name] == MOST_DEATHS - 1)

    def ahead(self, slot: str) -> Job | None:
        """Return what the slot may make ready beside its job: most likely its next one.

        Another slot that has nothing else to do is given it all the same. None: nothing of what
        the slot has loaded waits, or its job has lost a worker: what was beside it may have done
        that, and would again.
        """
        if slot not in self._held or self._deaths[self._held[slot].job.name]:
            return None
        theirs = {name for other, name in self._ahead.items() if other != slot}
        loaded = self._groups[slot]
        free = (job for job in self._waiting if job.group == loaded and job.name not in theirs)
        job = next(free, None)
        if job is not None:
            self._ahead[slot] = job.name
        return job

    def keep(self, slot: str) -> None:
        """Note that a slot has stored a checkpoint: its job is going on."""
        if slot in self._held:
            self._deaths[self._held[slot].job.name] = 0

    def end(
        self, slot: str, name: str, error: str | None = None, value: bytes | None = None
    ) -> None:
        """Note that a slot is done with a job, well or not, and what it came to."""
        if slot in self._held and self._held[slot].job.name == name:
            del self._held[slot]
        if name not in self._over:
            self._over.add(name)
            self._ended.append(Ended(name=name, error=error, value=value))
            self._waiting = [job for job in self._waiting if job.name != name]

    def explain(self, slot: str, reason: str) -> None:
        """Note what the slot's worker is about to die of."""
        if slot in self._held:
            self._reasons[self._held[slot].job.name] = reason

    def lose_nodes(self, nodes: Collection[str]) -> None:
        """Note that nodes are gone, by identifier: others do what slots there have now."""
        for slot in [slot for slot, held in self._held.items() if held.node in nodes]:
            self.give_back(slot, "its node was lost")

    def give_back(self, slot: str, reason: str) -> None:
        """Note that a slot is away: another does what it has, before anything else.

        Args:
            slot: the run.
            reason: why it is away.
        """
        if slot not in self._held:
            return
        job = self._held[slot].job
        self._ahead.pop(slot, None)
        self._lose_node(slot, reason)
        if self._held.pop(slot, None) is not None and job.name not in self._over:
            self._waiting.insert(0, job)

    def leave(self, slot: str, reason: str) -> None:
        """Note that a slot's worker ends, as a service is away; its job waits behind all others."""
        if slot in self._held:
            self._waiting.append(self._held.pop(slot).job)
            self._ahead.pop(slot, None)
            self._away.append(reason)

    def stop(self) -> None:
        """Give out nothing any more."""
        self._waiting = []

    def news(self, num_known: int) -> News:
        """Return what has ended after the first ``num_known`` jobs, and what is left.

        What those came to is known too, and is kept no longer.
        """
        for place in range(self._num_known, num_known):
            self._ended[place] = replace(self._ended[place], value=None)
        self._num_known = max(num_known, self._num_known)
        return News(
            ended=self._ended[num_known:],
            num_waiting=len(self._waiting),
            held={
                slot: Holder(job=held.job.name, node=held.node) for slot, held in self._held.items()
            },
            progress=self.read(),
            away=self._away,
        )

    def _next(self, slot: str) -> Job | None:
        if not self._waiting:
            return None
        own, loaded = self._ahead.pop(slot, None), self._groups.get(slot)
        theirs = {*self._ahead.values()}

        def order(place: int) -> tuple[bool, bool, bool, int]:
            job = self._waiting[place]
            return job.name != own, job.name in theirs, job.group != loaded, place

        return self._waiting.pop(min(range(len(self._waiting)), key=order))

    def _count_death(self, slot: str) -> None:
        """Count that the worker with a slot's job is gone; at the last time the job ends.

        Wherever the next one is: of a node that is lost the queue has heard before this worker
        asks, see ``lose_nodes``.
        """
        name = self._held[slot].job.name
        self._deaths[name] += 1
        if self._deaths[name] >= MOST_DEATHS:
            reason = self._reasons.get(name, "it ended its worker's process")
            self.end(slot, name, f"{reason} ({MOST_DEATHS} times)")

    def _lose_node(self, slot: str, reason: str) -> None:
        name = self._held[slot].job.name
        self._lost_nodes[name] += 1
        if self._lost_nodes[name] >= MOST_LOST_NODES:
            self.end(slot, name, f"{reason} ({MOST_LOST_NODES} times)")
