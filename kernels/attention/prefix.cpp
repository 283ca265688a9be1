#include "prefix.hpp"

#include <algorithm>
#include <cstring>

#include "../kernel_table.hpp"
#include "../planes.hpp"
#include "visible.hpp"

namespace kvlane {
namespace {

bool have_same_offset(const kvl_view &a, const kvl_view &b) {
    const float *const of_a = k_offset_of(a, 0), *const of_b = k_offset_of(b, 0);
    return of_a == of_b || (of_a && of_b && std::memcmp(of_a, of_b, size_t{a.n_kv_heads} * a.head_dim * sizeof(float)) == 0);
}

}  // namespace

int64_t common_tokens(const Sequence &of_a, const Sequence &of_b) {
    const kvl_view &a = *of_a.view, &b = *of_b.view;
    if (a.n_kv_heads != b.n_kv_heads || of_a.first_kv_head != of_b.first_kv_head || a.k_format != b.k_format ||
        a.v_format != b.v_format || has_tiles(a) != has_tiles(b) || !have_same_offset(a, b)) {
        return 0;
    }
    const int64_t most = std::min(tokens_before_next(a), tokens_before_next(b));
    int64_t n_tokens = 0;
    for (uint32_t i = 0; n_tokens < most; ++i) {
        const Run run_of_a = run_at(a, i), run_of_b = run_at(b, i);
        const int64_t n = std::min({run_of_a.n_tokens, run_of_b.n_tokens, most - n_tokens});
        bool is_same = true;
        for_each_plane(a, [&](const ViewPlane &plane) { is_same &= same_rows(a, run_of_a, plane, b, run_of_b, plane, n); });
        if (n > 0 && !is_same) {
            break;
        }
        n_tokens += n;
        if (run_of_a.n_tokens != run_of_b.n_tokens) {
            break;
        }
    }
    return n_tokens;
}

int64_t sharable_tokens(const kvl_attention &a, const Sequence &s) {
    const int64_t last = s.position(s.n_queries - 1);
    const bool is_whole = !s.range && !s.mask && (a.window == 0 || last + 1 - a.window <= a.n_sink_tokens);
    return is_whole && s.n_queries <= a.block_queries ? visible_end(a, s, s.position(0)) : 0;
}

}  // namespace kvlane
