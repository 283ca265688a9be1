// An attention object: its descriptor, checked.

#include "attention.hpp"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <new>

#include "../descriptor.hpp"
#include "../registry.hpp"

using namespace kvlane;

namespace {

kvl_status check_each(const float *values, uint32_t n, bool (*is_allowed)(float), const char *name, const char *allowed) {
    for (uint32_t i = 0; values && i < n; ++i) {
        if (!is_allowed(values[i])) {
            return fail(KVL_ERROR_RULE, "%s[%u] is %g; it must be %s", name, i, values[i], allowed);
        }
    }
    return KVL_OK;
}

kvl_status check_rules(const kvl_attention_desc &desc) {
    KVLANE_TRY(check_range(desc.window, 0, KVL_MAX_TOKENS, "window"));
    KVLANE_TRY(check_range(desc.n_sink_tokens, 0, desc.window == 0 ? 0 : KVL_MAX_TOKENS,
                           desc.window == 0 ? "n_sink_tokens, without a window," : "n_sink_tokens"));
    if (!(desc.softcap == 0 || (desc.softcap >= 1e-38f && desc.softcap <= 1e38f))) {
        return fail(KVL_ERROR_RULE, "softcap is %g; it must be 0, or from 1e-38 to 1e38", desc.softcap);
    }
    KVLANE_TRY(check_each(
        desc.alibi_slopes, desc.n_query_heads, [](float slope) { return std::isfinite(slope * KVL_MAX_TOKENS); },
        "alibi_slopes", "finite, times KVL_MAX_TOKENS too"));
    return check_each(
        desc.sink_logits, desc.n_query_heads, [](float logit) { return logit < INFINITY; }, "sink_logits",
        "less than infinity");
}

kvl_status check_precision(const kvl_attention_desc &desc) {
    if (desc.precision > KVL_PRECISION_FAST) {
        return fail(KVL_ERROR_PRECISION, "precision is %u; it must be KVL_PRECISION_DEFAULT, _EXACT or _FAST, 0 to %d",
                    desc.precision, KVL_PRECISION_FAST);
    }
    return desc.precision != KVL_PRECISION_FAST || (format::is_scaled(desc.k_format) && format::is_scaled(desc.v_format))
               ? KVL_OK
               : fail(KVL_ERROR_PRECISION,
                      "precision is KVL_PRECISION_FAST; it must be another unless both formats are q8 or q4");
}

// The compute type of a format's keys or values: integers of 8 bits where both are integers, the isa multiplies bytes, and
// what this rounds costs less than storing does: not for weights of q8, nor for keys of q8 that a single query head meets,
// which wait for memory anyway. By groups, not rows: bits must not depend on what else is read for.
ComputeType compute_type_of(const KernelTable &kernels, const kvl_attention_desc &desc, kvl_format format,
                            bool pays_for_q8) {
    const bool all_integers = format::is_scaled(desc.k_format) && format::is_scaled(desc.v_format);
    return desc.precision == KVL_PRECISION_EXACT ? ComputeType::dequantized
           : all_integers && kernels.has_byte_products && (pays_for_q8 || format == format::index_q4) ? ComputeType::i8
                                                                                                      : ComputeType::i16;
}

// Of the compute types in force, where there is a choice.
const char *precision_name(const kvl_attention &a) {
    return !format::is_scaled(a.k_format) && !format::is_scaled(a.v_format) ? ""
           : a.k_type == ComputeType::dequantized                           ? "/exact"
           : a.k_type == ComputeType::i8 || a.v_type == ComputeType::i8     ? "/fast"
                                                                            : "";
}

// Null for null. Throws where there is no memory.
std::unique_ptr<float[]> copy_of(const float *values, uint32_t n) {
    if (!values) {
        return nullptr;
    }
    auto copy = std::make_unique<float[]>(n);
    std::copy_n(values, n, copy.get());
    return copy;
}

}  // namespace

kvl_status kvl_attention_create(const kvl_attention_desc *described, kvl_attention **attention) {
    KVLANE_TRY(check_not_null(attention, "attention"));
    KVLANE_TRY(check_desc(described, 0, "desc"));
    const kvl_attention_desc desc = read_desc(*described);
    KVLANE_TRY(check_range(desc.n_kv_heads, 1, KVL_MAX_HEADS, "n_kv_heads"));
    KVLANE_TRY(check_range(desc.n_query_heads, 1, KVL_MAX_HEADS, "n_query_heads"));
    if (desc.n_query_heads % desc.n_kv_heads != 0) {
        return fail(KVL_ERROR_HEADS, "n_query_heads is %u; it must be a multiple of n_kv_heads, %u", desc.n_query_heads,
                    desc.n_kv_heads);
    }
    const uint32_t v_head_dim = desc.v_head_dim ? desc.v_head_dim : desc.head_dim;
    KVLANE_TRY(check_head_dim(desc.head_dim, "head_dim"));
    KVLANE_TRY(check_head_dim(v_head_dim, "v_head_dim"));
    KVLANE_TRY(check_format(desc.k_format, "k_format"));
    KVLANE_TRY(check_format(desc.v_format, "v_format"));
    KVLANE_TRY(check_rotation(desc.k_rotation, "k_rotation"));
    KVLANE_TRY(check_rotation(desc.v_rotation, "v_rotation"));
    KVLANE_TRY(check_precision(desc));
    KVLANE_TRY(check_rules(desc));
    const float scale = desc.scale != 0 ? desc.scale : 1 / std::sqrt(static_cast<float>(desc.head_dim));
    if (!std::isfinite(scale)) {
        return fail(KVL_ERROR_SCALE, "scale is %g; it must be finite, or 0 for 1 / sqrt(head_dim)", desc.scale);
    }
    const KernelTable *kernels;
    KVLANE_TRY(kernels_in_force(kernels));
    const uint32_t group = desc.n_query_heads / desc.n_kv_heads;
    std::unique_ptr<kvl_attention> made;
    try {
        made.reset(new kvl_attention{.kernels = kernels,
                                     .n_query_heads = desc.n_query_heads,
                                     .n_kv_heads = desc.n_kv_heads,
                                     .group = group,
                                     .head_dim = desc.head_dim,
                                     .v_head_dim = v_head_dim,
                                     .k_format = desc.k_format,
                                     .v_format = desc.v_format,
                                     .k_rotation = format::rotation_of(desc.k_rotation, desc.k_format, true),
                                     .v_rotation = format::rotation_of(desc.v_rotation, desc.v_format, false),
                                     .k_type = compute_type_of(*kernels, desc, desc.k_format, group > 1),
                                     .v_type = compute_type_of(*kernels, desc, desc.v_format, false),
                                     .scale = scale,
                                     .window = desc.window,
                                     .n_sink_tokens = desc.n_sink_tokens,
                                     .block_queries = std::max(1u, block_rows / group),
                                     .softcap = desc.softcap,
                                     .slopes = copy_of(desc.alibi_slopes, desc.n_query_heads),
                                     .sink_logits = copy_of(desc.sink_logits, desc.n_query_heads),
                                     .kernel_name = {}});
    } catch (const std::bad_alloc &) {
        return fail(KVL_ERROR_MEMORY, "no memory for an attention object of %u query heads", desc.n_query_heads);
    }
    std::snprintf(made->kernel_name, sizeof made->kernel_name, "%s/%s+%s/group:%u%s", kernels->name,
                  format::names[desc.k_format], format::names[desc.v_format], made->group, precision_name(*made));
    *attention = made.release();
    return KVL_OK;
}

void kvl_attention_destroy(kvl_attention *attention) { delete attention; }

const char *kvl_attention_kernel(const kvl_attention *attention) { return attention ? attention->kernel_name : nullptr; }
