#include "cpu.hpp"

#if defined(__x86_64__)
#include <cpuid.h>
#elif defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#elif defined(__aarch64__) && defined(__APPLE__)
#include <sys/sysctl.h>
#endif

namespace kvlane {

#if defined(__x86_64__)

namespace {

uint64_t saved_registers() {
    uint32_t low, high;
    __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return uint64_t{high} << 32 | low;
}

}  // namespace

uint32_t cpu_features() {
    unsigned a = 0, b = 0, c = 0, d = 0;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_OSXSAVE)) {
        return cpu_base;
    }
    constexpr uint64_t ymm = 0x06, zmm = 0xe6;
    const uint64_t saved = saved_registers();
    const bool has_ymm = (saved & ymm) == ymm;
    const bool has_zmm = (saved & zmm) == zmm;
    uint32_t features = cpu_base;
    const auto note = [&](bool has, uint32_t feature) { features |= has ? feature : cpu_base; };
    note(has_ymm && (c & bit_FMA), cpu_fma);
    note(has_ymm && (c & bit_F16C), cpu_f16c);
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) {
        return features;
    }
    constexpr unsigned avx512 = bit_AVX512F | bit_AVX512BW | bit_AVX512CD | bit_AVX512DQ | bit_AVX512VL;
    note(has_ymm && (b & bit_AVX2), cpu_avx2);
    note(has_zmm && (b & avx512) == avx512, cpu_avx512);
    note(has_zmm && (c & bit_AVX512VNNI), cpu_avx512_vnni);
    const bool has_more = a >= 1 && __get_cpuid_count(7, 1, &a, &b, &c, &d);
    note(has_ymm && has_more && (a & bit_AVXVNNI), cpu_avx_vnni);
    return features;
}

#elif defined(__aarch64__) && defined(__linux__)

uint32_t cpu_features() {
    // The bit's number from the Linux kernel, because the system's headers may be older than its CPU.
    constexpr unsigned long hwcap_asimddp = 1ul << 20;
    return getauxval(AT_HWCAP) & hwcap_asimddp ? cpu_dotprod : cpu_base;
}

#elif defined(__aarch64__) && defined(__APPLE__)

uint32_t cpu_features() {
    int value = 0;
    size_t size = sizeof value;
    const bool has_dotprod = sysctlbyname("hw.optional.arm.FEAT_DotProd", &value, &size, nullptr, 0) == 0 && value != 0;
    return has_dotprod ? cpu_dotprod : cpu_base;
}

#else

uint32_t cpu_features() { return cpu_base; }

#endif

}  // namespace kvlane
