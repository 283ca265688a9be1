#!/usr/bin/env python3
"""Draws a JSON file of kvlane-bench: for every model, time over context by format with the measured limit, as one picture,
and a table in Markdown."""

import argparse
import pathlib
import sys

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as pyplot  # noqa: E402

import results  # noqa: E402


def draw(rows, models, threads, path):
    columns = min(4, len(models))
    lines = -(-len(models) // columns)
    figure, axes = pyplot.subplots(lines, columns, figsize=(3.6 * columns, 3.2 * lines), squeeze=False, sharex=True)
    for axis in axes.flat[len(models):]:
        axis.set_visible(False)
    for axis, model in zip(axes.flat, models):
        for color, form in enumerate(sorted({row.format for row in rows if row.model == model})):
            line = sorted((row for row in rows if row.model == model and row.format == form), key=lambda row: row.ctx)
            ctx = [row.ctx for row in line]
            axis.plot(ctx, [row.seconds * 1e6 for row in line], marker="o", color=f"C{color}", label=form)
            axis.plot(ctx, [row.limit_seconds * 1e6 for row in line], linestyle=":", color=f"C{color}")
        axis.set_title(model)
        axis.set_xscale("log", base=2)
        axis.set_yscale("log")
        axis.set_xlabel("context, tokens")
        axis.set_ylabel("µs a layer and token")
        axis.grid(True, which="major", alpha=0.3)
    axes.flat[0].legend(title=f"{threads} thread(s)\ndotted: limit")
    figure.tight_layout()
    figure.savefig(path, dpi=80, metadata={"Software": None})


def table(rows, models, ctx):
    forms = sorted({row.format for row in rows})
    yield f"| limit_fraction, ctx {ctx} | " + " | ".join(forms) + " |"
    yield "| --- |" + " ---: |" * len(forms)
    for model in models:
        found = {row.format: row for row in rows if row.model == model and row.ctx == ctx}
        cells = [f"{found[form].limit_fraction:.2f}" if form in found else "" for form in forms]
        yield f"| {model} | " + " | ".join(cells) + " |"


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", help="what kvlane-bench wrote with --benchmark_out")
    parser.add_argument("--out", default="build/report", help="folder of the picture and the table (default build/report)")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--state", choices=("cold", "hot"), default="cold")
    arguments = parser.parse_args()
    everything = results.read(arguments.results)
    rows = [
        row
        for row in everything.values()
        if row.kind == "decode" and row.threads == arguments.threads and row.state == arguments.state
    ]
    if not rows:
        sys.exit(f"{arguments.results}: no decode row with --threads {arguments.threads} and --state {arguments.state}")
    models = list(dict.fromkeys(row.model for row in rows))
    out = pathlib.Path(arguments.out)
    out.mkdir(parents=True, exist_ok=True)
    name = f"decode-{arguments.state}-threads-{arguments.threads}"
    draw(rows, models, arguments.threads, out / f"{name}.png")
    contexts = sorted({row.ctx for row in rows})
    text = "\n\n".join("\n".join(table(rows, models, ctx)) for ctx in contexts)
    (out / f"{name}.md").write_text(text + "\n", encoding="utf-8")
    print(text)
    print(f"\n{out / name}.png and .md written")


if __name__ == "__main__":
    main()
