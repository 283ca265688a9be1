#!/usr/bin/env python3
"""Draws a JSON file of kvlane-bench: for every model, how fast keys and values are read over the context, by format, below the
limit measured in the same run. Writes one picture (SVG) and a page with the numbers (Markdown)."""

import argparse
import pathlib
import sys

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as pyplot  # noqa: E402

import results  # noqa: E402

# Text stays text, and the same numbers give the same file.
matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "kvlane", "font.size": 8})


def distinct(values):
    return list(dict.fromkeys(values))


def draw_panel(axis, rows, model, forms):
    for color, form in enumerate(forms):
        line = sorted((row for row in rows if (row.model, row.format) == (model, form)), key=lambda row: row.ctx)
        ctx = [row.ctx for row in line]
        style = {"color": f"C{color}", "gid": f"{model}.{form}"}
        axis.plot(ctx, [row.bytes_per_second / 1e9 for row in line], marker="o", markersize=3, label=form, **style)
        style["gid"] += ".limit"
        axis.plot(ctx, [row.limit_bytes_per_second / 1e9 for row in line], ":", label=f"limit of {form}", **style)
    axis.set_title(model)
    axis.set_xscale("log", base=2)
    axis.set_xticks(distinct(row.ctx for row in rows), distinct(row.ctx for row in rows))
    axis.minorticks_off()
    axis.grid(alpha=0.3)


def draw(rows, models, forms, path):
    columns = min(4, len(models))
    lines = -(-len(models) // columns)
    size = (2.4 * columns, 2.1 * lines + 0.6)
    figure, axes = pyplot.subplots(lines, columns, figsize=size, squeeze=False, sharex=True, sharey=True)
    for axis in axes.flat[len(models):]:
        axis.set_visible(False)
    for axis, model in zip(axes.flat, models):
        draw_panel(axis, rows, model, forms)
    axes[0][0].set_ylim(bottom=0)  # and so all that share it
    figure.supxlabel("context, tokens", y=0.42 / size[1])
    figure.supylabel("GB/s of keys and values")
    figure.tight_layout(rect=(0, 0.42 / size[1], 1, 1))
    figure.legend(*axes[0][0].get_legend_handles_labels(), loc="lower center", ncols=len(forms), frameon=False)
    figure.savefig(path, metadata={"Date": None})


def table(rows, models, forms):
    contexts = sorted({row.ctx for row in rows})
    found = {(row.model, row.format, row.ctx): row for row in rows}

    def cell(*label):
        row = found.get(label)
        return f"{row.bytes_per_second / 1e9:.1f} ({row.limit_fraction:.0%})" if row else ""

    yield "| model | format | " + " | ".join(f"ctx {ctx}" for ctx in contexts) + " |"
    yield "| --- | --- |" + " ---: |" * len(contexts)
    for model in models:
        for form in forms:
            yield f"| {model} | {form} | " + " | ".join(cell(model, form, ctx) for ctx in contexts) + " |"


def page(title, context, picture, rows, models, forms):
    cache = max(cache["size"] for cache in context["caches"]) >> 20
    yield f"# {title}\n"
    yield f"kvlane {context['kvlane_version']}, {context['kvlane_isa']}, {context['num_cpus']} CPUs, {cache} MB last-level cache."
    yield "GB/s of keys and values, and their share of the limit measured in the same run. Remade by `./dev report`.\n"
    yield f"![{title}]({picture})\n"
    yield from table(rows, models, forms)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", help="what kvlane-bench wrote with --benchmark_out")
    parser.add_argument("--out", default="docs", type=pathlib.Path, help="folder of picture and page (default docs)")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--state", choices=("cold", "hot"), default="cold")
    arguments = parser.parse_args()
    run = results.read(arguments.results)
    wanted = ("decode", 1, arguments.threads, arguments.state)
    rows = [row for row in run.results.values() if (row.kind, row.queries, row.threads, row.state) == wanted]
    if not rows:
        sys.exit(f"{arguments.results}: no decode row with --threads {arguments.threads} and --state {arguments.state}")
    models = distinct(row.model for row in rows)
    forms = distinct(row.format for row in rows)
    arguments.out.mkdir(parents=True, exist_ok=True)
    path = arguments.out / f"decode-{arguments.state}-threads-{arguments.threads}"
    picture = path.with_suffix(".svg")
    draw(rows, models, forms, picture)
    title = f"Decode, {arguments.state}, {arguments.threads} thread{'s' if arguments.threads > 1 else ''}"
    text = "\n".join(page(title, run.context, picture.name, rows, models, forms)) + "\n"
    path.with_suffix(".md").write_text(text, encoding="utf-8")
    print(text)
    print(f"{picture} and .md written")


if __name__ == "__main__":
    main()
