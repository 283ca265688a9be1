#pragma once

#include "kernel_table.hpp"

// What kvl_attention_create makes of its descriptor: immutable, shared by threads.
struct kvl_attention {
    const kvlane::KernelTable *kernels;
    kvlane::ReadPlan read_plan;
    uint32_t n_query_heads;
    uint32_t n_kv_heads;
    uint32_t group;
    uint32_t head_dim;
    uint32_t v_head_dim;
    kvl_format k_format;
    kvl_format v_format;
    kvl_rotation k_rotation;  // in force
    kvl_rotation v_rotation;
    float log2_scale;  // of raw scores, into units of log2
    char kernel_name[64];
};
