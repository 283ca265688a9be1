"""Measures what formats of the KV cache cost in perplexity: the tables of docs/accuracy.md.

    python3 tools/train/perplexity.py examples/llama2/kjv build/release/examples/llama2/kvlane-llama2

The held-out text of text.py is cut into windows of the context's length, each of whole words. kvlane-llama2 measures each
window, with its own tokenizer. First torch measures the same windows with f32 keys and values: kvlane-llama2 with an f32 cache must
agree with it to a ten-thousandth, or no table is printed.
"""

import argparse
import functools
import math
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import text
import tokenizer

FLOATS = ["f32", "f16", "bf16"]
QUANTIZED = ["f16+q8", "f16+q4", "q8", "q8+q4", "q4+q8", "q4"]
ROTATIONS = ["none", "hadamard"]
REFERENCE = ["f32", "--rotation", "none"]
FIRST_F16, RECENT_F16 = 64, 128
PRINTED = r"(\d+) tokens, cache \S+: perplexity ([\d.]+), .* largest logit difference (\S+)"  # by kvlane-llama2
TOLERANCE = 1e-4  # relative, between torch and kvlane-llama2


def windows(of_tokenizer, of_text, length):
    """Returns consecutive pieces of a text, each of whole words and of at most length tokens with BOS."""
    pieces, words, n_tokens = [], [], 1
    for word in of_text.rstrip("\n").split(" "):
        n_word = len(of_tokenizer.encode(word)) - 1
        if n_tokens + n_word > length:
            pieces.append(" ".join(words))
            words, n_tokens = [], 1
        words.append(word)
        n_tokens += n_word
    return pieces + [" ".join(words)]


def spread(pieces, count):
    """Returns count of the pieces, evenly spread."""
    if not 1 <= count <= len(pieces):
        sys.exit(f"perplexity.py: --windows is {count}; it must be 1 to {len(pieces)}, the windows of the text")
    return [pieces[i * len(pieces) // count] for i in range(count)]


def perplexity(losses):
    """Returns the perplexity of windows, given (number of predicted tokens, mean of -log(probability)) of each."""
    return math.exp(sum(n * loss for n, loss in losses) / sum(n for n, _ in losses))


def torch_perplexity(directory, encoded):
    """Returns the perplexity of encoded windows by transformers, in f32."""
    import torch
    from transformers import LlamaForCausalLM

    model = LlamaForCausalLM.from_pretrained(directory, dtype=torch.float32)
    losses = []
    with torch.no_grad():
        for tokens in encoded:
            window = torch.tensor([tokens])
            losses.append((len(tokens) - 1, model(input_ids=window, labels=window).loss.item()))
    return perplexity(losses)


def kvlane_perplexity(program, directory, files, cache, *options):
    """Returns the perplexity of windows, a file each, by kvlane-llama2, and the largest difference of a logit from an f32 cache's."""
    losses, differences = [], []
    for file in files:
        command = [program, directory, "--perplexity", file, "--cache", cache, *options]
        printed = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
        n_tokens, value, difference = re.match(PRINTED, printed).groups()
        losses.append((int(n_tokens) - 1, math.log(float(value))))
        differences.append(float(difference))
    return perplexity(losses), max(differences)


def check(ours, reference):
    """Ends the program unless two perplexities agree."""
    if not abs(ours / reference - 1) < TOLERANCE:
        sys.exit(f"perplexity.py: kvlane-llama2's perplexity is {ours:.5f}, and torch's is {reference:.5f}; "
                 f"they must differ by less than {TOLERANCE} of it")


def print_table(measure, cell):
    """Prints a table in Markdown; cell formats what measure(cache, *options) returns."""
    window = ["--first-f16", str(FIRST_F16), "--recent-f16", str(RECENT_F16)]
    columns = [["--rotation", rotation, *more] for more in ([], window) for rotation in ROTATIONS]
    print("| cache | no rotation | Hadamard | no rotation, f16 window | Hadamard, f16 window |")
    print("| --- | ---: | ---: | ---: | ---: |")
    for cache in FLOATS + QUANTIZED:
        measured = columns if cache in QUANTIZED else columns[:len(ROTATIONS)]
        cells = [cell(*measure(cache, *options)) for options in measured] + [""] * (len(columns) - len(measured))
        print(f"| {cache} | {' | '.join(cells)} |", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, metavar="MODEL", help="directory of the model")
    parser.add_argument("program", type=Path, metavar="PROGRAM", help="kvlane-llama2")
    parser.add_argument("--context", type=int, default=1024, help="tokens of a window (default: %(default)s)")
    parser.add_argument("--windows", type=int, default=12, help="number of windows (default: %(default)s)")
    parser.add_argument("--text", type=Path, help="file to measure instead of the held-out text")
    options = parser.parse_args()

    of_model = tokenizer.Tokenizer(options.model / "tokenizer.bin")
    measured = options.text.read_text() if options.text else text.split_text()[1]
    pieces = spread(windows(of_model, measured, options.context), options.windows)
    encoded = [of_model.encode(piece) for piece in pieces]
    with tempfile.TemporaryDirectory() as directory:
        files = [Path(directory) / f"window_{i}.txt" for i in range(len(pieces))]
        for file, piece in zip(files, pieces):
            file.write_text(piece)

        @functools.cache
        def measure(cache, *more):
            return kvlane_perplexity(options.program, options.model, files, cache, *more)

        reference = torch_perplexity(options.model, encoded)
        ours, _ = measure(*REFERENCE)
        check(ours, reference)
        print(f"windows: {len(pieces)}, of at most {options.context} tokens, {sum(map(len, encoded))} in all; "
              f"perplexity by torch {reference:.4f}. With caches of kvlane, and their ratio to f32:\n")
        print_table(measure, lambda value, _: f"{value:.4f} ({value / ours:.5f})")
        print("\nThe largest difference of a logit from that with an f32 cache:\n")
        print_table(measure, lambda _, difference: f"{difference:.2g}")


if __name__ == "__main__":
    main()
