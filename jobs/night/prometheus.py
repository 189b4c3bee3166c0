"""What a scoring worker tells Prometheus, through Ray: images, flags, stages, queue.

Ray exports every name with the prefix ``ray_``, on the metrics port of each node.
"""

from ray.util.metrics import Counter, Gauge, Histogram

from pipeline.night.scoring.observer import Observer

STAGE_BOUNDARIES_S = [0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30]


class NightMetrics(Observer):
    """Counts in this process; Ray adds up what all of them say."""

    def __init__(self) -> None:
        self.images = Counter(
            "nightshift_images", "Images that have their row, by status.", tag_keys=("status",)
        )
        self.flagged = Counter("nightshift_flagged_images", "Images above their threshold.")
        self.stages = Histogram(
            "nightshift_stage_seconds",
            "Seconds an image (fetch, decode), a batch (score) or an object (write) took.",
            boundaries=STAGE_BOUNDARIES_S,
            tag_keys=("stage",),
        )
        self.queue = Gauge("nightshift_queue_images", "Decoded images that wait for the network.")

    def took(self, stage: str, seconds: float) -> None:
        """Note how long something took."""
        self.stages.observe(seconds, tags={"stage": stage})

    def waiting(self, num_images: int) -> None:
        """Note how many decoded images wait."""
        self.queue.set(num_images)

    def finished(self, status: str, num_images: int, num_flagged: int) -> None:
        """Count images that have their row."""
        self.images.inc(num_images, tags={"status": status})
        if num_flagged:
            self.flagged.inc(num_flagged)
