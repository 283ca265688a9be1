#pragma once

// How often the calls that the fuzz target compares, over all inputs, had several chunks, a chain of views, views of rows,
// of tiles, shared chunks, or NaN and infinity; how often the oracle was asked, and tiles of the caller's were written.
struct FuzzCounts {
    long chunks, chains, rows, tiles, shared, rough, oracle, written;
};
extern FuzzCounts fuzz_counts;
