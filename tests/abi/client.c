/* A program that uses every descriptor of version 0.1.0, compiled with the header KVLANE_HEADER: that of 0.1.0, today's, or
 * a later one (KVLANE_LATER), in which every descriptor has one field more. Prints the bits of its results, which are the
 * same for all three. */

#include KVLANE_HEADER

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { n_tokens = 600, n_kv_heads = 2, group = 2, n_heads = n_kv_heads * group, dim = 32, n_queries = 2 };

static float keys[n_tokens * n_kv_heads * dim], values[n_tokens * n_kv_heads * dim], queries[n_queries * n_heads * dim];

static void check(kvl_status status, const char *what) {
    if (status != KVL_OK) {
        printf("%s: %s\n", what, kvl_last_error());
        exit(1);
    }
}

static void print(const char *what, const void *floats, size_t n) {
    uint32_t hash = 2166136261u;
    const unsigned char *bytes = floats;
    for (size_t i = 0; i < n * sizeof(float); ++i) {
        hash = (hash ^ bytes[i]) * 16777619u;
    }
    printf("%s %08x\n", what, (unsigned)hash);
}

static void fill(float *x, size_t n, uint32_t seed) {
    for (size_t i = 0; i < n; ++i) {
        seed = seed * 1664525u + 1013904223u;
        x[i] = (float)(int32_t)seed / 2147483648.0f;
    }
}

static kvl_cache *make_cache(void) {
    const kvl_layer_desc layers[2] = {{.struct_size = sizeof layers[0],
                                       .n_kv_heads = n_kv_heads,
                                       .head_dim = dim,
                                       .k_format = KVL_Q8,
                                       .v_format = KVL_Q8,
                                       .n_recent_f16 = 64},
                                      {.struct_size = sizeof layers[0],
                                       .n_kv_heads = n_kv_heads,
                                       .head_dim = dim,
                                       .k_format = KVL_F16,
                                       .v_format = KVL_BF16}};
    const kvl_cache_desc desc = {
        .struct_size = sizeof desc, .n_layers = 2, .layers = layers, .n_layer_descs = 2, .max_tokens = n_tokens};
    kvl_cache *cache = NULL;
    check(kvl_cache_create(&desc, &cache), "create");
    for (uint32_t layer = 0; layer < 2; ++layer) {
        const size_t n = sizeof keys / sizeof *keys;
        check(kvl_cache_append(cache, layer, n_tokens, keys, n, values, n), "append");
    }
    check(kvl_cache_advance(cache, n_tokens), "advance");
    return cache;
}

static kvl_attention *make_attention(const kvl_cache *cache, uint32_t layer) {
    kvl_layer_info info = {.struct_size = sizeof info};
    check(kvl_cache_layer_info(cache, layer, &info), "info");
    printf("layer of %u heads, %d tokens, %d bytes a token\n", (unsigned)info.n_kv_heads, (int)info.len,
           (int)info.bytes_per_token);
    const kvl_attention_desc desc = {.struct_size = sizeof desc,
                                     .n_query_heads = n_heads,
                                     .n_kv_heads = info.n_kv_heads,
                                     .head_dim = info.head_dim,
                                     .k_format = info.k_format,
                                     .v_format = info.v_format,
                                     .softcap = 20};
    kvl_attention *attention = NULL;
    check(kvl_attention_create(&desc, &attention), "attention");
    return attention;
}

/* Two sequences in one call, one with a mask; then one with a range, whose partial is merged. */
static void attend(const kvl_cache *cache, uint32_t layer) {
    kvl_attention *attention = make_attention(cache, layer);
    static float out[2][n_queries * n_heads * dim], lse[2][n_queries * n_heads], m[n_queries * n_heads],
        l[n_queries * n_heads], o[n_queries * n_heads * dim];
    uint64_t bits[(n_tokens + 63) / 64];
    memset(bits, 0x5a, sizeof bits);
    kvl_view view = {.struct_size = sizeof view};
    check(kvl_cache_view(cache, layer, &view), "view");
    const kvl_mask mask = {.struct_size = sizeof mask, .bits = bits, .n_tokens = n_tokens};
    const kvl_range range = {.struct_size = sizeof range, .first = 64, .end = 512, .out = {m, l, o}};
    kvl_sequence sequences[2] = {{.struct_size = sizeof sequences[0],
                                  .n_queries = n_queries,
                                  .view = &view,
                                  .len = n_tokens,
                                  .q = queries,
                                  .out = out[0],
                                  .lse = lse[0]},
                                 {.struct_size = sizeof sequences[0],
                                  .n_queries = n_queries,
                                  .view = &view,
                                  .len = n_tokens - 50,
                                  .q = queries,
                                  .out = out[1],
                                  .lse = lse[1],
                                  .mask = &mask}};
    size_t size = 0;
    check(kvl_attention_workspace_size(attention, 2, n_tokens, n_queries, 1, &size), "workspace");
    char *const memory = malloc(size + KVL_WORKSPACE_ALIGNMENT);
    void *const workspace =
        (void *)(((uintptr_t)memory + KVL_WORKSPACE_ALIGNMENT - 1) / KVL_WORKSPACE_ALIGNMENT * KVL_WORKSPACE_ALIGNMENT);
    check(kvl_attend(attention, sequences, 2, workspace, size, NULL), "attend");
    print("out", out, sizeof out / sizeof(float));
    print("lse", lse, sizeof lse / sizeof(float));
    sequences[0].range = &range;
    check(kvl_attend(attention, sequences, 1, workspace, size, NULL), "attend to a range");
    check(kvl_merge(attention, &range.out, 1, n_queries, out[0], lse[0]), "merge");
    print("merged", out, sizeof out / sizeof(float));
#ifdef KVLANE_LATER
    sequences[0].later = 1;
    if (kvl_attend(attention, sequences, 1, workspace, size, NULL) != KVL_ERROR_STRUCT_SIZE ||
        strstr(kvl_last_error(), "sequences[0]: the byte at offset") == NULL) {
        printf("a later field in use: %s\n", kvl_last_error());
        exit(1);
    }
#endif
    free(memory);
    kvl_attention_destroy(attention);
}

static void write_tiles(void) {
    const kvl_layer_desc layer = {
        .struct_size = sizeof layer, .n_kv_heads = n_kv_heads, .head_dim = dim, .k_format = KVL_Q4, .v_format = KVL_Q8};
    kvl_view view = {.struct_size = sizeof view};
    check(kvl_tile_layout(&layer, KVL_TILE_TOKENS, &view), "layout");
    printf("a block of %d bytes\n", (int)view.k_block_stride_bytes);
}

int main(void) {
    fill(keys, sizeof keys / sizeof *keys, 1);
    fill(values, sizeof values / sizeof *values, 2);
    fill(queries, sizeof queries / sizeof *queries, 3);
    kvl_cache *cache = make_cache();
    attend(cache, 0);
    attend(cache, 1);
    write_tiles();
    kvl_cache_destroy(cache);
    return 0;
}
