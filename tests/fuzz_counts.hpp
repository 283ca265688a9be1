#pragma once

// How often the calls that the fuzz target compares, over all inputs, had several chunks, a chain of views, views of rows,
// of tiles, shared chunks, a head_dim over 70, a group over 12, or NaN and infinity; how often the oracle was asked, of
// these with q8 or q4, and tiles of the caller's were written.
struct FuzzCounts {
    long chunks, chains, rows, tiles, shared, long_heads, large_groups, rough, oracle, scaled_oracle, written;
};
extern FuzzCounts fuzz_counts;
