#pragma once

// How often the calls that the fuzz target compares, over all inputs, had several chunks, a chain of views, views of rows,
// of tiles, shared chunks, or NaN and infinity; and how often the oracle was asked.
struct FuzzCounts {
    long chunks, chains, rows, tiles, shared, rough, oracle;
};
extern FuzzCounts fuzz_counts;
