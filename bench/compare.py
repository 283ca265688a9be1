#!/usr/bin/env python3
"""Compares two JSON files of kvlane-bench, label by label, and fails where the later one is slower beyond the noise.

A label's figure is its limit_fraction: time against what the machine could do in the same run, so that another day's
machine does not count. The noise is the spread of a label's repetitions in both files, and at least --noise.
"""

import argparse
import sys

import results


def spread(fractions):
    return max(fractions) / min(fractions) - 1


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before")
    parser.add_argument("after")
    parser.add_argument("--noise", type=float, default=0.05, help="a change that does not count (default 0.05)")
    arguments = parser.parse_args()
    before = results.read(arguments.before).results
    after = results.read(arguments.after).results
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
