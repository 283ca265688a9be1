#include "machine.hpp"

#include <benchmark/benchmark.h>

#include <algorithm>
#include <cctype>
#include <filesystem>
#include <fstream>
#include <set>
#ifdef __APPLE__
#include <sys/sysctl.h>
#endif

#include "../../bench/limits.hpp"
#include "../../bench/system.hpp"
#include "../../kernels/cpu.hpp"
#include "kvlane/tbb.hpp"

namespace tool {
namespace {

constexpr uint64_t bytes_per_sample = 256 << 20;
constexpr double seconds_per_limits = 0.7;
constexpr int least_samples = 2 * bench::n_read_variants;

#ifdef __APPLE__
std::string cpu_name() {
    char name[256];
    size_t size = sizeof name;
    return sysctlbyname("machdep.cpu.brand_string", name, &size, nullptr, 0) == 0 ? name : "unknown";
}
#else
// Linux names the CPUs of x86, not those of Arm.
std::string cpu_name() {
    std::ifstream file("/proc/cpuinfo");
    for (std::string line; std::getline(file, line);) {
        const size_t colon = line.find(": ");
        if (line.starts_with("model name") && colon != std::string::npos) {
            return line.substr(colon + 2);
        }
    }
    return "unknown";
}
#endif

std::vector<std::string> feature_names() {
    constexpr struct {
        uint32_t feature;
        const char *name;
    } all[] = {
        {kvlane::cpu_avx2, "avx2"},       {kvlane::cpu_fma, "fma"},           {kvlane::cpu_f16c, "f16c"},
        {kvlane::cpu_avx512, "avx512"},   {kvlane::cpu_avx_vnni, "avx_vnni"}, {kvlane::cpu_avx512_vnni, "avx512_vnni"},
        {kvlane::cpu_dotprod, "dotprod"},
    };
    std::vector<std::string> names;
    for (const auto &[feature, name] : all) {
        if (kvlane::cpu_features() & feature) {
            names.emplace_back(name);
        }
    }
    return names;
}

std::vector<Isa> compiled_isas() {
    std::vector<Isa> isas;
    for (uint32_t i = 0; i < kvl_n_isas(); ++i) {
        isas.push_back({kvl_isa_name(i), kvl_isa_supported(i) != 0});
    }
    return isas;
}

std::vector<CpuCache> cpu_caches() {
    std::vector<CpuCache> caches;
    for (const auto &cache : benchmark::CPUInfo::Get().caches) {
        std::string type = cache.type;
        std::ranges::transform(type, type.begin(), [](unsigned char letter) { return std::tolower(letter); });
        caches.push_back({cache.level, type, static_cast<uint64_t>(cache.size), cache.num_sharing});
    }
    return caches;
}

int numa_nodes() {
    std::error_code error;  // a system without this directory has no nodes to count
    int n = 0;
    for (const auto &entry : std::filesystem::directory_iterator("/sys/devices/system/node", error)) {
        const std::string name = entry.path().filename();
        n += name.starts_with("node") && name.find_first_not_of("0123456789", 4) == std::string::npos;
    }
    return n;
}

// The word in brackets of "always [madvise] never".
std::string transparent_huge_pages() {
    std::ifstream file("/sys/kernel/mm/transparent_hugepage/enabled");
    for (std::string word; file >> word;) {
        if (word.starts_with('[') && word.ends_with(']')) {
            return word.substr(1, word.size() - 2);
        }
    }
    return "unknown";
}

std::string kernel_of(kvl_format format, uint32_t group) {
    const auto stored = kvlane::Format{format};
    return kvlane::Attention(
               {.n_query_heads = group, .n_kv_heads = 1, .head_dim = 128, .k_format = stored, .v_format = stored})
        .kernel();
}

std::vector<FormatKernels> kernels_of_formats() {
    std::vector<FormatKernels> kernels;
    for (kvl_format format = 0; const char *name = kvl_format_name(format); ++format) {
        kernels.push_back({name, kernel_of(format, 1), kernel_of(format, 4)});
    }
    return kernels;
}

Limits limits_of(int n_threads) {
    kvlane::TbbPool pool(n_threads);
    bench::ReadLimits limits(bytes_per_sample, pool.executor(), n_threads, true);
    const double end = bench::now() + seconds_per_limits;
    for (int i = 0; i < least_samples || bench::now() < end; ++i) {
        limits.sample();
    }
    return {n_threads, limits.bytes_per_second(), limits.multiply_adds_per_second()};
}

std::vector<Limits> measured_limits(int n_cpus, std::optional<uint64_t> available_bytes) {
    std::vector<Limits> limits;
    if (!available_bytes || *available_bytes > bench::cold_bytes()) {
        for (const int n_threads : std::set{1, n_cpus}) {
            limits.push_back(limits_of(n_threads));
        }
    }
    return limits;
}

}  // namespace

Machine this_machine() {
    Machine machine{.cpu = cpu_name(),
                    .n_cpus = tbb::info::default_concurrency(),
                    .features = feature_names(),
                    .isa_in_force = kvlane::isa_in_force(),
                    .isas = compiled_isas(),
                    .caches = cpu_caches(),
                    .n_numa_nodes = numa_nodes(),
                    .huge_pages = transparent_huge_pages(),
                    .available_bytes = bench::available_bytes(),
                    .kernels = kernels_of_formats(),
                    .limits = {}};
    machine.limits = measured_limits(machine.n_cpus, machine.available_bytes);
    return machine;
}

}  // namespace tool
