#include "kv_cache.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>
#include <new>

#include "../kernels/attention/validate.hpp"
#include "../kernels/descriptor.hpp"
#include "../kernels/registry.hpp"
#include "../kernels/tiles.hpp"
#include "numa.hpp"

using namespace kvlane;

namespace {

// Floats are kept as they are.
kvl_status check_window(const kvl_layer_desc &layer, int64_t n_tokens, const char *name) {
    if (n_tokens != 0 && !format::is_scaled(layer.k_format) && !format::is_scaled(layer.v_format)) {
        return fail(KVL_ERROR_RANGE, "%s is %" PRId64 "; it must be 0 where neither keys nor values are q8 or q4", name,
                    n_tokens);
    }
    return check_range(n_tokens, 0, KVL_MAX_TOKENS, name);
}

kvl_status check_k_offset(const kvl_layer_desc &layer) {
    for (size_t i = 0; layer.k_offset && i < size_t{layer.n_kv_heads} * layer.head_dim; ++i) {
        if (!std::isfinite(layer.k_offset[i])) {
            return fail(KVL_ERROR_RULE, "k_offset[%zu] is %g; it must be finite", i, layer.k_offset[i]);
        }
    }
    if (!(layer.flags & KVL_LAYER_ESTIMATE_K_OFFSET)) {
        return KVL_OK;
    }
    if (layer.k_offset || !format::is_scaled(layer.k_format) || (layer.n_first_f16 == 0 && layer.n_recent_f16 == 0)) {
        return fail(
            KVL_ERROR_FLAGS,
            "flags has KVL_LAYER_ESTIMATE_K_OFFSET; this needs keys in q8 or q4, n_first_f16 or n_recent_f16 over 0, "
            "and no k_offset");
    }
    return KVL_OK;
}

kvl_status check_numa_nodes(const kvl_layer_desc &layer) {
    if (!layer.numa_nodes) {
        return KVL_OK;
    }
    const NumaNodes nodes = numa_nodes();
    if (nodes.error != 0) {
        return fail(KVL_ERROR_NUMA, "numa_nodes is set; get_mempolicy does not tell this process its nodes: %s",
                    std::strerror(nodes.error));
    }
    for (uint32_t head = 0; head < layer.n_kv_heads; ++head) {
        const int32_t node = layer.numa_nodes[head];
        if (node != -1 && !nodes.has(node)) {
            return fail(KVL_ERROR_RANGE,
                        "numa_nodes[%u] is %" PRId32 "; it must be -1 or a node whose memory this process may use: %s", head,
                        node, NumaNodesText(nodes).text);
        }
    }
    return KVL_OK;
}

kvl_status check_layer_desc(const kvl_layer_desc &layer) {
    KVLANE_TRY(check_layer_shape(layer));
    KVLANE_TRY(check_window(layer, layer.n_first_f16, "n_first_f16"));
    KVLANE_TRY(check_window(layer, layer.n_recent_f16, "n_recent_f16"));
    KVLANE_TRY(check_k_offset(layer));
    return check_numa_nodes(layer);
}

DescArray<kvl_layer_desc> layers_of(const kvl_cache_desc &desc) { return {desc.layers, desc.n_layer_descs}; }

// desc: of this version.
kvl_status check_cache_desc(const kvl_cache_desc &desc) {
    KVLANE_TRY_IN(check_reserved(desc.reserved), "desc: ");
    KVLANE_TRY(check_range(desc.n_layers, 1, KVL_MAX_LAYERS, "n_layers"));
    KVLANE_TRY(check_range(desc.max_tokens, 0, KVL_MAX_TOKENS, "max_tokens"));
    KVLANE_TRY(check_not_null(desc.layers, "layers"));
    if (desc.n_layer_descs != 1 && desc.n_layer_descs != desc.n_layers) {
        return fail(KVL_ERROR_RANGE, "n_layer_descs is %u; it must be 1 or n_layers, %u", desc.n_layer_descs, desc.n_layers);
    }
    for (uint32_t i = 0; i < desc.n_layer_descs; ++i) {
        KVLANE_TRY_IN(layers_of(desc).check(i, KVL_LAYER_ESTIMATE_K_OFFSET), "layers[%u]: ", i);
        KVLANE_TRY_IN(check_layer_desc(layers_of(desc)[i]), "layers[%u]: ", i);
    }
    return KVL_OK;
}

kvl_status check_layer(const kvl_cache *cache, uint32_t layer) {
    KVLANE_TRY(check_not_null(cache, "cache"));
    const uint32_t n_layers = cache->storage.n_layers();
    return layer < n_layers ? KVL_OK
                            : fail(KVL_ERROR_LAYER, "layer is %u; the cache has layers 0 to %u", layer, n_layers - 1);
}

// Nothing escapes: an exception for want of memory becomes a status, here and in copy_of.
kvl_status create(const kvl_cache_desc &desc, std::unique_ptr<kvl_cache> &cache) try {
    const KernelTable *kernels;
    KVLANE_TRY(kernels_in_force(kernels));
    std::vector<kvl_layer_desc> layers;
    for (uint32_t i = 0; i < desc.n_layers; ++i) {
        layers.push_back(without_defaults(layers_of(desc)[desc.n_layer_descs == 1 ? 0 : i]));
    }
    const int64_t max_tokens = desc.max_tokens ? desc.max_tokens : KVL_DEFAULT_MAX_TOKENS;
    cache = std::make_unique<kvl_cache>();
    cache->pending.assign(layers.size(), 0);
    return cache->storage.create(*kernels, layers, max_tokens, !(desc.flags & KVL_CACHE_NO_HUGE_PAGES));
} catch (const std::bad_alloc &) {
    return fail(KVL_ERROR_MEMORY, "no memory for the descriptions of %u layers", desc.n_layers);
}

kvl_status copy_of(const kvl_cache &source, std::unique_ptr<kvl_cache> &copy) try {
    copy = std::make_unique<kvl_cache>();
    copy->len = source.len;
    copy->pending = source.pending;
    KVLANE_TRY(copy->storage.create_like(source.storage));
    for (uint32_t layer = 0; layer < source.storage.n_layers(); ++layer) {
        copy->storage.copy_tokens(source.storage, layer);
    }
    return KVL_OK;
} catch (const std::bad_alloc &) {
    return fail(KVL_ERROR_MEMORY, "no memory for the descriptions of %u layers", source.storage.n_layers());
}

// What the two readers check.
kvl_status check_read(const kvl_cache *cache, uint32_t layer, int64_t first, int64_t n_tokens, const float *out) {
    KVLANE_TRY(check_layer(cache, layer));
    const int64_t len = cache->visible(layer);
    KVLANE_TRY(check_range(first, 0, len, "first"));
    KVLANE_TRY(check_range(n_tokens, 0, len - first, "n_tokens"));
    return n_tokens == 0 ? KVL_OK : check_not_null(out, "out");
}

// Appends validated rows, if the layer and the cache take them.
kvl_status append(kvl_cache &cache, uint32_t layer, int64_t n_tokens, const StridedRows &k, const StridedRows &v) {
    if (cache.pending[layer] != 0) {
        return fail(KVL_ERROR_APPEND_TWICE, "layer %u has %" PRId64 " pending tokens; advance before the next append to it",
                    layer, cache.pending[layer]);
    }
    const int64_t max_tokens = cache.storage.max_tokens();
    if (n_tokens > max_tokens - cache.len) {
        return fail(KVL_ERROR_CAPACITY, "n_tokens is %" PRId64 "; the cache holds %" PRId64 " of at most %" PRId64 " tokens",
                    n_tokens, cache.len, max_tokens);
    }
    cache.storage.write(layer, cache.len, n_tokens, k, v);
    cache.pending[layer] = n_tokens;
    return KVL_OK;
}

}  // namespace

kvl_status kvl_cache_create(const kvl_cache_desc *desc, kvl_cache **cache) {
    KVLANE_TRY(check_not_null(cache, "cache"));
    KVLANE_TRY(check_desc(desc, KVL_CACHE_NO_HUGE_PAGES, "desc"));
    const kvl_cache_desc whole = read_desc(*desc);
    KVLANE_TRY(check_cache_desc(whole));
    std::unique_ptr<kvl_cache> made;
    KVLANE_TRY(create(whole, made));
    *cache = made.release();
    return KVL_OK;
}

void kvl_cache_destroy(kvl_cache *cache) { delete cache; }

kvl_status kvl_cache_copy(const kvl_cache *source, kvl_cache **copy) {
    KVLANE_TRY(check_not_null(source, "source"));
    KVLANE_TRY(check_not_null(copy, "copy"));
    std::unique_ptr<kvl_cache> made;
    KVLANE_TRY(copy_of(*source, made));
    *copy = made.release();
    return KVL_OK;
}

kvl_status kvl_cache_append(kvl_cache *cache, uint32_t layer, int64_t n_tokens, const float *k, size_t k_len, const float *v,
                            size_t v_len) {
    KVLANE_TRY(check_layer(cache, layer));
    KVLANE_TRY(check_range(n_tokens, 1, KVL_MAX_TOKENS, "n_tokens"));
    KVLANE_TRY(check_not_null(k, "k"));
    KVLANE_TRY(check_not_null(v, "v"));
    const kvl_layer_desc &desc = cache->storage.desc(layer);
    KVLANE_TRY(check_len(k_len, n_tokens, desc.n_kv_heads, desc.head_dim, "k_len"));
    KVLANE_TRY(check_len(v_len, n_tokens, desc.n_kv_heads, desc.v_head_dim, "v_len"));
    return append(*cache, layer, n_tokens, consecutive_rows(k, desc.head_dim, desc.n_kv_heads),
                  consecutive_rows(v, desc.v_head_dim, desc.n_kv_heads));
}

kvl_status kvl_cache_append_rows(kvl_cache *cache, uint32_t layer, const kvl_rows *rows) {
    KVLANE_TRY(check_layer(cache, layer));
    KVLANE_TRY(check_desc(rows, 0, "rows"));
    const kvl_rows from = read_desc(*rows);
    const kvl_layer_desc &desc = cache->storage.desc(layer);
    KVLANE_TRY_IN(check_range(from.n_tokens, 1, KVL_MAX_TOKENS, "n_tokens"), "rows: ");
    KVLANE_TRY_IN(check_token_rows(from, desc.n_kv_heads, desc.head_dim, desc.v_head_dim), "rows: ");
    return append(*cache, layer, from.n_tokens, k_rows(from, desc.n_kv_heads, desc.head_dim),
                  v_rows(from, desc.n_kv_heads, desc.v_head_dim));
}

kvl_status kvl_cache_commit(kvl_cache *cache, uint32_t layer, uint32_t first_kv_head, uint32_t n_kv_heads,
                            int64_t n_tokens) {
    KVLANE_TRY(check_layer(cache, layer));
    const uint32_t n_heads = cache->storage.desc(layer).n_kv_heads;
    KVLANE_TRY(check_range(first_kv_head, 0, n_heads, "first_kv_head"));
    KVLANE_TRY(check_range(n_kv_heads, 0, n_heads - first_kv_head, "n_kv_heads"));
    KVLANE_TRY(check_range(n_tokens, 0, cache->storage.max_tokens(), "n_tokens"));
    cache->storage.commit(layer, first_kv_head, n_kv_heads, n_tokens);
    return KVL_OK;
}

kvl_status kvl_cache_advance(kvl_cache *cache, int64_t n_tokens) {
    KVLANE_TRY(check_not_null(cache, "cache"));
    KVLANE_TRY(check_range(n_tokens, 1, KVL_MAX_TOKENS, "n_tokens"));
    for (uint32_t layer = 0; layer < cache->storage.n_layers(); ++layer) {
        if (cache->pending[layer] != n_tokens) {
            return fail(KVL_ERROR_LAYER_MISSING, "n_tokens is %" PRId64 "; layer %u has %" PRId64 " pending tokens",
                        n_tokens, layer, cache->pending[layer]);
        }
    }
    for (uint32_t layer = 0; layer < cache->storage.n_layers(); ++layer) {
        cache->storage.advance(layer);
    }
    std::fill(cache->pending.begin(), cache->pending.end(), 0);
    cache->len += n_tokens;
    return KVL_OK;
}

kvl_status kvl_cache_truncate(kvl_cache *cache, int64_t len) {
    KVLANE_TRY(check_not_null(cache, "cache"));
    if (len < 0 || len > cache->len) {
        return fail(KVL_ERROR_LENGTH, "len is %" PRId64 "; it must be from 0 to the cache's %" PRId64, len, cache->len);
    }
    for (uint32_t layer = 0; layer < cache->storage.n_layers(); ++layer) {
        cache->storage.truncate(layer, len);
    }
    std::fill(cache->pending.begin(), cache->pending.end(), 0);
    cache->len = len;
    return KVL_OK;
}

kvl_status kvl_cache_clear(kvl_cache *cache) { return kvl_cache_truncate(cache, 0); }

int64_t kvl_cache_len(const kvl_cache *cache) { return cache ? cache->len : 0; }

int64_t kvl_cache_max_tokens(const kvl_cache *cache) { return cache ? cache->storage.max_tokens() : 0; }

uint64_t kvl_cache_bytes(const kvl_cache *cache) {
    uint64_t bytes = 0;
    for (uint32_t layer = 0; layer < kvl_cache_n_layers(cache); ++layer) {
        bytes += static_cast<uint64_t>(cache->storage.bytes(layer));
    }
    return bytes;
}

uint32_t kvl_cache_n_layers(const kvl_cache *cache) { return cache ? cache->storage.n_layers() : 0; }

kvl_status kvl_cache_layer_info(const kvl_cache *cache, uint32_t layer, kvl_layer_info *info) {
    KVLANE_TRY(check_layer(cache, layer));
    KVLANE_TRY(check_not_null(info, "info"));
    const kvl_layer_desc &desc = cache->storage.desc(layer);
    const kvl_layer_info whole{.struct_size = sizeof whole,
                               .flags = 0,
                               .n_kv_heads = desc.n_kv_heads,
                               .head_dim = desc.head_dim,
                               .v_head_dim = desc.v_head_dim,
                               .k_format = desc.k_format,
                               .v_format = desc.v_format,
                               .k_entry_size = desc.n_kv_heads * desc.head_dim,
                               .v_entry_size = desc.n_kv_heads * desc.v_head_dim,
                               .len = cache->visible(layer),
                               .bytes_per_token = static_cast<uint64_t>(cache->storage.bytes_per_token(layer)),
                               .k_rotation = desc.k_rotation,
                               .v_rotation = desc.v_rotation,
                               .n_first_f16 = desc.n_first_f16,
                               .n_recent_f16 = desc.n_recent_f16};
    KVLANE_TRY_IN(write_desc(whole, info), "info: ");
    return KVL_OK;
}

kvl_status kvl_cache_view(const kvl_cache *cache, uint32_t layer, kvl_view *view) {
    KVLANE_TRY(check_layer(cache, layer));
    KVLANE_TRY(check_not_null(view, "view"));
    const kvl_view &first = cache->storage.view(layer);
    for (const kvl_view *next = first.next; next; next = next->next) {
        KVLANE_TRY_IN(check_later_fields(next, std::max(view->struct_size, least_struct_size<kvl_view>), next->struct_size,
                                         "the caller"),
                      "view: in the chain: ");
    }
    KVLANE_TRY_IN(write_whole_desc(first, view), "view: ");
    return KVL_OK;
}

kvl_status kvl_cache_read_k(const kvl_cache *cache, uint32_t layer, int64_t first, int64_t n_tokens, float *out,
                            size_t out_len) {
    KVLANE_TRY(check_read(cache, layer, first, n_tokens, out));
    const kvl_layer_desc &desc = cache->storage.desc(layer);
    KVLANE_TRY(check_len(out_len, n_tokens, desc.n_kv_heads, desc.head_dim, "out_len"));
    if (n_tokens > 0) {
        cache->storage.read(true, layer, first, n_tokens, out);
    }
    return KVL_OK;
}

kvl_status kvl_cache_read_v(const kvl_cache *cache, uint32_t layer, int64_t first, int64_t n_tokens, float *out,
                            size_t out_len) {
    KVLANE_TRY(check_read(cache, layer, first, n_tokens, out));
    const kvl_layer_desc &desc = cache->storage.desc(layer);
    KVLANE_TRY(check_len(out_len, n_tokens, desc.n_kv_heads, desc.v_head_dim, "out_len"));
    if (n_tokens > 0) {
        cache->storage.read(false, layer, first, n_tokens, out);
    }
    return KVL_OK;
}

kvl_status kvl_attention_desc_from_cache(const kvl_cache *cache, uint32_t layer, uint32_t n_query_heads,
                                         kvl_attention_desc *desc) {
    KVLANE_TRY(check_layer(cache, layer));
    KVLANE_TRY(check_not_null(desc, "desc"));
    const kvl_layer_desc &of = cache->storage.desc(layer);
    kvl_attention_desc whole = kvl_attention_desc_init();
    whole.n_query_heads = n_query_heads;
    whole.n_kv_heads = of.n_kv_heads;
    whole.head_dim = of.head_dim;
    whole.v_head_dim = of.v_head_dim;
    whole.k_format = of.k_format;
    whole.v_format = of.v_format;
    whole.k_rotation = of.k_rotation;
    whole.v_rotation = of.v_rotation;
    KVLANE_TRY_IN(write_desc(whole, desc), "desc: ");
    return KVL_OK;
}
