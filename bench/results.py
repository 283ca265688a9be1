"""Reads what kvlane-bench writes with --benchmark_out=FILE (JSON)."""

import json
import statistics
import sys
from dataclasses import dataclass, field


@dataclass
class Result:
    """One label's repetitions."""

    kind: str
    model: str
    format: str
    ctx: int
    threads: int
    state: str
    seconds: list = field(default_factory=list)
    limit_fractions: list = field(default_factory=list)
    limit_seconds: list = field(default_factory=list)

    @property
    def limit_fraction(self):
        return statistics.median(self.limit_fractions)


def _parse(name):
    # decode/<model>/<format>/ctx:<n>/threads:<n>/<cold|hot>, and what Google Benchmark appends
    kind, model, form, ctx, threads, state = name.split("/")[:6]
    return kind, model, form, int(ctx.removeprefix("ctx:")), int(threads.removeprefix("threads:")), state


def read(path):
    """Returns {label: Result} of a JSON file, and its context."""
    try:
        with open(path, encoding="utf-8") as file:
            document = json.load(file)
        rows = [row for row in document["benchmarks"] if row["run_type"] == "iteration"]
        results = {}
        for row in rows:
            parts = _parse(row["name"])
            result = results.setdefault("/".join(row["name"].split("/")[:6]), Result(*parts))
            result.seconds.append(row["median_seconds"])
            result.limit_fractions.append(row["limit_fraction"])
            result.limit_seconds.append(row["median_seconds"] * row["limit_fraction"])
        return results, document["context"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        sys.exit(f"{path}: not a JSON file that kvlane-bench wrote: {error!r}")
