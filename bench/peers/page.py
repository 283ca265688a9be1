"""What docs/performance.md says of a run: tables of ratios of times, a picture, and what was compared."""

import io
import pathlib

BEGIN, END = "<!-- peers: made by ./dev peers -->", "<!-- end of peers -->"
NEAR = 1.3  # a peer this close, or faster, stands out
STATES = {True: "from memory", False: "hot"}


def distinct(values):
    return list(dict.fromkeys(values))


def best_of(row):
    """Returns each peer's fastest configuration, by peer."""
    best = {}
    for entry in sorted(row["entries"], key=lambda entry: -entry["ratio"]["median"]):
        best[entry["peer"]] = entry
    return best


def peers_of(results):
    measured = {entry["peer"] for row in results["rows"] for entry in row["entries"]}
    return [peer for peer in results["versions"] if peer in measured and peer != "kvlane"]


def cell(entry):
    if entry is None:
        return ""
    ratio = entry["ratio"]
    middle = f"{ratio['median']:.2f}"
    if ratio["median"] < NEAR:
        middle = f"**{middle}**"
    return f"{middle} ({ratio['low']:.2f} to {ratio['high']:.2f})"


def table(rows, peers):
    yield "| model, format | kvlane µs | GB/s (of the bandwidth) | " + " | ".join(peers) + " |"
    yield "| --- | ---: | ---: |" + " ---: |" * len(peers)
    for row in rows:
        best = best_of(row)
        kvlane = best["kvlane"]
        rate = row["bytes"] / kvlane["seconds"]
        cells = [cell(best.get(peer)) for peer in peers]
        yield (f"| {row['model']['name']}, {row['format']} | {kvlane['seconds'] * 1e6:.1f} "
               f"| {rate / 1e9:.1f} ({rate / row['bandwidth']:.0%}) | " + " | ".join(cells) + " |")  # fmt: skip


def title_of(row):
    threads = f"{row['threads']} thread{'s' if row['threads'] > 1 else ''}"
    return f"{row['n_tokens']} tokens, {STATES[row['is_cold']]}, {threads}"


def configurations_of(results, peer):
    """Returns how often each configuration of a peer was its fastest one: "f32, bf16"."""
    fastest = [best_of(row)[peer]["configuration"] for row in results["rows"] if peer in best_of(row)]
    return ", ".join(distinct(fastest))


def largest_error(results, peer):
    return max(entry["error"] for row in results["rows"] for entry in row["entries"] if entry["peer"] == peer)


def legend(results):
    yield "| library | version | fastest configurations | largest error | µs of the smallest call |"
    yield "| --- | --- | --- | ---: | ---: |"
    smallest = best_of(results["smallest"])
    for peer in ["kvlane", *peers_of(results)]:
        call = f"{smallest[peer]['seconds'] * 1e6:.1f}" if peer in smallest else ""
        yield (f"| {peer} | {results['versions'][peer]} | {configurations_of(results, peer)} "
               f"| {largest_error(results, peer):.0e} | {call} |")  # fmt: skip
    for peer, reason in results["missing"].items():
        yield f"| {peer} | not measured: {reason} | | | |"
    failures = {}
    for row in results["rows"]:
        for configuration, reason in row["failures"].items():
            label = f"{row['model']['name']}/{row['format']}, {title_of(row)}"
            failures.setdefault((configuration, reason), []).append(label)
    for (configuration, reason), labels in failures.items():
        yield f"\n{configuration} was not measured in {len(labels)} cases, the first one {labels[0]}: {reason}"


def lines(results):
    """Yields the lines between the marks."""
    machine = results["machine"]
    yield f"Commit {results['commit']}, {machine['cpu']}, {machine['n_cpus']} CPUs, {machine['last_level_cache_mb']} MB last-level cache;"
    yield f"medians of {results['rounds']} rounds. How many times faster kvlane is, with quartiles; below {NEAR} in bold. ONNX Runtime and"
    yield "OpenVINO also append the token in each call.\n"
    yield from legend(results)
    for title in distinct(title_of(row) for row in results["rows"]):
        yield f"\n{title}:\n"
        yield from table([row for row in results["rows"] if title_of(row) == title], peers_of(results))


def draw_panel(axis, rows, peers):
    """Ratios by model; filled points are of one thread, open ones of all."""
    models = distinct(row["model"]["name"] for row in rows)
    for threads in distinct(row["threads"] for row in rows):
        best = {row["model"]["name"]: best_of(row) for row in rows if row["threads"] == threads}
        for i, peer in enumerate(peers):
            measured = [model for model in models if peer in best.get(model, ())]
            x = [models.index(model) + 0.7 * (i + 0.5) / len(peers) - 0.35 for model in measured]
            face = f"C{i}" if threads == 1 else "none"
            axis.plot(x, [best[model][peer]["ratio"]["median"] for model in measured], "o", color=f"C{i}", markerfacecolor=face,
                      markersize=4)  # fmt: skip
    axis.axhline(1, color="black", linewidth=0.8)
    axis.set_yscale("log")
    ticks = [0.5, 1, 2, 5, 10, 20]
    axis.set_yticks(ticks, [str(tick) for tick in ticks])
    axis.minorticks_off()
    axis.set_xticks(range(len(models)), models, rotation=20)
    axis.grid(alpha=0.3)


def draw(results, path):
    """One panel for each state and format."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as pyplot

    matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "kvlane", "font.size": 8})
    rows, peers = results["rows"], peers_of(results)
    states, formats = distinct(row["is_cold"] for row in rows), distinct(row["format"] for row in rows)
    size = (2.4 * len(formats), 2.3 * len(states) + 0.4)
    figure, axes = pyplot.subplots(len(states), len(formats), figsize=size, squeeze=False, sharex=True, sharey=True)
    for line, is_cold in zip(axes, states):
        for axis, form in zip(line, formats):
            draw_panel(axis, [row for row in rows if (row["is_cold"], row["format"]) == (is_cold, form)], peers)
            axis.set_title(f"{form}, {STATES[is_cold]}")
    figure.supylabel("times faster kvlane is")
    figure.tight_layout(rect=(0, 0.3 / size[1], 1, 1))
    names = [pyplot.Line2D([], [], marker="o", linestyle="", color=f"C{i}", label=peer) for i, peer in enumerate(peers)]
    names.append(pyplot.Line2D([], [], marker="o", linestyle="", color="black", markerfacecolor="none", label="all threads"))
    figure.legend(handles=names, loc="lower center", ncols=len(names), frameon=False)
    svg = io.StringIO()
    figure.savefig(svg, format="svg", metadata={"Date": None})
    path.write_text("\n".join(line.strip() for line in svg.getvalue().splitlines()) + "\n")  # a fifth of it is indentation


def between_marks(text, new_lines):
    """Returns text with the lines between the marks replaced."""
    before, _, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not end:
        raise ValueError(f"the page has no marks {BEGIN} and {END}")
    return before + BEGIN + "\n" + "\n".join(new_lines) + "\n" + END + after


def write(results, docs: pathlib.Path):
    draw(results, docs / "peers.svg")
    picture = "![How many times faster kvlane is, by model, format and library](peers.svg)\n"
    path = docs / "performance.md"
    path.write_text(between_marks(path.read_text(encoding="utf-8"), [picture, *lines(results)]), encoding="utf-8")
