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
    all_seconds: list = field(default_factory=list)
    limit_fractions: list = field(default_factory=list)

    @property
    def seconds(self):
        return statistics.median(self.all_seconds)

    @property
    def limit_fraction(self):
        return statistics.median(self.limit_fractions)

    @property
    def limit_seconds(self):
        return self.seconds * self.limit_fraction


def _result(parts):
    kind, model, form, ctx, threads, state = parts
    return Result(kind, model, form, int(ctx.removeprefix("ctx:")), int(threads.removeprefix("threads:")), state)


def read(path):
    """Returns {label: Result} of a JSON file."""
    try:
        with open(path, encoding="utf-8") as file:
            rows = json.load(file)["benchmarks"]
        results = {}
        for row in rows:
            if row["run_type"] != "iteration":
                continue
            # decode/<model>/<format>/ctx:<n>/threads:<n>/<cold|hot>, and what Google Benchmark appends
            parts = row["name"].split("/")[:6]
            result = results.setdefault("/".join(parts), _result(parts))
            result.all_seconds.append(row["median_seconds"])
            result.limit_fractions.append(row["limit_fraction"])
        return results
    except (OSError, ValueError, KeyError, TypeError) as error:
        sys.exit(f"{path}: not a JSON file that kvlane-bench wrote: {error!r}")
