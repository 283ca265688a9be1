// What the library says about itself.

#include <algorithm>
#include <iterator>
#include <string>
#include <vector>

#include "support.hpp"

using kvlane::Format;

namespace {

uint32_t place_of(const std::string &isa) {
    uint32_t i = 0;
    while (i < kvl_n_isas() && isa != kvl_isa_name(i)) {
        ++i;
    }
    return i;
}

}  // namespace

TEST_CASE("isas are listed from the portable to the widest: those that are built") {
    REQUIRE(kvl_n_isas() >= 1);
    const std::vector<std::string> all{"scalar", "sse2",        "avx2", "avx2_vnni",
                                       "avx512", "avx512_vnni", "neon", "neon_dotprod"};
    std::vector<std::string> built;
    for (uint32_t i = 0; i < kvl_n_isas(); ++i) {
        built.push_back(kvl_isa_name(i));
        CHECK(place_of(built.back()) == i);
    }
    std::vector<std::string> expected;
    std::copy_if(all.begin(), all.end(), std::back_inserter(expected),
                 [&](const std::string &isa) { return place_of(isa) < kvl_n_isas(); });
    CHECK(built == expected);
    CHECK(built.front() == "scalar");
    CHECK(kvl_isa_supported(0) == 1);
    for (const std::string baseline : {"sse2", "neon"}) {
        CHECK((place_of(baseline) == kvl_n_isas() || kvl_isa_supported(place_of(baseline)) == 1));
    }
    CHECK(kvl_isa_name(kvl_n_isas()) == nullptr);
    CHECK(kvl_isa_supported(kvl_n_isas()) == 0);
}

TEST_CASE("the isa in force is the one that was named, else the widest that is supported") {
    std::string expected;
    for (uint32_t i = 0; i < kvl_n_isas(); ++i) {
        expected = kvl_isa_supported(i) ? kvl_isa_name(i) : expected;
    }
    const std::string forced = test::forced_isa();
    CHECK(std::string(kvlane::isa_in_force()) == (forced.empty() ? expected : forced));
}

TEST_CASE("formats and their names lead to each other") {
    CHECK(std::string(kvl_format_name(KVL_F32)) == "f32");
    CHECK(std::string(kvl_format_name(KVL_F16)) == "f16");
    CHECK(std::string(kvl_format_name(KVL_BF16)) == "bf16");
    for (const Format format : test::all_formats()) {
        CHECK(kvlane::format_from_name(test::name_of(format)) == format);
    }
    CHECK(kvl_format_name(static_cast<kvl_format>(test::all_formats().size())) == nullptr);
    CHECK(kvl_format_name(UINT32_MAX) == nullptr);
}

TEST_CASE("the version in force is the header's") {
    CHECK(std::string(kvl_version()) == std::to_string(KVL_VERSION_MAJOR) + "." + std::to_string(KVL_VERSION_MINOR) + "." +
                                            std::to_string(KVL_VERSION_PATCH));
}

TEST_CASE("every status has its name") {
#define KVLANE_CHECK_NAME(status) CHECK(std::string(kvl_status_name(status)) == #status)
    KVLANE_CHECK_NAME(KVL_OK);
    KVLANE_CHECK_NAME(KVL_ERROR_STRUCT_SIZE);
    KVLANE_CHECK_NAME(KVL_ERROR_PLAN);
    KVLANE_CHECK_NAME(KVL_ERROR_NUMA);
    KVLANE_CHECK_NAME(KVL_ERROR_FLAGS);
    KVLANE_CHECK_NAME(KVL_ERROR_NULL);
    KVLANE_CHECK_NAME(KVL_ERROR_RANGE);
    KVLANE_CHECK_NAME(KVL_ERROR_FORMAT);
    KVLANE_CHECK_NAME(KVL_ERROR_HEADS);
    KVLANE_CHECK_NAME(KVL_ERROR_HEAD_DIM);
    KVLANE_CHECK_NAME(KVL_ERROR_SCALE);
    KVLANE_CHECK_NAME(KVL_ERROR_LAYER);
    KVLANE_CHECK_NAME(KVL_ERROR_LENGTH);
    KVLANE_CHECK_NAME(KVL_ERROR_CAPACITY);
    KVLANE_CHECK_NAME(KVL_ERROR_APPEND_TWICE);
    KVLANE_CHECK_NAME(KVL_ERROR_LAYER_MISSING);
    KVLANE_CHECK_NAME(KVL_ERROR_GEOMETRY);
    KVLANE_CHECK_NAME(KVL_ERROR_WORKSPACE_SIZE);
    KVLANE_CHECK_NAME(KVL_ERROR_WORKSPACE_ALIGNMENT);
    KVLANE_CHECK_NAME(KVL_ERROR_WORKSPACE_STATE);
    KVLANE_CHECK_NAME(KVL_ERROR_TASK);
    KVLANE_CHECK_NAME(KVL_ERROR_ISA);
    KVLANE_CHECK_NAME(KVL_ERROR_MEMORY);
    KVLANE_CHECK_NAME(KVL_ERROR_ROTATION);
    KVLANE_CHECK_NAME(KVL_ERROR_RULE);
    KVLANE_CHECK_NAME(KVL_ERROR_PRECISION);
    KVLANE_CHECK_NAME(KVL_ERROR_BLOCK);
    KVLANE_CHECK_NAME(KVL_ERROR_STRIDE);
    KVLANE_CHECK_NAME(KVL_ERROR_OVERLAP);
    KVLANE_CHECK_NAME(KVL_ERROR_MASK);
#undef KVLANE_CHECK_NAME
    CHECK(std::string(kvl_status_name(kvl_status(KVL_ERROR_NUMA + 1))) == "unknown status");
}

TEST_CASE("a kernel's name tells the isa, the formats and the group") {
    const kvlane::Attention attention(
        {.n_query_heads = 8, .n_kv_heads = 2, .head_dim = 64, .k_format = Format::f16, .v_format = Format::bf16});
    CHECK(std::string(attention.kernel()) == std::string(kvlane::isa_in_force()) + "/f16+bf16/group:4");
    CHECK(kvl_attention_kernel(nullptr) == nullptr);
}

TEST_CASE("a call reads each visible row once") {
    kvlane::Cache cache(
        1, {.n_kv_heads = 2, .head_dim = 64, .v_head_dim = 32, .k_format = Format::f16, .v_format = Format::f32}, 16);
    test::fill_random(cache, 10, 1);
    const kvlane::Attention attention({.n_query_heads = 12,
                                       .n_kv_heads = 2,
                                       .head_dim = 64,
                                       .v_head_dim = 32,
                                       .k_format = Format::f16,
                                       .v_format = Format::f32});
    const kvl_view view = cache.view(0);
    std::vector<float> q(12 * 64), out(2 * 12 * 32);
    const kvl_sequence sequences[] = {kvlane::Sequence{.view = &view, .len = 10, .q = q.data(), .out = out.data()},
                                      kvlane::Sequence{.view = &view, .len = 3, .q = q.data(), .out = &out[12 * 32]}};
    uint64_t bytes = 0;
    REQUIRE(kvl_attend_bytes(attention.get(), sequences, 2, &bytes) == KVL_OK);
    CHECK(bytes == 13 * 2 * (64 * 2 + 32 * 4));
}
