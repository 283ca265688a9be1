#!/usr/bin/env python3
"""Reads the disassembly of an isa's aarch64 objects and lists, for every kernel in them, what its inner loops consist of.

An inner loop is an innermost one of those with multiply-adds (FMLA; of integers SMLAL, SDOT, UDOT or USDOT). Loops that call
a function are left out: they load the part of a vector at a row's end. Fails where an inner loop keeps a vector in memory (a
load from the stack or a store to it), where one of a micro-kernel stores a vector at all, and where a micro-kernel has no
inner loop or none that prefetches.
"""

import argparse
import re
import subprocess
import sys
from collections import defaultdict
from dataclasses import dataclass

BRANCH = re.compile(r"(b|b\.\w+|cbn?z|tbn?z)$")
CONVERT = re.compile(r"(fcvtl2?|[su]?shll2?|[su]xtl2?|[su]cvtf)$")
MULTIPLY_ADD = re.compile(r"(fmla|smlal2?|[su]dot|usdot)$")
VECTOR = re.compile(r"\b[qdsv]\d+\b")
NUMBERS = ("floats", "scaled", "words", "bytes")  # what rows are multiplied in: the enumerators of kernel_table.hpp
MICRO_KERNEL = re.compile(r"(\w+Micro<.*?>)::")


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

    def __str__(self):
        return f"{self.address:x}: {self.mnemonic} {self.operands}"


def functions(objdump, paths):
    """Yields (name, instructions) of every function."""
    listing = subprocess.run([objdump, "-d", "-C", "--no-show-raw-insn", *paths], capture_output=True, text=True, check=True)
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
    """Yields the instructions of every innermost loop with multiply-adds that calls nothing."""
    multiplying = [loop for loop in loops(name, code) if any(MULTIPLY_ADD.match(code[i].mnemonic) for i in loop)]
    for loop in multiplying:
        body = [code[i] for i in sorted(loop)]
        is_innermost = not any(other < loop for other in multiplying)
        if is_innermost and not any(instruction.mnemonic in ("bl", "blr") for instruction in body):
            yield body


def spills(body):
    """Returns the loop's loads and stores of vectors on the stack, whose address may have been put into a register."""
    bases = {"sp", "x29"}
    for instruction in body:
        made = re.match(r"(x\d+), (?:sp|x29)\b", instruction.operands)
        if made and instruction.mnemonic in ("add", "sub", "mov"):
            bases.add(made[1])
    on_stack = re.compile(rf"\[({'|'.join(bases)})\b")
    return [instruction for instruction in body if instruction.vectors_moved and on_stack.search(instruction.operands)]


def stores(body):
    """Returns the loop's stores of vectors."""
    return [instruction for instruction in body if instruction.mnemonic.startswith("st") and instruction.vectors_moved]


def columns(body):
    """Returns what a loop's row of the table says."""
    multiply_adds = [instruction for instruction in body if MULTIPLY_ADD.match(instruction.mnemonic)]
    return (
        len(multiply_adds),
        sum(instruction.mnemonic.startswith("prfm") for instruction in body),
        sum(instruction.vectors_moved for instruction in body if instruction.mnemonic.startswith("ld")),
        sum(bool(CONVERT.match(instruction.mnemonic)) for instruction in body),
        sum(bool(re.search(r"\.[hs]\[", instruction.operands)) for instruction in multiply_adds),
    )


def short(name):
    """Returns a demangled name without namespaces, return type, parameters and the isa, which is the object's."""
    name = re.sub(r"\([^()]*\)( const)?$", "", name).removeprefix("void ")
    name = re.sub(r"kvlane::(isa::\w+(, )?|format::)?", "", name)
    return re.sub(r"\(Numbers\)(\d)", lambda number: NUMBERS[int(number[1])], name)


def print_table(kernels):
    headings = ("multiply-adds", "prefetches", "vectors loaded", "widened", "by element", "inner loops", "spills")
    print("| kernel, its widest inner loop | " + " | ".join(headings) + " |")
    print("| --- |" + " ---: |" * len(headings))
    for kernel in sorted(kernels):
        bodies = kernels[kernel]
        widest = max(map(columns, bodies), default=("",) * 5)
        cells = (f"`{kernel}`", *widest, len(bodies), sum(len(spills(body)) for body in bodies))
        print("| " + " | ".join(map(str, cells)) + " |")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("objdump")
    parser.add_argument("objects", nargs="+")
    arguments = parser.parse_args()
    kernels = defaultdict(list)
    problems = []
    for name, code in functions(arguments.objdump, arguments.objects):
        micro_kernel = MICRO_KERNEL.search(short(name))
        bodies = list(inner_loops(name, code))
        if micro_kernel or bodies:
            kernels[micro_kernel[1] if micro_kernel else short(name)] += bodies
        for body in bodies:
            problems += [f"{short(name)} keeps a vector in memory: {spill}" for spill in spills(body)]
    problems += [f"{kernel} has no inner loop" for kernel, bodies in kernels.items() if not bodies]
    for kernel, bodies in kernels.items():
        if MICRO_KERNEL.match(kernel + "::"):
            problems += [f"{kernel} stores its sums: {store}" for body in bodies for store in stores(body)]
            if bodies and not max(map(columns, bodies))[1]:
                problems.append(f"{kernel}'s widest inner loop does not prefetch")
    for word in ("DotMicro", "SumMicro"):
        if not any(word in kernel for kernel in kernels):
            problems.append(f"no object has a {word}")
    print_table(kernels)
    sys.exit("\n".join(problems) if problems else 0)


if __name__ == "__main__":
    main()
