"""The text that the example's model learns from: the King James Bible, as Debian's package bible-kjv prints it.

    python3 tools/train/text.py DIRECTORY      writes training.txt and held_out.txt

A chapter is a line. The books from Hebrews to Revelation are held out: neither the tokenizer nor the model learns from them.
"""

import argparse
import os
import re
import subprocess
import sys
from pathlib import Path

FIRST_HELD_OUT = "Heb1"


def chapters():
    """Returns (name, text) of every chapter in order, such as ("Ge1", "In the beginning ..."): verses joined by spaces."""
    environment = {name: value for name, value in os.environ.items() if name != "COLUMNS"}  # the width of a line
    try:
        printed = subprocess.run(["bible", "-f", "gen1:1-rev22:21"], env=environment, stdin=subprocess.DEVNULL,
                                 stdout=subprocess.PIPE, text=True, check=True).stdout
    except FileNotFoundError:
        sys.exit("the program bible is missing; it is in Debian's package bible-kjv")
    verses = {}
    for line in printed.splitlines():
        chapter, verse = re.fullmatch(r"(\w+):\d+ (.*)", line).groups()
        verses.setdefault(chapter, []).append(" ".join(verse.split()))
    return [(chapter, " ".join(of_chapter)) for chapter, of_chapter in verses.items()]


def split_text():
    """Returns the training text and the held-out text."""
    names, texts = zip(*chapters())
    first = names.index(FIRST_HELD_OUT)
    return "\n".join(texts[:first]) + "\n", "\n".join(texts[first:]) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path, metavar="DIRECTORY")
    directory = parser.parse_args().directory
    directory.mkdir(parents=True, exist_ok=True)
    for name, text in zip(("training.txt", "held_out.txt"), split_text()):
        (directory / name).write_text(text)


if __name__ == "__main__":
    main()
