"""Runs the demo on a terminal: it shows which row it measures and the time left, and erases that before the row is printed.

python3 demo_terminal.py DEMO
"""

import os
import pty
import re
import sys

output = bytearray()


def keep(terminal):
    read = os.read(terminal, 4096)
    output.extend(read)
    return read


status = pty.spawn(
    [sys.argv[1], "--table-only", "--model", "qwen2.5-0.5b", "--format", "f16,q8,q4", "--ctx", "64", "--seconds", "1"], keep
)
assert os.waitstatus_to_exitcode(status) == 0, "the demo failed"
erased = rb"\r {60}\r"
progress = rb"1 of 3" + erased
for row in (b"2", b"3"):
    progress += rb"qwen2\.5-0\.5b [^\r\n]*\r\n" + row + rb" of 3, about \d+ s left" + erased
assert re.search(progress + rb"qwen2\.5-0\.5b ", output), f"no progress as expected in {bytes(output)}"
