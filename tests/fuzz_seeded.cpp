// Runs the fuzz target over inputs from a fixed seed: what any compiler can do without a fuzzer.

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <vector>

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
    std::printf("%d inputs\n", n_inputs);
}
