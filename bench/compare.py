#!/usr/bin/env python3
"""Compares two JSON files of kvlane-bench, label by label, and fails where the later one is slower beyond the noise.

A label's figure is its limit_fraction: time against what the machine could do in the same run, so that another day's
machine does not count. The noise is the spread of a label's repetitions in both files, and at least --noise; without
repetitions (--benchmark_repetitions=3) it is --noise alone.
"""

import argparse
import re
import sys

import results


def spread(fractions):
    return max(fractions) / min(fractions) - 1


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before")
    parser.add_argument("after", nargs="?", help="left out: print Google Benchmark's filter for the labels of BEFORE")
    parser.add_argument("--noise", type=float, default=0.05, help="a change that does not count (default 0.05)")
    arguments = parser.parse_args()
    before_run = results.read(arguments.before)
    if arguments.after is None:
        print("^(" + "|".join(re.escape(label) for label in before_run.results) + ")/")
        return 0
    after_run = results.read(arguments.after)
    isas = [run.context.get("kvlane_isa") for run in (before_run, after_run)]
    if isas[0] != isas[1]:
        sys.exit(f"{arguments.before} is of isa {isas[0]}, {arguments.after} of {isas[1]}; they must be of one")
    before, after = before_run.results, after_run.results
    labels = [label for label in before if label in after]
    if not labels:
        sys.exit(f"{arguments.before} and {arguments.after} have no label in common")
    slower = 0
    for label in labels:
        old, new = before[label], after[label]
        change = old.limit_fraction / new.limit_fraction - 1
        noise = max(arguments.noise, spread(old.limit_fractions), spread(new.limit_fractions))
        if abs(change) > noise:
            slower += change > 0
            word = "slower" if change > 0 else "faster"
            print(f"{word} {abs(change):6.1%} (noise {noise:.1%})  {label}")
    print(f"{len(labels)} labels compared, {slower} slower")
    for path, only in ((arguments.before, before.keys() - after.keys()), (arguments.after, after.keys() - before.keys())):
        if only:
            print(f"{len(only)} only in {path}")
    return 1 if slower else 0


if __name__ == "__main__":
    sys.exit(main())
