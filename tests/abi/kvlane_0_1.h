/* The declarations of version 0.1.0: kvlane.h without comments. Programs that were compiled with them keep working. */
#ifndef KVLANE_KVLANE_H
#define KVLANE_KVLANE_H

#include <stddef.h>
#include <stdint.h>

#if defined(__GNUC__)
#define KVL_API __attribute__((visibility("default")))
#else
#define KVL_API
#endif

#define KVL_VERSION_MAJOR 0
#define KVL_VERSION_MINOR 1
#define KVL_VERSION_PATCH 0

#define KVL_MAX_HEAD_DIM 1024
#define KVL_MAX_HEADS 65536
#define KVL_MAX_LAYERS 65536
#define KVL_MAX_TOKENS ((int64_t)1 << 31)
#define KVL_DEFAULT_MAX_TOKENS ((int64_t)131072)
#define KVL_MIN_BLOCK_TOKENS 16
#define KVL_MAX_EXTENT_BYTES ((int64_t)1 << 47)
#define KVL_WORKSPACE_ALIGNMENT 64
#define KVL_MAX_EXECUTOR_CALLS 256
#define KVL_MAX_TASKS 65536
#define KVL_TASK_STACK_BYTES (16 * 1024)

#define KVL_TILE_TOKENS 64
#define KVL_TILE_ALIGNMENT 64

#define KVL_CHUNK_TOKENS 512

#define KVL_TRUNCATABLE_TOKENS 64

#ifdef __cplusplus
extern "C" {
#endif

typedef enum kvl_status {
    KVL_OK = 0,
    KVL_ERROR_STRUCT_SIZE,
    KVL_ERROR_FLAGS,
    KVL_ERROR_NULL,
    KVL_ERROR_RANGE,
    KVL_ERROR_FORMAT,
    KVL_ERROR_HEADS,
    KVL_ERROR_HEAD_DIM,
    KVL_ERROR_SCALE,
    KVL_ERROR_LAYER,
    KVL_ERROR_LENGTH,
    KVL_ERROR_CAPACITY,
    KVL_ERROR_APPEND_TWICE,
    KVL_ERROR_LAYER_MISSING,
    KVL_ERROR_GEOMETRY,
    KVL_ERROR_WORKSPACE_SIZE,
    KVL_ERROR_WORKSPACE_ALIGNMENT,
    KVL_ERROR_WORKSPACE_STATE,
    KVL_ERROR_TASK,
    KVL_ERROR_ISA,
    KVL_ERROR_MEMORY,
    KVL_ERROR_ROTATION,
    KVL_ERROR_RULE,
    KVL_ERROR_PRECISION,
    KVL_ERROR_BLOCK,
    KVL_ERROR_STRIDE,
    KVL_ERROR_OVERLAP,
    KVL_ERROR_MASK,
    KVL_ERROR_ALIGNMENT
} kvl_status;

typedef uint32_t kvl_format;
enum { KVL_F32 = 0, KVL_F16 = 1, KVL_BF16 = 2, KVL_Q8 = 3, KVL_Q4 = 4 };

typedef uint32_t kvl_rotation;
enum { KVL_ROTATION_DEFAULT = 0, KVL_ROTATION_NONE = 1, KVL_ROTATION_HADAMARD = 2 };

typedef uint32_t kvl_precision;
enum { KVL_PRECISION_DEFAULT = 0, KVL_PRECISION_EXACT = 1, KVL_PRECISION_FAST = 2 };

KVL_API const char *kvl_last_error(void);

KVL_API const char *kvl_status_name(kvl_status status);

KVL_API const char *kvl_version(void);

KVL_API const char *kvl_format_name(kvl_format format);

KVL_API kvl_status kvl_format_from_name(const char *name, kvl_format *format);

KVL_API uint32_t kvl_n_isas(void);

KVL_API const char *kvl_isa_name(uint32_t i);

KVL_API int kvl_isa_supported(uint32_t i);

KVL_API kvl_status kvl_isa_in_force(const char **name);

typedef struct kvl_span {
    const void *k;
    const void *v;
    int64_t n_tokens;
} kvl_span;

enum { KVL_VIEW_TILES = 1 };

typedef struct kvl_view {
    size_t struct_size;
    uint32_t flags;
    uint32_t n_kv_heads;
    uint32_t head_dim;
    uint32_t v_head_dim;
    kvl_format k_format;
    kvl_format v_format;
    int64_t k_token_stride_bytes;
    int64_t k_head_stride_bytes;
    int64_t v_token_stride_bytes;
    int64_t v_head_stride_bytes;
    int64_t len;
    const kvl_span *spans;
    uint32_t n_spans;
    uint32_t reserved;
    kvl_rotation k_rotation;
    kvl_rotation v_rotation;
    const struct kvl_view *next;
    const int32_t *blocks;
    uint32_t n_blocks;
    uint32_t block_tokens;
    int64_t k_block_stride_bytes;
    int64_t v_block_stride_bytes;
    int64_t n_overlap;
    int64_t n_recent;
} kvl_view;

typedef struct kvl_cache kvl_cache;

typedef struct kvl_layer_desc {
    size_t struct_size;
    uint32_t flags;
    uint32_t n_kv_heads;
    uint32_t head_dim;
    uint32_t v_head_dim;
    kvl_format k_format;
    kvl_format v_format;
    kvl_rotation k_rotation;
    kvl_rotation v_rotation;
    int64_t n_first_f16;
    int64_t n_recent_f16;
} kvl_layer_desc;

enum { KVL_CACHE_NO_HUGE_PAGES = 1 };

typedef struct kvl_cache_desc {
    size_t struct_size;
    uint32_t flags;
    uint32_t n_layers;
    const kvl_layer_desc *layers;
    uint32_t n_layer_descs;
    uint32_t reserved;
    int64_t max_tokens;
} kvl_cache_desc;

KVL_API kvl_status kvl_cache_create(const kvl_cache_desc *desc, kvl_cache **cache);

KVL_API void kvl_cache_destroy(kvl_cache *cache);

KVL_API kvl_status kvl_cache_copy(const kvl_cache *source, kvl_cache **copy);

KVL_API kvl_status kvl_cache_append(kvl_cache *cache, uint32_t layer, int64_t n_tokens, const float *k, size_t k_len,
                                    const float *v, size_t v_len);

KVL_API kvl_status kvl_cache_advance(kvl_cache *cache, int64_t n_tokens);

KVL_API kvl_status kvl_cache_truncate(kvl_cache *cache, int64_t len);

KVL_API kvl_status kvl_cache_clear(kvl_cache *cache);

KVL_API int64_t kvl_cache_len(const kvl_cache *cache);

KVL_API int64_t kvl_cache_max_tokens(const kvl_cache *cache);

KVL_API uint64_t kvl_cache_bytes(const kvl_cache *cache);

KVL_API uint32_t kvl_cache_n_layers(const kvl_cache *cache);

typedef struct kvl_layer_info {
    size_t struct_size;
    uint32_t flags;
    uint32_t n_kv_heads;
    uint32_t head_dim;
    uint32_t v_head_dim;
    kvl_format k_format;
    kvl_format v_format;
    uint32_t k_entry_size;
    uint32_t v_entry_size;
    int64_t len;
    uint64_t bytes_per_token;
    kvl_rotation k_rotation;
    kvl_rotation v_rotation;
    int64_t n_first_f16;
    int64_t n_recent_f16;
} kvl_layer_info;

KVL_API kvl_status kvl_cache_layer_info(const kvl_cache *cache, uint32_t layer, kvl_layer_info *info);

KVL_API kvl_status kvl_cache_view(const kvl_cache *cache, uint32_t layer, kvl_view *view);

KVL_API kvl_status kvl_cache_read_k(const kvl_cache *cache, uint32_t layer, int64_t first, int64_t n_tokens, float *out,
                                    size_t out_len);

KVL_API kvl_status kvl_cache_read_v(const kvl_cache *cache, uint32_t layer, int64_t first, int64_t n_tokens, float *out,
                                    size_t out_len);

KVL_API kvl_status kvl_tile_layout(const kvl_layer_desc *layer, uint32_t block_tokens, kvl_view *view);

KVL_API kvl_status kvl_tiles_write(const kvl_view *view, int64_t first, int64_t n_tokens, const float *k, size_t k_len,
                                   const float *v, size_t v_len);

typedef struct kvl_attention kvl_attention;

typedef struct kvl_attention_desc {
    size_t struct_size;
    uint32_t flags;
    uint32_t n_query_heads;
    uint32_t n_kv_heads;
    uint32_t head_dim;
    uint32_t v_head_dim;
    kvl_format k_format;
    kvl_format v_format;
    float scale;
    kvl_rotation k_rotation;
    kvl_rotation v_rotation;
    int64_t window;
    int64_t n_sink_tokens;
    const float *alibi_slopes;
    const float *sink_logits;
    float softcap;
    kvl_precision precision;
} kvl_attention_desc;

KVL_API kvl_status kvl_attention_create(const kvl_attention_desc *desc, kvl_attention **attention);

KVL_API void kvl_attention_destroy(kvl_attention *attention);

KVL_API const char *kvl_attention_kernel(const kvl_attention *attention);

KVL_API kvl_status kvl_attention_workspace_size(const kvl_attention *attention, uint32_t n_sequences, int64_t max_len,
                                                uint32_t max_queries, uint32_t max_tasks, size_t *bytes);

typedef struct kvl_partial {
    float *m;
    float *l;
    float *o;
} kvl_partial;

typedef struct kvl_range {
    size_t struct_size;
    uint32_t flags;
    uint32_t reserved;
    int64_t view_first;
    int64_t first;
    int64_t end;
    kvl_partial out;
} kvl_range;

typedef struct kvl_mask {
    size_t struct_size;
    uint32_t flags;
    uint32_t reserved;
    const uint64_t *bits;
    const float *biases;
    int64_t n_tokens;
    int64_t bits_stride_bytes;
    int64_t biases_stride_bytes;
} kvl_mask;

typedef struct kvl_sequence {
    size_t struct_size;
    uint32_t flags;
    uint32_t n_queries;
    const kvl_view *view;
    int64_t len;
    const float *q;
    float *out;
    float *lse;
    const kvl_range *range;
    const kvl_mask *mask;
} kvl_sequence;

typedef void (*kvl_parallel_for)(void *pool, uint32_t n_tasks, void (*task)(void *context, uint32_t i), void *context);

typedef struct kvl_executor {
    kvl_parallel_for parallel_for;
    void *pool;
    uint32_t n_threads;
} kvl_executor;

KVL_API kvl_status kvl_attend(const kvl_attention *attention, const kvl_sequence *sequences, uint32_t n_sequences,
                              void *workspace, size_t workspace_bytes, const kvl_executor *executor);

KVL_API kvl_status kvl_attend_begin(const kvl_attention *attention, const kvl_sequence *sequences, uint32_t n_sequences,
                                    void *workspace, size_t workspace_bytes, uint32_t max_tasks, uint32_t *n_tasks);

KVL_API kvl_status kvl_attend_run_task(void *workspace, uint32_t task);

KVL_API kvl_status kvl_attend_finish(void *workspace);

KVL_API kvl_status kvl_merge(const kvl_attention *attention, const kvl_partial *partials, uint32_t n_partials,
                             uint32_t n_queries, float *out, float *lse);

KVL_API kvl_status kvl_attend_bytes(const kvl_attention *attention, const kvl_sequence *sequences, uint32_t n_sequences,
                                    uint64_t *bytes);

#ifdef __cplusplus
}
#endif

#endif
