"""A stage of a study: pieces of work that do not wait for each other, done in slots."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from jobs.cluster.join import resources_for
from jobs.cluster.slots import Slots
from jobs.cluster.work_queue import Ended, Job
from jobs.study.tasks import run
from jobs.terminal.progress import Display
from pipeline.study.feature_view import FeatureView

PLENTY = 10_000  # pieces to share a cluster out among: each gets the least there is

Work = Mapping[str, Callable[..., Any]]  # functions with their arguments, by the piece's name


def train_or_score(stage: str, work: Work) -> Iterator[Ended]:
    """Yield what becomes of every piece, as they end; its function is called as it is."""
    jobs = [Job(name=name) for name in work]
    yield from _in_slots(stage, jobs, {"work": dict(work)}, PLENTY)


def embed(stage: str, work: Work, views: Mapping[str, FeatureView]) -> Iterator[Ended]:
    """Yield what becomes of every piece, as they end.

    Its function is called with what gives its backbone; the next one of the same backbone goes on
    with it.

    Args:
        stage: its name, to be shown.
        work: by the names of the views that are to be embedded.
        views: these and perhaps others.
    """
    groups = {name: repr(views[name].category.backbone_config) for name in work}
    jobs = [Job(name=name, group=group) for name, group in groups.items()]
    yield from _in_slots(stage, jobs, {"work": dict(work), "embeds": True}, len(work))


def _in_slots(
    stage: str, jobs: list[Job], config: dict[str, Any], num_shares: int
) -> Iterator[Ended]:
    slots = Slots(loop=run, config=config, resources=resources_for(num_shares))
    display = Display(f"tuning, {stage}", num_jobs=len(jobs))
    with display.shown():
        yield from slots.work_through(jobs, display.update)
