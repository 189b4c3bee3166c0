"""From catalogue to report: everything that a notebook can use without a cluster."""
