/* The C ABI as a C11 program sees it: only kvlane.h, no C++. Returns the number of failed checks. */

#include <kvlane/kvlane.h>

#if defined(_OPENMP)
#include <kvlane/openmp.h>
#endif

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int n_failed;

#define CHECK(condition)                                                                              \
    do {                                                                                              \
        if (!(condition)) {                                                                           \
            fprintf(stderr, "%s:%d: %s: \"%s\"\n", __FILE__, __LINE__, #condition, kvl_last_error()); \
            ++n_failed;                                                                               \
        }                                                                                             \
    } while (0)

/* The first multiple of 64 in memory of 64 bytes more than are needed. */
static void *aligned(void *memory) { return (void *)(((uintptr_t)memory + 63) / 64 * 64); }

enum { n_layers = 2, n_tokens = 3, n_kv_heads = 2, group = 2, dim = 8, entry = n_kv_heads * dim, n_out = group * entry };

static kvl_cache *make_cache(void) {
    kvl_layer_desc layer = kvl_layer_desc_init();
    kvl_cache_desc desc = kvl_cache_desc_init();
    layer.n_kv_heads = n_kv_heads;
    layer.head_dim = dim;
    layer.k_format = layer.v_format = KVL_F32;
    desc.n_layers = n_layers;
    desc.layers = &layer;
    desc.n_layer_descs = 1;
    desc.max_tokens = n_tokens;
    kvl_cache *cache = NULL;
    CHECK(kvl_cache_create(&desc, &cache) == KVL_OK);
    return cache;
}

/* Every key is alike, so that every token weighs the same; values are the token's number. */
static void fill(kvl_cache *cache) {
    float k[entry], v[entry];
    for (int token = 0; token < n_tokens; ++token) {
        for (int i = 0; i < entry; ++i) {
            k[i] = 1;
            v[i] = (float)token;
        }
        for (uint32_t layer = 0; layer < n_layers; ++layer) {
            CHECK(kvl_cache_append(cache, layer, 1, k, entry, v, entry) == KVL_OK);
        }
        CHECK(kvl_cache_advance(cache, 1) == KVL_OK);
    }
    CHECK(kvl_cache_len(cache) == n_tokens);
    CHECK(kvl_cache_append(cache, 0, 1, k, entry, v, entry) == KVL_ERROR_CAPACITY);
    CHECK(strstr(kvl_last_error(), "n_tokens is 1") != NULL);
}

static void check_reading(const kvl_cache *cache) {
    float v[n_tokens * entry];
    kvl_layer_info info = kvl_layer_info_init();
    CHECK(kvl_cache_layer_info(cache, 1, &info) == KVL_OK);
    CHECK(info.k_entry_size == entry && info.len == n_tokens);
    CHECK(kvl_cache_read_v(cache, 1, 0, n_tokens, v, n_tokens * entry) == KVL_OK);
    for (int i = 0; i < n_tokens * entry; ++i) {
        CHECK(v[i] == (float)(i / entry));
    }
    CHECK(kvl_cache_read_v(cache, n_layers, 0, 1, v, entry) == KVL_ERROR_LAYER);
}

static void check_output(const float *out, const float *lse, float scale) {
    for (int i = 0; i < n_out; ++i) {
        CHECK(fabsf(out[i] - 1) < 1e-6f); /* the mean of 0, 1 and 2 */
    }
    for (int h = 0; h < n_kv_heads * group; ++h) {
        CHECK(fabsf(lse[h] - (scale * dim + logf(n_tokens))) < 1e-5f);
    }
}

static void check_attention(const kvl_cache *cache) {
    const float scale = 0.5f;
    kvl_attention_desc desc = kvl_attention_desc_init();
    kvl_attention *attention = NULL;
    kvl_view view = kvl_view_init();
    float q[n_out], out[n_out] = {0}, lse[n_kv_heads * group] = {0};
    size_t bytes = 0;
    uint64_t kv_bytes = 0;
    uint32_t n_tasks = 0;
    for (int i = 0; i < n_out; ++i) {
        q[i] = 1;
    }
    CHECK(kvl_attention_desc_from_cache(cache, 1, n_kv_heads * group, &desc) == KVL_OK);
    CHECK(desc.n_kv_heads == n_kv_heads && desc.v_head_dim == dim && desc.k_rotation == KVL_ROTATION_NONE);
    desc.scale = scale;
    CHECK(kvl_attention_create(&desc, &attention) == KVL_OK);
    CHECK(kvl_attention_kernel(attention) != NULL);
    CHECK(kvl_attention_workspace_size(attention, 1, n_tokens, 1, 2, &bytes) == KVL_OK);
    void *const memory = malloc(bytes + KVL_WORKSPACE_ALIGNMENT), *const workspace = aligned(memory);
    CHECK(kvl_cache_view(cache, 1, &view) == KVL_OK);
    CHECK(view.flags == KVL_VIEW_TILES && view.len == n_tokens);
    kvl_sequence sequence = kvl_sequence_init();
    sequence.view = &view;
    sequence.len = view.len;
    sequence.q = q;
    sequence.out = out;
    sequence.lse = lse;

    CHECK(kvl_attend(attention, &sequence, 1, workspace, bytes, NULL) == KVL_OK);
    check_output(out, lse, scale);
    memset(out, 0, sizeof out);
    CHECK(kvl_attend_begin(attention, &sequence, 1, workspace, bytes, 2, &n_tasks) == KVL_OK);
    for (uint32_t task = 0; task < n_tasks; ++task) {
        CHECK(kvl_attend_run_task(workspace, task) == KVL_OK);
    }
    CHECK(kvl_attend_finish(workspace) == KVL_OK);
    check_output(out, lse, scale);
    CHECK(kvl_attend_finish(workspace) == KVL_ERROR_WORKSPACE_STATE);
#if defined(_OPENMP)
    const kvl_executor executor = kvl_openmp_executor(2);
    memset(out, 0, sizeof out);
    CHECK(executor.n_threads >= 1 && executor.n_threads <= 2);
    CHECK(kvl_attend(attention, &sequence, 1, workspace, bytes, &executor) == KVL_OK);
    check_output(out, lse, scale);
#endif
    CHECK(kvl_attend_bytes(attention, &sequence, 1, &kv_bytes) == KVL_OK);
    CHECK(kv_bytes == (uint64_t)n_tokens * 2 * entry * sizeof(float));
    free(memory);
    kvl_attention_destroy(attention);
}

/* A tile of the caller's, which is filled by one write. */
static void check_tiles(void) {
    kvl_layer_desc layer = kvl_layer_desc_init();
    kvl_view view = kvl_view_init();
    float rows[n_tokens * entry] = {0};
    const int32_t block = 0;
    layer.n_kv_heads = n_kv_heads;
    layer.head_dim = dim;
    layer.k_format = KVL_Q8;
    layer.v_format = KVL_Q4;
    CHECK(kvl_tile_layout(&layer, KVL_TILE_TOKENS, &view) == KVL_OK);
    CHECK(view.k_rotation == KVL_ROTATION_HADAMARD && view.v_head_dim == dim);
    void *const memory = malloc((size_t)view.k_block_stride_bytes + KVL_TILE_ALIGNMENT), *const pool = aligned(memory);
    const kvl_span span = {.k = pool, .n_tokens = KVL_TILE_TOKENS};
    view.spans = &span;
    view.n_spans = 1;
    view.blocks = &block;
    view.n_blocks = 1;
    view.len = n_tokens;
    CHECK(kvl_tiles_write(&view, 0, n_tokens, rows, n_tokens * entry, rows, n_tokens * entry) == KVL_OK);
    CHECK(kvl_tiles_write(&view, 1, n_tokens, rows, n_tokens * entry, rows, n_tokens * entry) == KVL_ERROR_RANGE);
    free(memory);
}

static void check_introspection(void) {
    const char *isa = NULL;
    kvl_format format = 99;
    CHECK(kvl_isa_in_force(&isa) == KVL_OK && isa != NULL);
    CHECK(kvl_format_from_name("bf16", &format) == KVL_OK && format == KVL_BF16);
    CHECK(strcmp(kvl_status_name(KVL_ERROR_NULL), "KVL_ERROR_NULL") == 0);
    CHECK(kvl_cache_create(NULL, NULL) == KVL_ERROR_NULL);
}

int main(void) {
    check_introspection();
    kvl_cache *cache = make_cache();
    fill(cache);
    check_reading(cache);
    check_attention(cache);
    check_tiles();
    CHECK(kvl_cache_clear(cache) == KVL_OK && kvl_cache_len(cache) == 0);
    kvl_cache_destroy(cache);
    return n_failed;
}
