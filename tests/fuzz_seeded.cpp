// Runs the fuzz target over inputs from a fixed seed: what any compiler can do without a fuzzer. Fails where the inputs do
// not reach what is to be compared.

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <vector>

#include "fuzz_counts.hpp"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int main(int argc, char **argv) {
    const int n_inputs = argc > 1 ? std::atoi(argv[1]) : 1;
    std::mt19937 generator(20240229);
    for (int i = 0; i < n_inputs; ++i) {
        std::vector<uint8_t> input(generator() % 2048);
        for (uint8_t &byte : input) {
            byte = static_cast<uint8_t>(generator());
        }
        LLVMFuzzerTestOneInput(input.data(), input.size());
    }
    const FuzzCounts &n = fuzz_counts;
    std::printf(
        "%d inputs; compared with several chunks %ld, chains %ld, rows %ld, tiles %ld, shared chunks %ld, head_dim over 70 "
        "%ld, groups over 12 %ld, NaN or infinity %ld, the oracle %ld, with q8 or q4 %ld; tiles written %ld\n",
        n_inputs, n.chunks, n.chains, n.rows, n.tiles, n.shared, n.long_heads, n.large_groups, n.rough, n.oracle,
        n.scaled_oracle, n.written);
    const bool reaches_all = n.chunks > 0 && n.chains > 0 && n.rows > 0 && n.tiles > 0 && n.shared > 0 && n.long_heads > 0 &&
                             n.large_groups > 0 && n.rough > 0 && n.oracle > n.scaled_oracle && n.scaled_oracle > 0 &&
                             n.written > 0;
    return reaches_all ? EXIT_SUCCESS : EXIT_FAILURE;
}
