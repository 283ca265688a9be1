"""What a peer is: a library that computes decode attention. Each has a file peer_<name>.py with a class Peer."""


class Base:
    # By kvlane's format, the configurations that are measured against it; the fastest one counts.
    configurations: dict[str, tuple[str, ...]] = {}
    max_calls = 1000  # of a block

    def version(self):
        """Returns the version of the library."""
        raise NotImplementedError

    def setup(self, shape, configuration, q, k, v):
        """Stores shape.n_layers() layers, each in memory of its own, whose keys and values are k and v.
        Shape: q [n_query_heads, head_dim]; k, v [n_kv_heads, n_tokens, head_dim]; f32"""
        raise NotImplementedError

    def use_threads(self, threads):
        """Makes the following calls run on that many threads. Is called after setup, for each number of threads."""
        raise NotImplementedError

    def stored(self):
        """Returns q, k and v with the values that the last run computed with, in the shapes of setup."""
        raise NotImplementedError

    def prepare(self):
        """Is called before each block, untimed."""

    def run(self):
        """Computes one layer's attention: the call that is timed. Calls rotate over the layers."""
        raise NotImplementedError

    def output(self):
        """Returns what the last run computed. -> [n_query_heads, head_dim]"""
        raise NotImplementedError
