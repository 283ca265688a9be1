#!/usr/bin/env python3
"""Reads the disassembly of an isa's aarch64 objects and lists what the inner loops of their micro-kernels consist of.

A micro-kernel is an instance of gemm_block<Isa, Operand, R, P>: R rows by P panels. Its inner loop is the innermost one with
multiply-adds, and takes one step of k. Fails where a micro-kernel has none or several, where its inner loop stores a vector
or loads one from the stack, and where no object has a micro-kernel.
"""

import argparse
import re
import subprocess
import sys
from collections import defaultdict
from dataclasses import dataclass

BRANCH = re.compile(r"(b|b\.\w+|cbn?z|tbn?z)$")
MULTIPLY_ADD = re.compile(r"(fmla|sm(la|ul)l2?|sdot)$")  # SMULL: a product that ADDP and ADD add
CONVERT = re.compile(r"(fcvtl2?|[su]?shll?2?|[su]shr|[su]xtl2?|[su]cvtf|and|eor|bic)$")
BROADCAST = re.compile(r"(dup|ld1r)$")
VECTOR = re.compile(r"\b[qdsv]\d+\b")
BY_ELEMENT = re.compile(r"\.\w+\[\d+\]$")
MICRO_KERNEL = re.compile(r"(?:void )?kvlane::(gemm_block<.*?>)\(")


@dataclass
class Instruction:
    address: int
    mnemonic: str
    operands: str

    @property
    def target(self):
        """The address that a branch inside the function leads to."""
        return int(re.search(r"([0-9a-f]+) <", self.operands)[1], 16)

    @property
    def vectors_moved(self):
        """How many vector registers it loads or stores."""
        is_move = self.mnemonic.startswith(("ld", "st"))
        return len(VECTOR.findall(self.operands.split("[x")[0].split("[sp")[0])) if is_move else 0

    @property
    def computes_vectors(self):
        """Whether it reads or writes vector registers and no memory."""
        return bool(VECTOR.search(self.operands)) and "[x" not in self.operands and "[sp" not in self.operands

    def __str__(self):
        return f"{self.address:x}: {self.mnemonic} {self.operands}"


def functions(objdump, path):
    """Yields (name, instructions) of every function of an object."""
    listing = subprocess.run([objdump, "-d", "-C", "--no-show-raw-insn", path], capture_output=True, text=True, check=True)
    for part in re.split(r"\n(?=[0-9a-f]+ <)", listing.stdout):
        header = re.match(r"[0-9a-f]+ <(.*)>:\n", part)
        if header:
            lines = re.findall(r"^ *([0-9a-f]+):\t([\w.]+)(?:\t([^\n]*?))?(?:\s*//.*)?$", part, re.MULTILINE)
            yield header[1], [Instruction(int(address, 16), *rest) for address, *rest in lines]


def successors(name, code):
    """Returns, for every instruction's place, the places where it may go on inside the function."""
    place = {instruction.address: i for i, instruction in enumerate(code)}
    result = []
    for i, instruction in enumerate(code):
        stays = instruction.mnemonic not in ("b", "br", "ret") and i + 1 < len(code)
        following = [i + 1] if stays else []
        if BRANCH.match(instruction.mnemonic) and f"<{name}" in instruction.operands:
            following.append(place[instruction.target])
        result.append(following)
    return result


def dominators(following):
    """Returns, for every place, a set of bits: the places that every way from the first to it goes through."""
    before = defaultdict(list)
    for i, places in enumerate(following):
        for place in places:
            before[place].append(i)
    everywhere = (1 << len(following)) - 1
    result = [1] + [everywhere] * (len(following) - 1)
    changed = True
    while changed:
        changed = False
        for i in range(1, len(following)):
            bits = everywhere
            for place in before[i]:
                bits &= result[place]
            changed |= result[i] != bits | 1 << i
            result[i] = bits | 1 << i
    return result, before


def loops(name, code):
    """Yields the places of every natural loop's instructions."""
    following = successors(name, code)
    dominator, before = dominators(following)
    found = defaultdict(set)
    for i, places in enumerate(following):
        for head in places:
            if dominator[i] >> head & 1:
                found[head].add(head)
                ahead = [i]
                while ahead:
                    place = ahead.pop()
                    if place not in found[head]:
                        found[head].add(place)
                        ahead += before[place]
    return list(found.values())


def inner_loops(name, code):
    """Returns the instructions of every innermost loop with multiply-adds."""
    multiplying = [loop for loop in loops(name, code) if any(MULTIPLY_ADD.match(code[i].mnemonic) for i in loop)]
    innermost = [loop for loop in multiplying if not any(other < loop for other in multiplying)]
    return [[code[i] for i in sorted(loop)] for loop in innermost]


def vectors_in_memory(body):
    """Returns a loop's stores of vectors, and its loads from the stack, whose address may have been put into a register."""
    bases = {"sp", "x29"}
    for instruction in body:
        made = re.match(r"(x\d+), (?:sp|x29)\b", instruction.operands)
        if made and instruction.mnemonic in ("add", "sub", "mov"):
            bases.add(made[1])
    on_stack = re.compile(rf"\[({'|'.join(bases)})\b")
    moves = [instruction for instruction in body if instruction.vectors_moved]
    return [move for move in moves if move.mnemonic.startswith("st") or on_stack.search(move.operands)]


COLUMNS = ("multiply-adds", "by element", "vectors loaded", "broadcasts", "conversions", "other vector instructions")


def counts(body):
    """Returns what a loop's row of the table says: a number for each of COLUMNS."""
    multiply_adds = [instruction for instruction in body if MULTIPLY_ADD.match(instruction.mnemonic)]
    broadcasts = [instruction for instruction in body if BROADCAST.match(instruction.mnemonic)]
    computing = [instruction for instruction in body if instruction.computes_vectors]
    conversions = [instruction for instruction in computing if CONVERT.match(instruction.mnemonic)]
    others = [
        instruction
        for instruction in computing
        if not any(kind.match(instruction.mnemonic) for kind in (MULTIPLY_ADD, BROADCAST, CONVERT))
    ]
    return (
        len(multiply_adds),
        sum(bool(BY_ELEMENT.search(instruction.operands)) for instruction in multiply_adds),
        sum(instruction.vectors_moved for instruction in body if instruction.mnemonic.startswith("ld")),
        len(broadcasts),
        len(conversions),
        len(others),
    )


def short(kernel):
    """Returns a micro-kernel's name without namespaces and the isa, which is the object's."""
    return re.sub(r"kvlane::|isa::\w+(, )?|operand::|format::", "", kernel).replace("<>", "").replace("> >", ">>")


def print_table(rows):
    print("| micro-kernel: operand, rows, panels; of its inner loop | " + " | ".join(COLUMNS) + " |")
    print("| --- |" + " ---: |" * len(COLUMNS))
    for kernel, *cells in sorted(rows):
        print("| " + " | ".join(map(str, (f"`{kernel}`", *cells))) + " |")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("objdump")
    parser.add_argument("objects", nargs="+")
    arguments = parser.parse_args()
    rows = set()
    problems = []
    for path in arguments.objects:
        for name, code in functions(arguments.objdump, path):
            micro_kernel = MICRO_KERNEL.match(name)
            if not micro_kernel:
                continue
            kernel = short(micro_kernel[1])
            bodies = inner_loops(name, code)
            if len(bodies) != 1:
                problems.append(f"{kernel} has {len(bodies)} inner loops instead of one")
            for body in bodies:
                rows.add((kernel, *counts(body)))
                problems += [f"{kernel} keeps a vector in memory: {move}" for move in vectors_in_memory(body)]
    if not rows:
        problems.append("no object has a micro-kernel")
    print_table(rows)
    sys.exit("\n".join(problems) if problems else 0)


if __name__ == "__main__":
    main()
