"""Reads what kvlane-bench writes with --benchmark_out=FILE (JSON)."""

import json
import re
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
    queries: int
    threads: int
    state: str
    all_bytes_per_second: list = field(default_factory=list)
    limit_fractions: list = field(default_factory=list)

    @property
    def bytes_per_second(self):
        return statistics.median(self.all_bytes_per_second)

    @property
    def limit_fraction(self):
        return statistics.median(self.limit_fractions)

    @property
    def limit_bytes_per_second(self):
        return self.bytes_per_second / self.limit_fraction


@dataclass
class Run:
    """A file: what it says of its machine and library, and its results by label."""

    context: dict
    results: dict


# <kind>/<model>/<format>/ctx:<n>[/queries:<n>]/threads:<n>/<cold|hot>, and what Google Benchmark appends
_LABEL = re.compile(r"([^/]+)/([^/]+)/([^/]+)/ctx:(\d+)(?:/queries:(\d+))?/threads:(\d+)/(cold|hot)")


def _result(label):
    kind, model, form, ctx, queries, threads, state = label.groups()
    return Result(kind, model, form, int(ctx), int(queries or 1), int(threads), state)


def read(path):
    """Returns the Run that a JSON file holds."""
    try:
        with open(path, encoding="utf-8") as file:
            run = json.load(file)
        results = {}
        for row in run["benchmarks"]:
            if row["run_type"] != "iteration":
                continue
            label = _LABEL.match(row["name"])
            if not label:
                raise ValueError(f"no label: {row['name']}")
            result = results.setdefault(label[0], _result(label))
            # An append's bytes are all that it reads and writes, the others' those of the keys and values that they read.
            counter = "bytes_per_second" if result.kind == "append" else "kv_bytes_per_second"
            result.all_bytes_per_second.append(row[counter])
            result.limit_fractions.append(row["limit_fraction"])
        return Run(run["context"], results)
    except (OSError, ValueError, KeyError, TypeError) as error:
        sys.exit(f"{path}: not a JSON file that kvlane-bench wrote: {error!r}")
