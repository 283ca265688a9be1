#pragma once

#include <memory>

#include "../kernel_table.hpp"

namespace kvlane {

// Maximum (query, query head) pairs per work item: enough that arithmetic takes longer than loading the chunk once.
inline constexpr uint32_t block_rows = 128;

}  // namespace kvlane

// The validated descriptor of kvl_attention_create with defaults resolved: immutable, shared by threads.
struct kvl_attention {
    const kvlane::KernelTable *kernels;
    uint32_t n_query_heads;
    uint32_t n_kv_heads;
    uint32_t group;
    uint32_t head_dim;
    uint32_t v_head_dim;
    kvl_format k_format;
    kvl_format v_format;
    kvl_rotation k_rotation;  // in force
    kvl_rotation v_rotation;
    kvlane::ComputeType k_type;  // as in AttendChunk
    kvlane::ComputeType v_type;
    float scale;
    int64_t window;  // 0: all
    int64_t n_sink_tokens;
    uint32_t block_queries;  // maximum per work item
    float softcap;
    std::unique_ptr<float[]> slopes;       // [n_query_heads] or null
    std::unique_ptr<float[]> sink_logits;  // [n_query_heads] or null
    char kernel_name[64];
};
