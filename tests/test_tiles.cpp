// Packed tiles: what is packed is read back, and attention to tiles is that of plain arithmetic, in every format and compute
// type of the isa in force.

#include <algorithm>
#include <cmath>
#include <memory>
#include <tuple>

#include "../kernels/kernel_table.hpp"
#include "oracle.hpp"
#include "support.hpp"

namespace kvlane {

#define KVLANE_ISA_ROW(name, features) extern const KernelTable table_##name;
#include "built_isas.inc"

}  // namespace kvlane

namespace {

using kvlane::ComputeType;
using kvlane::PackRows;
namespace panel = kvlane::panel;

constexpr int tile_tokens = panel::tile_tokens;
constexpr float infinity = std::numeric_limits<float>::infinity();

const kvlane::KernelTable &kernels() {
    const std::string in_force = kvlane::isa_in_force();
    const kvlane::KernelTable *found = nullptr;
#define KVLANE_ISA_ROW(name, features) found = in_force == #name ? &kvlane::table_##name : found;
#include "built_isas.inc"
    return *found;
}

/// Memory for tiles, zero, as aligned as they must be.
class TileMemory {
public:
    TileMemory(kvl_format k, uint32_t head_dim, kvl_format v, uint32_t v_head_dim, int n_tiles)
        : layout(panel::tile_layout(k, head_dim, v, v_head_dim)),
          k_format(k),
          v_format(v),
          bytes_(n_tiles * layout.bytes + panel::part_alignment) {
        void *at = bytes_.data();
        size_t space = bytes_.size();
        tiles = static_cast<std::byte *>(std::align(panel::part_alignment, n_tiles * layout.bytes, at, space));
    }

    PackRows rows(bool keys, float *x, int dim, bool is_rotated, int64_t first, int n) const {
        std::byte *const tile = tiles + first / tile_tokens * layout.bytes;
        const int64_t row_bytes = dim * static_cast<int64_t>(sizeof(float));
        return {.rows = reinterpret_cast<std::byte *>(x),
                .format = KVL_F32,
                .stride_bytes = row_bytes,
                .head_stride_bytes = row_bytes,
                .n = n,
                .first = static_cast<int>(first % tile_tokens),
                .dim = dim,
                .is_rotated = is_rotated,
                .offset = nullptr,
                .panels = tile + (keys ? 0 : layout.v_panels),
                .panel_bytes = keys ? layout.k_panel_bytes : layout.v_panel_bytes,
                .scales = tile + (keys ? layout.k_scales : layout.v_scales)};
    }

    /// Packs rows x [n, dim] for tokens from `first` on, `at_once` at a time.
    void pack(bool keys, std::vector<float> &x, int dim, bool is_rotated, int64_t first = 0, int at_once = tile_tokens) {
        each(kernels().pack[keys ? k_format : v_format][keys], keys, x, dim, is_rotated, first, at_once);
    }
    std::vector<float> unpack(bool keys, int64_t n_tokens, int dim, bool is_rotated) {
        std::vector<float> x(n_tokens * dim);
        each(kernels().unpack[keys ? k_format : v_format][keys], keys, x, dim, is_rotated, 0, tile_tokens);
        return x;
    }
    std::span<const float> floats(int n_tiles) const {
        return {reinterpret_cast<const float *>(tiles), n_tiles * layout.bytes / sizeof(float)};
    }

    panel::TileLayout layout;
    std::byte *tiles;
    kvl_format k_format;
    kvl_format v_format;

private:
    void each(void (*work)(const PackRows &), bool keys, std::vector<float> &x, int dim, bool is_rotated, int64_t first,
              int at_once) {
        const auto n_tokens = static_cast<int64_t>(x.size()) / dim;
        int n;
        for (int64_t t = 0; t < n_tokens; t += n) {
            n = static_cast<int>(std::min<int64_t>({at_once, n_tokens - t, tile_tokens - (first + t) % tile_tokens}));
            work(rows(keys, x.data() + t * dim, dim, is_rotated, first + t, n));
        }
    }

    std::vector<std::byte> bytes_;
};

double relative_error(std::span<const float> got, std::span<const double> want) {
    double off = 0, of = 0;
    for (size_t i = 0; i < got.size(); ++i) {
        off += (got[i] - want[i]) * (got[i] - want[i]);
        of += want[i] * want[i];
    }
    return std::sqrt(off / of);
}

double relative_error(std::span<const float> got, std::span<const float> want) {
    return relative_error(got, std::vector<double>(want.begin(), want.end()));
}

/// The most that storing normal data may cost, relative to it.
double storing_error(kvl_format format) {
    constexpr double of[] = {0, 2.5e-4, 2e-3, 8e-3, 0.081};
    return of[format];
}

/// Every combination of head_dims and formats that packing treats differently.
const int some_dims[] = {1, 2, 7, 16, 20, 64, 80, 128};

}  // namespace

TEST_CASE("tiles: rows that are packed read back within their format's rounding, rotated or not") {
    for (const kvlane::Format format : test::all_formats()) {
        for (const int dim : some_dims) {
            for (const bool keys : {true, false}) {
                for (const bool is_rotated : {false, true}) {
                    INFO(std::string(test::name_of(format)));
                    CAPTURE(dim);
                    CAPTURE(keys);
                    const auto f = static_cast<kvl_format>(format);
                    TileMemory memory(f, dim, f, dim, 3);
                    std::vector<float> x = test::random_values(150 * dim, 1);
                    memory.pack(keys, x, dim, is_rotated);
                    const std::vector<float> got = memory.unpack(keys, 150, dim, is_rotated);
                    CHECK(relative_error(got, x) <= storing_error(f) + (is_rotated ? 3e-7 : 0));
                }
            }
        }
    }
}

TEST_CASE("tiles: they have the same bytes however their tokens came in, and zeros behind them") {
    for (const kvlane::Format format : test::all_formats()) {
        for (const int dim : {20, 64}) {
            INFO(std::string(test::name_of(format)));
            const auto f = static_cast<kvl_format>(format);
            TileMemory at_once(f, dim, f, dim, 2), one_by_one(f, dim, f, dim, 2), in_fives(f, dim, f, dim, 2);
            std::vector<float> x = test::random_values(100 * dim, 2);
            for (const bool keys : {true, false}) {
                at_once.pack(keys, x, dim, true);
                one_by_one.pack(keys, x, dim, true, 0, 1);
                in_fives.pack(keys, x, dim, true, 0, 5);
            }
            CHECK(test::same_bits(at_once.floats(2), one_by_one.floats(2)));
            CHECK(test::same_bits(at_once.floats(2), in_fives.floats(2)));
            const std::vector<float> behind = at_once.unpack(true, 128, dim, false);
            CHECK(std::all_of(behind.begin() + 100 * dim, behind.end(), [](float v) { return v == 0; }));
        }
    }
}

TEST_CASE("tiles: a row of zeros is one of zeros, and NaN or infinity makes a quantized row NaN") {
    for (const kvlane::Format format : {kvlane::Format::q8, kvlane::Format::q4}) {
        const auto f = static_cast<kvl_format>(format);
        TileMemory memory(f, 64, f, 64, 1);
        std::vector<float> x(3 * 64, 0.0f);
        x[64 + 5] = NAN;
        x[128 + 5] = infinity;
        memory.pack(true, x, 64, false);
        const std::vector<float> got = memory.unpack(true, 3, 64, false);
        CHECK(std::all_of(got.begin(), got.begin() + 64, [](float v) { return v == 0; }));
        CHECK(std::all_of(got.begin() + 64, got.end(), [](float v) { return std::isnan(v); }));
    }
}

namespace {

struct Case {
    kvl_format k_format = KVL_F32;
    kvl_format v_format = KVL_F32;
    int head_dim = 64;
    int v_head_dim = 64;
    int n_rows = 4;
    int len = 200;
    ComputeType type = ComputeType::dequantized;
    float scale = 0.125f;
};

struct Answer {
    std::vector<float> out;
    std::vector<float> m;
    std::vector<float> l;
    double error;  // of out, relative to double precision on the values as stored
};

Answer attend(const Case &c, const std::vector<float> &q, std::vector<float> k, std::vector<float> v) {
    const int n_tiles = (c.len + tile_tokens - 1) / tile_tokens;
    TileMemory memory(c.k_format, c.head_dim, c.v_format, c.v_head_dim, n_tiles);
    memory.pack(true, k, c.head_dim, false);
    memory.pack(false, v, c.v_head_dim, false);
    const kvl_span span{memory.tiles, nullptr, c.len};
    kvl_view view{};
    view.flags = KVL_VIEW_TILES;
    view.n_kv_heads = 1;
    view.head_dim = c.head_dim;
    view.v_head_dim = c.v_head_dim;
    view.k_format = c.k_format;
    view.v_format = c.v_format;
    view.k_token_stride_bytes = memory.layout.bytes;
    view.len = c.len;
    view.spans = &span;
    view.n_spans = 1;
    const int64_t stride = kvlane::partial_stride(c.v_head_dim);
    std::vector<float> o(c.n_rows * stride);
    Answer answer{std::vector<float>(c.n_rows * c.v_head_dim), std::vector<float>(c.n_rows), std::vector<float>(c.n_rows),
                  0};
    const kvlane::Query query{reinterpret_cast<const std::byte *>(q.data()),
                              c.head_dim * static_cast<int64_t>(sizeof(float)), KVL_F32, c.len - 1, c.len};
    const auto scratch = std::make_unique<kvlane::ChunkRows>();
    kernels().attend_chunk({.kernels = &kernels(),
                            .view = &view,
                            .kv_head = 0,
                            .first = 0,
                            .run = 0,
                            .run_first = 0,
                            .n_tokens = c.len,
                            .queries = &query,
                            .n_queries = 1,
                            .group = c.n_rows,
                            .out = {answer.m.data(), answer.l.data(), o.data()},
                            .rotates_q = false,
                            .k_type = c.type,
                            .v_type = c.type == ComputeType::i8 && c.v_format == KVL_Q8 ? ComputeType::i16 : c.type,
                            .scale = c.scale,
                            .softcap = 0,
                            .slopes = nullptr,
                            .position = 0,
                            .window = KVL_MAX_TOKENS,
                            .n_sink_tokens = 0,
                            .mask = nullptr,
                            .first_query = 0,
                            .first_head = 0,
                            .scratch = scratch.get()});
    for (int r = 0; r < c.n_rows; ++r) {
        for (int d = 0; d < c.v_head_dim; ++d) {
            answer.out[r * c.v_head_dim + d] = o[r * stride + d] / answer.l[r];
        }
    }
    const std::vector<float> stored_k = memory.unpack(true, c.len, c.head_dim, false);
    const std::vector<float> stored_v = memory.unpack(false, c.len, c.v_head_dim, false);
    answer.error = relative_error(answer.out, oracle::attend(1, c.n_rows, c.head_dim, c.v_head_dim, c.len, c.scale, q.data(),
                                                             stored_k.data(), stored_v.data())
                                                  .out);
    return answer;
}

Answer attend_random(const Case &c) {
    return attend(c, test::random_values(c.n_rows * c.head_dim, 5), test::random_values(c.len * c.head_dim, 6),
                  test::random_values(c.len * c.v_head_dim, 7));
}

/// What a compute type may add to the error: integers of 16 bits, or of 8, and f32. Weights of q4 have 7 bits and a sign.
double bound_of(const Case &c) {
    const bool is_scaled = test::is_scaled(kvlane::Format{c.k_format}) || test::is_scaled(kvlane::Format{c.v_format});
    return !is_scaled || c.type == ComputeType::dequantized           ? 2e-6
           : c.type == ComputeType::i8 && kernels().has_byte_products ? (c.v_format == KVL_Q4 ? 2.5e-2 : 2e-2)
                                                                      : 2e-4;
}

}  // namespace

TEST_CASE("tiles: attention equals the oracle on the stored values, for every pair of formats and compute type") {
    for (const kvlane::Format k : test::all_formats()) {
        for (const kvlane::Format v : test::all_formats()) {
            for (const ComputeType type : {ComputeType::dequantized, ComputeType::i16, ComputeType::i8}) {
                INFO(std::string(test::name_of(k)));
                INFO(std::string(test::name_of(v)));
                const Case c{.k_format = static_cast<kvl_format>(k), .v_format = static_cast<kvl_format>(v), .type = type};
                CHECK(attend_random(c).error <= bound_of(c));
            }
        }
    }
}

TEST_CASE("tiles: attention equals the oracle for any head_dim, number of rows and length") {
    for (const kvlane::Format format : test::all_formats()) {
        for (const int dim : {1, 5, 32, 80, 128, 300}) {
            for (const int n_rows : {1, 2, 3, 5, 8, 13, 32}) {
                Case c{.head_dim = dim, .v_head_dim = 2 * dim + 1, .n_rows = n_rows, .len = 40 + 5 * n_rows};
                c.k_format = c.v_format = static_cast<kvl_format>(format);
                // 8 bits are stated for head_dims from 8 on.
                c.type = n_rows % 3 == 0              ? ComputeType::dequantized
                         : n_rows % 3 == 1 || dim < 8 ? ComputeType::i16
                                                      : ComputeType::i8;
                c.scale = 1 / std::sqrt(static_cast<float>(dim));
                INFO(std::string(test::name_of(format)));
                CAPTURE(dim);
                CAPTURE(n_rows);
                CHECK(attend_random(c).error <= bound_of(c));
            }
        }
    }
}

TEST_CASE("tiles: a row has the bits that it has alone, whatever rows it is computed with") {
    for (const kvlane::Format format : test::all_formats()) {
        for (const ComputeType type : {ComputeType::dequantized, ComputeType::i16, ComputeType::i8}) {
            Case all{.head_dim = 80, .v_head_dim = 45, .n_rows = 19};
            all.k_format = all.v_format = static_cast<kvl_format>(format);
            all.type = type;
            const std::vector<float> q = test::random_values(all.n_rows * all.head_dim, 5);
            const std::vector<float> k = test::random_values(all.len * all.head_dim, 6);
            const std::vector<float> v = test::random_values(all.len * all.v_head_dim, 7);
            const Answer together = attend(all, q, k, v);
            for (int r = 0; r < all.n_rows; ++r) {
                Case one = all;
                one.n_rows = 1;
                const auto row = q.begin() + r * all.head_dim;
                const Answer alone = attend(one, {row, row + all.head_dim}, k, v);
                CHECK(test::same_bits(alone.out, std::span(together.out).subspan(r * all.v_head_dim, all.v_head_dim)));
                CHECK(alone.l[0] == together.l[r]);
            }
        }
    }
}

TEST_CASE("tiles: the largest weight is 1, for scores of any size") {
    for (const float q : {1.0f, 1e-30f, 1e4f, 1.48852518e9f, 1.48857434e9f, 1e20f, 3e38f}) {
        Case c{.head_dim = 1, .v_head_dim = 1, .n_rows = 1, .len = 1, .scale = 1};
        const Answer answer = attend(c, {q}, {1}, {1});
        CAPTURE(q);
        CHECK(answer.l[0] == 1);
        CHECK(answer.out[0] == 1);
    }
}

TEST_CASE("tiles: one score that is far below the others leaves them right") {
    Case c{.head_dim = 1, .v_head_dim = 1, .n_rows = 1, .len = 17, .scale = 1};
    std::vector<float> k = test::random_values(17, 1), v = test::random_values(17, 2);
    k[4] = -1.64e9f;
    CHECK(attend(c, {1}, k, v).error <= 2e-6);
}
