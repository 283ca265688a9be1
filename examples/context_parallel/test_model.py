"""Checks model.py's formula against a simulation of the chain, and the table of docs/distributed.md against its output."""

import pathlib
import subprocess
import sys
import unittest

import model

here = pathlib.Path(__file__).parent


def simulated(rows, n_ranks, latency, bytes_per_second, merges):
    """When the last output of the last piece arrives, stage by stage: each rank and link serves one piece at a time."""
    ranks_free, links_free = [0.0] * n_ranks, [0.0] * n_ranks
    for _ in range(rows.n_pieces):
        arrival = 0.0
        for rank, n_bytes in enumerate(model.bytes_sent(rows, n_ranks)):
            ranks_free[rank] = max(ranks_free[rank], arrival) + merges / rows.n_pieces
            links_free[rank] = max(links_free[rank], ranks_free[rank]) + n_bytes / rows.n_pieces / bytes_per_second
            arrival = links_free[rank] + latency
    return arrival


class TestModel(unittest.TestCase):
    def test_reduction(self):
        for n_ranks in (2, 3, 8):
            for n_pieces in (1, 4, 16):
                for network in ((1e-5, 1e9), (1e-3, 1e7), (0, float("inf"))):
                    for merges in (1e-6, 1e-3):
                        case = model.Rows(64, 128, n_pieces), n_ranks, *network, merges
                        self.assertAlmostEqual(model.reduction_seconds(*case) / simulated(*case), 1, 9, case)

    def test_one_rank_sends_nothing(self):
        rows = model.Rows(64, 128, 8)
        self.assertEqual(model.bytes_sent(rows, 1), [0])
        self.assertAlmostEqual(model.reduction_seconds(rows, 1, 1.0, 1.0, 0.25), 0.25)

    def test_page(self):
        page = (here / "../../docs/distributed.md").read_text()
        printed = subprocess.run([sys.executable, "-B", here / "model.py"], capture_output=True, text=True, check=True).stdout
        named = {"together": "together", "attention": "attention", "reduction": "reduction"}
        named |= {"one node with all tokens": "attention of one node with all tokens", "sent by all nodes": "sent by all nodes"}
        for line, row in named.items():
            [words] = [text[len(line) :].split() for text in printed.splitlines() if text.startswith(line + "  ")]
            self.assertIn(f"| {row} | {words[0]} {words[1]} | {words[2]} {words[3]} |", page)


unittest.main()
