/* kvlane: decode-time attention on CPUs.  C ABI, C99 and C++.
 *
 * A cache owns the keys and values of one sequence; an attention object computes
 *
 *     out[h] = softmax(scale * q[h] K[h / group]^T) V[h / group]
 *
 * for the newest tokens' queries by reading the cached keys and values in place.
 *
 * Every function that can fail returns a kvl_status; kvl_last_error() then names the argument, its value and what is
 * allowed, and array elements and the views of a chain by their index from 0. A function that fails has changed nothing,
 * except where its comment says otherwise. Every descriptor begins with struct_size, to be set to sizeof its type, and
 * flags, where an unknown bit is an error. Fields that do not apply, given the other fields, are ignored.
 *
 * Pointers must be aligned for their types. Rows of keys and values may lie at any address; packed tiles must be aligned
 * to 64 bytes. The caller must not modify anything that a call reads until the call returns.
 *
 * Floating point: results are specified for the default environment (round to nearest, subnormal numbers kept) on the
 * calling thread and on all threads of the executor. With FTZ or DAZ set, subnormal numbers are treated as 0; the bounds
 * hold for all others. In other rounding modes the error bounds are 100 times larger. The environment must be the same
 * on all threads of a call; otherwise results depend on which thread ran which task.
 *
 * Words: a token is one cached position; a row is the head_dim (keys, queries) or v_head_dim (values, outputs) elements
 * of one head; a tile holds the keys and values of 64 consecutive tokens of one KV head; group = n_query_heads /
 * n_kv_heads query heads read the same KV head. Strides are in bytes.
 */
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

/* Limits of the geometry, and the capacity of a cache that names none. */
#define KVL_MAX_HEAD_DIM 1024
#define KVL_MAX_HEADS 65536
#define KVL_MAX_LAYERS 65536
#define KVL_MAX_TOKENS ((int64_t)1 << 31)
#define KVL_DEFAULT_MAX_TOKENS ((int64_t)131072)
#define KVL_MIN_BLOCK_TOKENS 16
#define KVL_MAX_EXTENT_BYTES ((int64_t)1 << 47) /* upper bound of stride * (n - 1), for n rows */
#define KVL_WORKSPACE_ALIGNMENT 64
#define KVL_MAX_EXECUTOR_CALLS 256       /* calls of a process that run on executors at the same time; others run in place */
#define KVL_MAX_TASKS 65536              /* of a call */
#define KVL_TASK_STACK_BYTES (16 * 1024) /* upper bound of the stack that a task uses */

/* Packed tiles: tokens of one tile, and the alignment of tiles and of the strides between them. */
#define KVL_TILE_TOKENS 64
#define KVL_TILE_ALIGNMENT 64

/* Tokens whose sums are merged as one: those of positions c * KVL_CHUNK_TOKENS to (c + 1) * KVL_CHUNK_TOKENS - 1. */
#define KVL_CHUNK_TOKENS 512

/* Tokens that kvl_cache_truncate can remove without loss from a cache that keeps tokens in f16. */
#define KVL_TRUNCATABLE_TOKENS 64

#ifdef __cplusplus
extern "C" {
#endif

typedef enum kvl_status {
    KVL_OK = 0,
    KVL_ERROR_STRUCT_SIZE,         /* a descriptor's struct_size is not that of its type */
    KVL_ERROR_FLAGS,               /* an unknown flag, one that is missing, or a reserved field that is not 0 */
    KVL_ERROR_NULL,                /* a null pointer */
    KVL_ERROR_RANGE,               /* a count that is out of its range */
    KVL_ERROR_FORMAT,              /* an unknown storage format, or one that a view of rows cannot have */
    KVL_ERROR_HEADS,               /* n_query_heads is not a multiple of n_kv_heads */
    KVL_ERROR_HEAD_DIM,            /* head_dim or v_head_dim is 0 or over KVL_MAX_HEAD_DIM */
    KVL_ERROR_SCALE,               /* scale is not finite */
    KVL_ERROR_LAYER,               /* layer is out of range */
    KVL_ERROR_LENGTH,              /* a buffer's or a sequence's length is wrong */
    KVL_ERROR_CAPACITY,            /* the cache would exceed max_tokens */
    KVL_ERROR_APPEND_TWICE,        /* the layer has pending tokens already */
    KVL_ERROR_LAYER_MISSING,       /* a layer lacks the tokens that advance would commit */
    KVL_ERROR_GEOMETRY,            /* a view does not fit the attention object */
    KVL_ERROR_WORKSPACE_SIZE,      /* the workspace is too small */
    KVL_ERROR_WORKSPACE_ALIGNMENT, /* the workspace is not aligned to KVL_WORKSPACE_ALIGNMENT */
    KVL_ERROR_WORKSPACE_STATE,     /* the workspace holds no call that was begun */
    KVL_ERROR_TASK,                /* a task is out of range, run twice, not run, or still running at finish */
    KVL_ERROR_ISA,                 /* KVLANE_ISA names no instruction set that this CPU can run */
    KVL_ERROR_MEMORY,              /* the system has no memory or address space to give */
    KVL_ERROR_ROTATION,            /* an unknown rotation, or a view that does not state its own */
    KVL_ERROR_RULE,                /* a softcap, slope or sink logit that is out of its range */
    KVL_ERROR_PRECISION,           /* an unknown precision, or one for formats that have none */
    KVL_ERROR_BLOCK,               /* a block's index is out of range */
    KVL_ERROR_STRIDE,              /* a stride of a view or mask is too small, too large for KVL_MAX_EXTENT_BYTES, or not
                                      aligned */
    KVL_ERROR_OVERLAP,             /* an output or the workspace overlaps what else the call reads or writes */
    KVL_ERROR_MASK,                /* a mask is too short, or not aligned */
    KVL_ERROR_ALIGNMENT            /* packed tiles are not aligned to KVL_TILE_ALIGNMENT */
} kvl_status;

/* How a key or value is stored. Rows of the caller's are f32, f16 or bf16. q8 and q4 exist in packed tiles only, see
 * KVL_VIEW_TILES: the layout of a tile is the library's own, and caches and kvl_tiles_write write it.
 *
 * q8: an element is an 8-bit integer from -127 to 127, times the row's scale.
 *
 * q4: an element is a 4-bit code. It selects one of 16 levels, 8-bit integers that are spaced by 14 near 0 and by up to 19
 * at the ends, which suits normally distributed elements. Groups of 32 elements, the last of which may have fewer, have a
 * multiplier from -127 to 127 each:
 *
 *     element = scale * ((level * multiplier + 64) >> 7)
 *
 * The scale of a row is an f32. It is 0, a positive normal number, or NaN, which makes the whole row NaN. */
typedef uint32_t kvl_format;
enum {
    KVL_F32 = 0,  /* IEEE 754 binary32 */
    KVL_F16 = 1,  /* IEEE 754 binary16 */
    KVL_BF16 = 2, /* bfloat16: the upper half of a binary32 */
    KVL_Q8 = 3,   /* 8-bit integers, and a scale for each row */
    KVL_Q4 = 4    /* 4-bit codes, a multiplier for each group of 32 elements, and a scale for each row */
};

/* What rows are multiplied by before they are stored, and queries before they are multiplied by keys: it spreads outliers
 * over all elements, which reduces the error of q8 and q4. Products of queries and keys are unchanged; outputs, and what is
 * read back, are rotated back. */
typedef uint32_t kvl_rotation;
enum {
    KVL_ROTATION_DEFAULT = 0, /* of the format: Hadamard for q4 and for keys of q8, else none */
    KVL_ROTATION_NONE = 1,
    KVL_ROTATION_HADAMARD = 2 /* a Walsh-Hadamard matrix of head_dim, in blocks where that is no power of two */
};

/* What queries and softmax weights are rounded to where they are multiplied by q8 or q4.
 *
 * Exact: nothing; they and the stored integers are multiplied as f32.
 *
 * Fast: integers of 8 bits if the instruction set multiplies bytes (avx2_vnni, avx512_vnni, neon_dotprod, neon_i8mm), both
 * formats are q8 or q4, and the format concerned is q4 or the group has at least 2 query heads; else integers of 16 bits.
 * The format of keys decides for queries, that of values for weights. With 8 bits the output's error is at most 1.5 times
 * that of storing alone. With 16 bits the error is a hundredth of that of storing in q8. */
typedef uint32_t kvl_precision;
enum {
    KVL_PRECISION_DEFAULT = 0, /* fast */
    KVL_PRECISION_EXACT = 1,
    KVL_PRECISION_FAST = 2
};

/* ---- Errors and introspection ------------------------------------------------------------------------------------ */

/// Returns the text of the calling thread's most recent error, or "" where there was none.
/// The text stays good until the thread's next failing call.
KVL_API const char *kvl_last_error(void);

/// Returns the name of a status, "KVL_ERROR_NULL" for example; "unknown status" for a value that is none.
KVL_API const char *kvl_status_name(kvl_status status);

/// Returns the version of the library in force, "major.minor.patch".
KVL_API const char *kvl_version(void);

/// Returns the name of a storage format, "f16" for example, or null for an unknown one.
KVL_API const char *kvl_format_name(kvl_format format);

/// Finds the storage format of that name.
/// Errors: KVL_ERROR_NULL; KVL_ERROR_FORMAT when no format has that name
KVL_API kvl_status kvl_format_from_name(const char *name, kvl_format *format);

/// Returns how many instruction sets (isas) are compiled in. They are numbered from the portable to the widest.
KVL_API uint32_t kvl_n_isas(void);

/// Returns the name of isa i, "avx2" for example, or null when i >= kvl_n_isas().
KVL_API const char *kvl_isa_name(uint32_t i);

/// Returns 1 when this CPU and its operating system can run isa i, 0 when not or when i >= kvl_n_isas().
KVL_API int kvl_isa_supported(uint32_t i);

/// Finds the isa in force: the one that the environment's KVLANE_ISA names, or else the widest supported one.
/// It is chosen once, at the first use in the process; caches and attention objects then use it.
/// Errors: KVL_ERROR_NULL; KVL_ERROR_ISA when KVLANE_ISA names an unknown or unsupported isa
KVL_API kvl_status kvl_isa_in_force(const char **name);

/* ---- Views ------------------------------------------------------------------------------------------------------- */

/// A run of tokens in memory; or, of a view with blocks, the memory of all blocks.
typedef struct kvl_span {
    const void *k;    /* key row of the run's first token, KV head 0, or its first tile; with blocks, of block 0 */
    const void *v;    /* value row of the same token; unused with tiles */
    int64_t n_tokens; /* tokens that the run holds */
} kvl_span;

enum {
    KVL_VIEW_TILES = 1 /* packed tiles, not rows */
};

/// One layer's keys and values as stored: where they lie and in what format. Plain data, owns nothing. Tokens that are
/// stored in different formats need a view for each format, linked by next in order of position. A view's formats equal
/// the attention object's, except that f16 may stand for q8 or q4; all views of a chain have the same rotations. A view
/// that does not begin at a multiple of 64 tokens may change the last bits of a result.
///
/// A view and the one before it may both hold the same tokens, in different formats: the first n_overlap of this view are
/// the last ones of the view before, in the order of their positions. The query at position p, counted from the sequence's
/// first token, reads those at positions less than
///             cut = (p + 1) rounded down to a multiple of 64, less n_recent
/// from the view before, and the others from this one. So the queries of a prompt read what they would if its tokens had
/// been appended one by one.
///
/// Without KVL_VIEW_TILES the keys and values are rows in f32, f16 or bf16, as a caller's own cache may have them; q8 and
/// q4 fail with KVL_ERROR_FORMAT. Spans may hold any number of tokens. Attention packs the rows that it needs into tiles,
/// 64 tokens from the view's start at a time; results have the bits of packed tiles with the same contents.
///
/// With KVL_VIEW_TILES they are packed tiles, as caches store them: a tile is one record of the keys and values of 64
/// tokens of one KV head. Its layout is the library's own and may change with the version. A caller's own tiles are written
/// by kvl_tiles_write, and whole ones may be copied, also from a cache whose layer has the same geometry, formats and
/// rotations; kvl_tile_layout gives their size and strides. Every span that another with visible tokens follows holds a
/// multiple of 64 tokens, and so does every block; else the call fails with KVL_ERROR_LENGTH. The last tile is readable as a
/// whole. What it holds of tokens that are not visible does not affect results.
///
/// If block_tokens is not 0, the view is paged: it has one span, a pool of n_tokens / block_tokens blocks, and token t
/// is token t % block_tokens of block blocks[t / block_tokens]. Results have the bits of the same tokens in one
/// contiguous span.
/// Shape:  rows: the key row of token t of a span and KV head h starts at
///             k + h * k_head_stride_bytes + t * k_token_stride_bytes,
///         with blocks, that of token t of block b at
///             k + b * k_block_stride_bytes + h * k_head_stride_bytes + t * k_token_stride_bytes,
///         and value rows alike with v. Tiles: the tile of token t is at the same address with t / 64 for t:
///         k_token_stride_bytes is the distance from one tile to the next. The strides of v are unused
/// Units:  strides in bytes
/// Pre:    each stride is at least the bytes of a row or tile, and at most KVL_MAX_EXTENT_BYTES / (n - 1), where n is the
///         number of tokens or tiles (of the longest run), heads or blocks (up to the largest index in use) that it
///         separates; where n is 1 it is ignored. Tiles are aligned to KVL_TILE_ALIGNMENT, else the call fails with
///         KVL_ERROR_ALIGNMENT, and so are the strides that separate them, else it fails with KVL_ERROR_STRIDE.
///         Rows of keys and values may be interleaved in memory, and may alias. Both rotations are set explicitly:
///         KVL_ROTATION_DEFAULT fails with KVL_ERROR_ROTATION, because a format does not tell how existing rows were
///         rotated
typedef struct kvl_view {
    size_t struct_size;
    uint32_t flags; /* KVL_VIEW_TILES, or 0: rows */
    uint32_t n_kv_heads;
    uint32_t head_dim;
    uint32_t v_head_dim;
    kvl_format k_format;
    kvl_format v_format;
    int64_t k_token_stride_bytes;
    int64_t k_head_stride_bytes;
    int64_t v_token_stride_bytes;
    int64_t v_head_stride_bytes;
    int64_t len;           /* visible tokens from its first one on, those of next included; len - next->len + next->n_overlap
                              of them are its own, at most the sum of the spans' n_tokens */
    const kvl_span *spans; /* in order of position */
    uint32_t n_spans;
    uint32_t reserved;       /* 0 */
    kvl_rotation k_rotation; /* KVL_ROTATION_NONE or KVL_ROTATION_HADAMARD */
    kvl_rotation v_rotation;
    const struct kvl_view *next; /* the tokens after these, with n_overlap of these; holds 1 or more. null: none */
    const int32_t *blocks;       /* [n_blocks] in order of position, each from 0 on; those after len are not read */
    uint32_t n_blocks;
    uint32_t block_tokens; /* KVL_MIN_BLOCK_TOKENS or more, with tiles a multiple of 64; 0: no blocks, and n_blocks is 0 */
    int64_t k_block_stride_bytes;
    int64_t v_block_stride_bytes;
    int64_t n_overlap; /* 0 to len - next->len; 0 in the first view of a chain */
    int64_t n_recent;  /* 0 to KVL_MAX_TOKENS; ignored where n_overlap is 0 */
} kvl_view;

/* ---- Cache ------------------------------------------------------------------------------------------------------- */

typedef struct kvl_cache kvl_cache;

/// Geometry of one layer's keys and values.
///
/// Where keys or values are q8 or q4, the first tokens and the recent ones may be kept in f16: those that receive most of
/// the attention. Both numbers are rounded up to multiples of 64, whole tiles. New tokens are then stored in f16, and later
/// quantized by whole tiles. The query at position p sees in f16 the first n_first_f16 tokens and, up to its own, those
/// from position
///             (p + 1) rounded down to a multiple of 64, less n_recent_f16
/// on: up to n_recent_f16 + 63 recent tokens. The tokens between are quantized. That depends on p alone: the queries of a
/// prompt that is appended at once, and attended to before kvl_cache_advance, give the bits that they give if its tokens are
/// appended one by one, or in any other pieces. For that, tokens that some pending query sees in f16, and
/// KVL_TRUNCATABLE_TOKENS more, are held in both formats. Elements over 65504 are infinite in f16.
typedef struct kvl_layer_desc {
    size_t struct_size;
    uint32_t flags; /* none are defined */
    uint32_t n_kv_heads;
    uint32_t head_dim;   /* 1 to KVL_MAX_HEAD_DIM */
    uint32_t v_head_dim; /* 0: as head_dim */
    kvl_format k_format;
    kvl_format v_format;
    kvl_rotation k_rotation;
    kvl_rotation v_rotation;
    int64_t n_first_f16;  /* 0 where neither format is q8 or q4 */
    int64_t n_recent_f16; /* and this; 0 and 0: tokens are quantized as they are appended */
} kvl_layer_desc;

enum {
    KVL_CACHE_NO_HUGE_PAGES = 1 /* do not ask the system for huge pages */
};

/// What a cache is made of.
typedef struct kvl_cache_desc {
    size_t struct_size;
    uint32_t flags;               /* KVL_CACHE_... */
    uint32_t n_layers;            /* 1 to KVL_MAX_LAYERS */
    const kvl_layer_desc *layers; /* n_layer_descs geometries */
    uint32_t n_layer_descs;       /* n_layers, or 1: every layer is like the first */
    uint32_t reserved;            /* 0 */
    int64_t max_tokens;           /* capacity; 0: KVL_DEFAULT_MAX_TOKENS */
} kvl_cache_desc;

/// Creates an empty cache. Address space for max_tokens is reserved at once and costs memory only as tokens fill it, so
/// tiles never move. If the process has called mlockall(MCL_FUTURE), the whole reservation is committed here, and
/// KVL_ERROR_MEMORY is returned where it cannot be: set max_tokens no larger than needed then.
/// Pre:    desc and cache not null
/// Errors: KVL_ERROR_STRUCT_SIZE, _FLAGS, _NULL, _RANGE, _FORMAT, _ROTATION, _HEAD_DIM, _ISA; KVL_ERROR_MEMORY when the
///         address space cannot be had
/// Threads: any   Allocates: yes
KVL_API kvl_status kvl_cache_create(const kvl_cache_desc *desc, kvl_cache **cache);

/// Destroys a cache and gives its memory back; null is allowed. Views of it are dead.
KVL_API void kvl_cache_destroy(kvl_cache *cache);

/// Creates a cache with the same geometry, capacity, tokens and pending tokens as the source, in memory of its own.
/// Errors: KVL_ERROR_NULL, KVL_ERROR_MEMORY
/// Threads: any that do not change the source meanwhile   Allocates: yes
KVL_API kvl_status kvl_cache_copy(const kvl_cache *source, kvl_cache **copy);

/// Appends the keys and values of n_tokens new tokens to one layer, where they are pending until kvl_cache_advance: seen
/// by views of this layer, not counted by kvl_cache_len.
/// Shape:  k [n_tokens, n_kv_heads, head_dim] f32; v [n_tokens, n_kv_heads, v_head_dim] f32
/// Units:  k_len and v_len in elements
/// Pre:    k and v do not overlap the cache
/// Errors: KVL_ERROR_NULL; _LAYER; _RANGE when n_tokens < 1; _LENGTH when k_len or v_len is not that of the shape;
///         _APPEND_TWICE when the layer has pending tokens; _CAPACITY when len + n_tokens > max_tokens
/// Bound:  f32, f16 and bf16: rounds to the nearest value of the format, ties to even; NaN stays NaN. For rotated rows the
///         bounds are those of the rotated row. Let M be the row's largest magnitude, and G that of a group of 32
///         elements. q8: the error of an element is at most M / 253. q4: it is at most 0.22 G + M / 100; the relative RMS
///         error of a group of normally distributed elements is about 0.08. A row, or of q4 a group, so small that its
///         scale would be no normal f32 becomes 0; a row with NaN or infinity becomes NaN. Elements over 0.9 of the largest
///         f32, or of that / sqrt(head_dim) where rows are rotated, may come back infinite, or their row NaN
/// Threads:one at a time for a layer, and, where tokens are kept in f16, while no other reads it; different layers may be
///         appended to at once
/// Allocates:no; where huge pages are used, a few appends of a layer wait about a millisecond each for the system to make
///         them of small ones. Memory is committed as it is first written: if the system has none left then, Linux's OOM
///         killer may end the process. kvl_cache_bytes returns what is in use. It is at most the sum over layers of
///         kvl_layer_info.bytes_per_token * max_tokens, plus, in layers that keep some in f16, n_first_f16 + n_recent_f16 +
///         127 tokens and all pending ones in f16. kvl_cache_advance gives the memory of older ones in f16 back to the
///         system, by whole pages. Memory is written by whole tiles, of 64 tokens
KVL_API kvl_status kvl_cache_append(kvl_cache *cache, uint32_t layer, int64_t n_tokens, const float *k, size_t k_len,
                                    const float *v, size_t v_len);

/// Makes the n_tokens pending tokens of every layer part of the cache. Of recent tokens in f16 those are kept that the
/// newest KVL_TRUNCATABLE_TOKENS queries see; older queries that attend from now on see others quantized.
/// Errors: KVL_ERROR_NULL; _RANGE when n_tokens < 1; _LAYER_MISSING when a layer has not exactly n_tokens pending
/// Threads: one, while no other uses the cache   Allocates: no
KVL_API kvl_status kvl_cache_advance(kvl_cache *cache, int64_t n_tokens);

/// Forgets all tokens from position len on, and every pending one. With a len up to KVL_TRUNCATABLE_TOKENS less than the
/// largest since the last clear, the cache is as it was at that length, to the bit. With a smaller one, tokens that are
/// quantized only do not regain their precision: where some tokens are kept in f16 and the new end lies within such a
/// tile, its tokens are kept in f16 again, with their dequantized values. When the tile is quantized once more, they have
/// the same bits as before.
/// Errors: KVL_ERROR_NULL; KVL_ERROR_LENGTH when len < 0 or len > kvl_cache_len
/// Threads: one, while no other uses the cache   Allocates: no
KVL_API kvl_status kvl_cache_truncate(kvl_cache *cache, int64_t len);

/// Forgets all tokens. The memory stays with the cache, for the next sequence, except that of recent tokens in f16.
/// Errors: KVL_ERROR_NULL
/// Threads: one, while no other uses the cache   Allocates: no
KVL_API kvl_status kvl_cache_clear(kvl_cache *cache);

/// Returns how many tokens every layer holds, pending ones not counted; 0 for a null cache. It is empty at 0.
KVL_API int64_t kvl_cache_len(const kvl_cache *cache);

/// Returns the capacity in tokens; 0 for a null cache.
KVL_API int64_t kvl_cache_max_tokens(const kvl_cache *cache);

/// Returns the memory that the tokens of all layers take, pending ones included, each in its formats, of which it may have
/// two, with its share of the tile's padding; 0 for a null cache.
/// Units:  bytes
KVL_API uint64_t kvl_cache_bytes(const kvl_cache *cache);

/// Returns the number of layers; 0 for a null cache.
KVL_API uint32_t kvl_cache_n_layers(const kvl_cache *cache);

/// What one layer is made of and holds.
typedef struct kvl_layer_info {
    size_t struct_size;
    uint32_t flags; /* none are defined */
    uint32_t n_kv_heads;
    uint32_t head_dim;
    uint32_t v_head_dim;
    kvl_format k_format;
    kvl_format v_format;
    uint32_t k_entry_size;    /* elements of one token's keys: n_kv_heads * head_dim */
    uint32_t v_entry_size;    /* elements of one token's values: n_kv_heads * v_head_dim */
    int64_t len;              /* tokens visible to this layer: kvl_cache_len and its pending ones */
    uint64_t bytes_per_token; /* memory that one token takes in k_format and v_format, padding included */
    kvl_rotation k_rotation;  /* in force: not the default */
    kvl_rotation v_rotation;
    int64_t n_first_f16; /* in force: rounded up */
    int64_t n_recent_f16;
} kvl_layer_info;

/// Describes one layer. info->struct_size is set by the caller.
/// Errors: KVL_ERROR_NULL, KVL_ERROR_LAYER, KVL_ERROR_STRUCT_SIZE
KVL_API kvl_status kvl_cache_layer_info(const kvl_cache *cache, uint32_t layer, kvl_layer_info *info);

/// Makes a view of one layer's packed tiles, its pending tokens included. Its pointers stay good as long as the cache lives,
/// or, where first or recent tokens are kept in f16, until the layer's next append, advance or truncate; its len is that of
/// now. After a truncate or clear an older view may cover tokens that no longer exist. Attention to it stays within the
/// cache's memory, and sees removed tokens, zeros, or those appended in their place; or it may fail, with KVL_ERROR_LENGTH
/// or _RANGE. No more is detected: make a new view for every step. view->struct_size is set by the caller.
/// Errors: KVL_ERROR_NULL, KVL_ERROR_LAYER, KVL_ERROR_STRUCT_SIZE
/// Threads: any that do not change this layer meanwhile   Allocates: no
KVL_API kvl_status kvl_cache_view(const kvl_cache *cache, uint32_t layer, kvl_view *view);

/// Decodes the keys of tokens first to first + n_tokens - 1 of one layer, pending ones included.
/// Shape:  out [n_tokens, n_kv_heads, head_dim] f32
/// Units:  out_len in elements
/// Errors: KVL_ERROR_NULL; _LAYER; _RANGE when first or n_tokens is negative or they reach past the layer's len; _LENGTH
///         when out_len is not that of the shape
/// Bound:  exact; for q8 and q4 the product of integer and scale, rounded to f32; for rotated rows with the rounding errors
///         of rotating them back
/// Threads: any that do not change this layer meanwhile   Allocates: no
KVL_API kvl_status kvl_cache_read_k(const kvl_cache *cache, uint32_t layer, int64_t first, int64_t n_tokens, float *out,
                                    size_t out_len);

/// Decodes values, as kvl_cache_read_k does keys.
/// Shape:  out [n_tokens, n_kv_heads, v_head_dim] f32
KVL_API kvl_status kvl_cache_read_v(const kvl_cache *cache, uint32_t layer, int64_t first, int64_t n_tokens, float *out,
                                    size_t out_len);

/* ---- Packed tiles that the caller owns --------------------------------------------------------------------------- */

/// Computes the layout of packed tiles of one layer in memory of the caller's, in blocks of block_tokens tokens each. Sets
/// all fields of the view: the layer's geometry and formats, the rotations in force, the strides, and no tokens. The caller
/// then sets spans, n_spans, blocks, n_blocks and len. Larger strides are allowed. If view->block_tokens is set to 0, the
/// strides fit spans of up to block_tokens tokens.
/// Shape:  a block is [n_kv_heads][block_tokens / KVL_TILE_TOKENS] tiles
/// Units:  bytes: a tile has k_token_stride_bytes, the tiles of a KV head in a block k_head_stride_bytes, a block
///         k_block_stride_bytes, and a pool of n blocks n * k_block_stride_bytes, aligned to KVL_TILE_ALIGNMENT
/// Pre:    layer as in kvl_cache_desc, with n_first_f16 and n_recent_f16 0: tokens in f16 need a view of their own.
///         view->struct_size is set by the caller
/// Errors: KVL_ERROR_NULL, _STRUCT_SIZE, _FLAGS, _FORMAT, _ROTATION, _HEAD_DIM; KVL_ERROR_RANGE, also when block_tokens is 0
///         or not a multiple of KVL_TILE_TOKENS
/// Threads: any   Allocates: no
KVL_API kvl_status kvl_tile_layout(const kvl_layer_desc *layer, uint32_t block_tokens, kvl_view *view);

/// Rotates, quantizes and packs the keys and values of tokens [first, first + n_tokens) of a view into its tiles. Tokens
/// that are written in order leave the tiles with the bits of a cache's.
///
/// A fresh or reused tile need not be cleared: a write that includes the first token of a tile sets the whole tile to zero
/// first. A write that starts at a later token leaves the tile's other tokens as they are, those after it too.
/// Shape:  k [n_tokens, n_kv_heads, head_dim] f32; v [n_tokens, n_kv_heads, v_head_dim] f32
/// Units:  k_len and v_len in elements; first counts from the view's first token
/// Pre:    view is as for attention, with KVL_VIEW_TILES; what its spans point to may be written. Its len counts the tokens
///         that are written here: it is at least first + n_tokens. Tokens of view->next are not the view's own and cannot be
///         written; of view->next only len is read. A tile whose token 0 is not among those written had it written before.
///         No other call reads or writes these tiles meanwhile. The tiles of all visible tokens, with gaps as in
///         kvl_sequence, do not overlap k, v, the view, its spans or its blocks
/// Errors: KVL_ERROR_NULL, _STRUCT_SIZE, _FORMAT, _ROTATION, _HEAD_DIM, _LENGTH, _STRIDE, _BLOCK, _ALIGNMENT, _OVERLAP,
///         _ISA; _FLAGS, also when the view is of rows; _RANGE, also when first or n_tokens is negative or the view has not
///         so many tokens of its own. All before anything is written
/// Bound:  that of kvl_cache_append
/// Threads: any, in different tiles; the calling one does the work   Allocates: no
KVL_API kvl_status kvl_tiles_write(const kvl_view *view, int64_t first, int64_t n_tokens, const float *k, size_t k_len,
                                   const float *v, size_t v_len);

/* ---- Attention --------------------------------------------------------------------------------------------------- */

typedef struct kvl_attention kvl_attention;

/// Geometry and rules of an attention. A descriptor of zeros has no rules.
///
/// A query sees the newest `window` tokens up to its own, that one included, and the first n_sink_tokens; others are not
/// read. A score is
///         s = softcap * tanh(scale * q[h] k[t] / softcap) + alibi_slopes[h] * (t - the query's position)
/// without the softcap or the slope where there is none, and exp(sink_logits[h]) joins the sum of exponentials.
/// Source: G. Xiao et al., "Efficient Streaming Language Models with Attention Sinks" (2023); Gemma Team, "Gemma 2"
///         (2024); O. Press et al., "Train Short, Test Long" (2021); OpenAI, "gpt-oss-120b & gpt-oss-20b Model Card"
///         (2025)
typedef struct kvl_attention_desc {
    size_t struct_size;
    uint32_t flags;         /* none are defined */
    uint32_t n_query_heads; /* a multiple of n_kv_heads */
    uint32_t n_kv_heads;
    uint32_t head_dim;   /* 1 to KVL_MAX_HEAD_DIM */
    uint32_t v_head_dim; /* 0: as head_dim */
    kvl_format k_format;
    kvl_format v_format;
    float scale; /* of the scores; 0: 1 / sqrt(head_dim) */
    kvl_rotation k_rotation;
    kvl_rotation v_rotation;
    int64_t window;            /* 0: all tokens are visible */
    int64_t n_sink_tokens;     /* 0 where there is no window */
    const float *alibi_slopes; /* [n_query_heads], finite, copied; null: none. Distances over 2^24 are rounded */
    const float *sink_logits;  /* [n_query_heads], less than infinity, copied; null: none */
    float softcap;             /* 0: none; else from 1e-38 to 1e38 */
    kvl_precision precision;   /* fast only where both formats are q8 or q4 */
} kvl_attention_desc;

/// Creates an attention object, immutable, that any number of threads may share.
/// Errors: KVL_ERROR_NULL, _STRUCT_SIZE, _FLAGS, _HEADS, _HEAD_DIM, _RANGE, _FORMAT, _ROTATION, _SCALE, _PRECISION,
///         _RULE, _ISA, _MEMORY
/// Threads: any   Allocates: yes
KVL_API kvl_status kvl_attention_create(const kvl_attention_desc *desc, kvl_attention **attention);

/// Destroys an attention object; null is allowed. No call may be using it.
KVL_API void kvl_attention_destroy(kvl_attention *attention);

/// Returns the name of the kernel that this object's calls use, "avx2/f16+bf16/group:4" for example, followed by "/fast"
/// where integers are multiplied as bytes, by "/exact" where they are multiplied as f32; null for null.
KVL_API const char *kvl_attention_kernel(const kvl_attention *attention);

/// Computes the workspace that is enough for every call of up to n_sequences sequences of up to max_len tokens each, with
/// up to max_queries queries each, that up to max_tasks tasks run at once: the executor's n_threads, or 1 without one.
/// Units:  bytes
/// Errors: KVL_ERROR_NULL; KVL_ERROR_RANGE when max_len is negative or over KVL_MAX_TOKENS, max_queries is 0, or max_tasks
///         is 0 or over KVL_MAX_TASKS
/// Bound:  each task needs 0.7 MB, or what it computes in and four partial states of 128 (query, query head) pairs, or of
///         one query's group, where that is more; each sequence 32 bytes for each KVL_CHUNK_TOKENS of max_len, and 8 for
///         each query and head of a group
/// Threads: any   Allocates: no
KVL_API kvl_status kvl_attention_workspace_size(const kvl_attention *attention, uint32_t n_sequences, int64_t max_len,
                                                uint32_t max_queries, uint32_t max_tasks, size_t *bytes);

/// The partial state of queries' attention to some of their tokens, to be merged with that to the others. Of each row
///         m = max over t of s[t],  l = sum over t of exp(s[t] - m),  o = sum over t of exp(s[t] - m) v[t]
/// with scores s by the rules of kvl_attention_desc. Where none of the tokens is visible, m is -infinity and l and o are 0.
/// Sinks' logits are in none of the three: they join in kvl_merge. Plain data, owns nothing, the same on every isa.
/// Shape:  m and l [n_queries, n_query_heads] f32; o [n_queries, n_query_heads, v_head_dim] f32
/// Units:  m in natural log; o in rows rotated as stored values are: kvl_merge rotates the sum back
/// Source: Z. Ye et al., "FlashInfer: Efficient and Customizable Attention Engine for LLM Inference Serving" (2025)
typedef struct kvl_partial {
    float *m;
    float *l;
    float *o;
} kvl_partial;

/// A range of a sequence's positions, whose partial is wanted instead of the output: the share of one of several machines
/// or sockets, that may hold no other tokens. Queries stay where kvl_sequence.len puts them: in the range, behind it or
/// before it. If first or view_first is not a multiple of 64, the merged result may differ in its last bits from that of one
/// call over all tokens.
/// Pre:    out's three overlap nothing else of the call
typedef struct kvl_range {
    size_t struct_size;
    uint32_t flags;     /* none are defined */
    uint32_t reserved;  /* 0 */
    int64_t view_first; /* position of the view's first token */
    int64_t first;      /* the range's positions, first to end - 1, all of which the view holds */
    int64_t end;
    kvl_partial out;
} kvl_range;

/// Restricts the tokens that each query sees, beyond causality and the window: in a tree of draft tokens to its own
/// branch, in a padded batch to the tokens that are not padding. A query sees token t where bit t % 64 of word t / 64 of
/// its row of bits is set; and bias t of its row of biases is added to the token's scores, of every head, after all other
/// rules. A bias of -infinity hides the token as its bit does; any finite bias does not. What is hidden from a query does
/// not affect its output, NaN and infinity included. Rows that are hidden from all queries are not read; of packed tiles,
/// those whose tokens are all hidden from all queries are not read, others are read whole. Where all tokens are hidden from
/// a query, the result is that of an empty sequence: out is 0 and lse is -infinity or the sink's logit. A bias of infinity
/// or NaN that a query sees makes its output NaN.
/// Shape:  bits [n_queries, (n_tokens + 63) / 64], of which bits from n_tokens on are ignored; biases [n_queries,
///         n_tokens]; each by position in the sequence, whatever the range
/// Units:  biases in natural log; strides in bytes
/// Pre:    bits are aligned to 8 bytes, biases to 4. A stride of 0 shares one row among all queries; otherwise it is a
///         multiple of 8 (bits) or 4 (biases), at most KVL_MAX_EXTENT_BYTES / (n_queries - 1). With one query it is
///         ignored
typedef struct kvl_mask {
    size_t struct_size;
    uint32_t flags;       /* none are defined */
    uint32_t reserved;    /* 0 */
    const uint64_t *bits; /* null: all are visible */
    const float *biases;  /* null: none */
    int64_t n_tokens;     /* of every row: at least the sequence's len or, where that is less, its range's end */
    int64_t bits_stride_bytes;
    int64_t biases_stride_bytes;
} kvl_mask;

/// One sequence of a call: what is asked, what is seen, where the answer goes. Query i is that of the token at position
/// len - n_queries + i, its causal offset, and sees tokens up to that one: of a draft to be verified, for example, or of
/// a prompt.
/// Shape:  q [n_queries, n_query_heads, head_dim] f32; out [n_queries, n_query_heads, v_head_dim] f32; lse [n_queries,
///         n_query_heads] f32 or null
/// Units:  lse in natural log: that of the sum of exponentials that out is divided by
/// Pre:    out and lse do not overlap each other, the workspace, any array or descriptor that the call reads, or any keys
///         and values: everything from the first to the last visible row or tile of a span, gaps included; with blocks,
///         from the first to the last row or tile of the blocks in use
typedef struct kvl_sequence {
    size_t struct_size;
    uint32_t flags;     /* none are defined */
    uint32_t n_queries; /* 0: 1; more than 1: at most len */
    const kvl_view *view;
    int64_t len; /* tokens up to the newest, 0 to view->len. 0 is an empty sequence, not the whole view: out is 0 then, and
                    lse is -infinity or the sink's logit */
    const float *q;
    float *out;
    float *lse;
    const kvl_range *range; /* null: all tokens; else out and lse are unused, and len is at most KVL_MAX_TOKENS */
    const kvl_mask *mask;   /* null: none */
} kvl_sequence;

/// Runs task(context, i) once for every i in [0, n_tasks), in any order, on any threads, and returns when all are done;
/// the calling thread may take part. There are at most kvl_executor.n_threads tasks, which divide the call's work among
/// themselves as they run. A task throws nothing, takes no lock and uses at most KVL_TASK_STACK_BYTES of stack.
///
/// If a task is not run, kvl_attend returns KVL_ERROR_TASK. Running a task a second time has no effect. An exception that
/// this function throws propagates out of kvl_attend; the outputs are incomplete then, and the workspace can be used for
/// another call. In every case kvl_attend first waits for the tasks that are running; tasks that are started later do
/// nothing, and access no memory of the call.
/// Threads: must be reentrant if kvl_attend is called on several threads at once, or within a task of the same pool
typedef void (*kvl_parallel_for)(void *pool, uint32_t n_tasks, void (*task)(void *context, uint32_t i), void *context);

/// The caller's threads.
typedef struct kvl_executor {
    kvl_parallel_for parallel_for;
    void *pool;         /* handed to parallel_for */
    uint32_t n_threads; /* that run tasks at the same time, 1 to KVL_MAX_TASKS: a call has no more tasks than that */
} kvl_executor;

/// Computes attention for the newest tokens' queries of each of n_sequences sequences.
///         out[h] = softmax(scale * q[h] K[h / group]^T) V[h / group], with the rules of kvl_attention_desc
/// A common prefix is read once for sequences that follow each other in the array, if they begin with the same memory
/// (spans or blocks), in the first view of a chain. The prefix counts in whole chunks of KVL_CHUNK_TOKENS that no window
/// hides any part of. Sequences with a range, a mask, or more queries than share a read are left out.
/// Shape:  as in kvl_sequence
/// Pre:    workspace is aligned to KVL_WORKSPACE_ALIGNMENT, of at least kvl_attention_workspace_size bytes for as many tasks
///         as the executor has threads, and used by one call at a time. Its contents are lost, a call that was begun in it
///         included, even if this one fails with KVL_ERROR_OVERLAP
/// Errors: KVL_ERROR_NULL, _STRUCT_SIZE, _FLAGS, _GEOMETRY, _FORMAT, _ROTATION, _LENGTH, _STRIDE, _BLOCK, _MASK, _OVERLAP,
///         _WORKSPACE_SIZE, _WORKSPACE_ALIGNMENT, _RANGE (also for an executor's n_threads), all before anything is written;
///         KVL_ERROR_TASK when the executor did not run every task: the outputs may be incomplete then, and the call is over
/// Bound:  relative L2 error against exact arithmetic on the decoded values <= 2e-6 for scores of unit variance and 4096
///         tokens; <= 2e-4 where keys or values are q8 or q4 and multiplied by integers of 16 bits, see kvl_precision. The
///         weight of a row's largest score is exactly 1 before the division by their sum. The relative error of a
///         weight is the absolute error of its score, which grows with the scores: 1e-2 at 1e4. Products that overflow f32
///         give infinity or NaN. Bits, those of a NaN aside, do not depend on the executor, its threads, or the other
///         sequences and queries; they may differ by isa
/// Threads: the executor's. The calling thread runs all tasks if executor is null, or if KVL_MAX_EXECUTOR_CALLS other calls
///         of the process are running on executors
/// Allocates: no
/// Source: M. Milakov, N. Gimelshein, "Online normalizer calculation for softmax" (2018); T. Dao et al., "Flash-Decoding
///         for long-context inference" (2023)
KVL_API kvl_status kvl_attend(const kvl_attention *attention, const kvl_sequence *sequences, uint32_t n_sequences,
                              void *workspace, size_t workspace_bytes, const kvl_executor *executor);

/// Begins a call whose tasks the caller runs: for runtimes whose threads are all inside the operator already.
/// One thread begins; every task in [0, n_tasks) is run exactly once, by any thread, at any time; when all have returned,
/// one thread finishes. The sequences, their views and the attention object must live until then. There are at most
/// max_tasks tasks, one for each thread that is to take part: a task computes what others have not begun, until nothing is
/// left, so that tasks that are run one after another do not share the work.
/// Pre:    as kvl_attend; n_tasks does not overlap anything else that the call uses
/// Errors: as kvl_attend; KVL_ERROR_NULL also when n_tasks is null; KVL_ERROR_RANGE also when max_tasks is 0 or over
///         KVL_MAX_TASKS
KVL_API kvl_status kvl_attend_begin(const kvl_attention *attention, const kvl_sequence *sequences, uint32_t n_sequences,
                                    void *workspace, size_t workspace_bytes, uint32_t max_tasks, uint32_t *n_tasks);

/// Runs one task of the call that was begun in this workspace.
/// Errors: KVL_ERROR_NULL; KVL_ERROR_WORKSPACE_STATE when no call is begun; KVL_ERROR_TASK when task >= n_tasks or was
///         run already
/// Threads: any number at once, with different tasks   Allocates: no
KVL_API kvl_status kvl_attend_run_task(void *workspace, uint32_t task);

/// Ends the call that was begun in this workspace; the outputs are complete.
/// Errors: KVL_ERROR_NULL; KVL_ERROR_WORKSPACE_STATE when no call is begun; KVL_ERROR_TASK when a task was not run or is
///         still running: the call stays open then
KVL_API kvl_status kvl_attend_finish(void *workspace);

/// Merges n_partials partial states of the same n_queries queries, in the order of the array. They come from calls with
/// kvl_sequence.range, on any machine and isa, with an attention object of the same descriptor, or from the caller.
///         out[h] = sum over p of exp(m[p] - M) o[p] / L,  L = exp(sink_logits[h] - M) + sum over p of exp(m[p] - M) l[p]
/// One is merged after another: m' = max(m, m[p]), l' = exp(m - m') l + exp(m[p] - m') l[p], and o alike; one that saw no
/// token changes no bit. Partials of one chunk of KVL_CHUNK_TOKENS positions each, of which the last may hold fewer, in
/// order of position, give the bits of the whole call on the same isa; without sink logits the first one may hold any number
/// of whole chunks. Others agree within kvl_attend's bound.
/// Shape:  partials [n_partials], each of n_queries; out [n_queries, n_query_heads, v_head_dim] f32; lse [n_queries,
///         n_query_heads] f32 or null
/// Units:  lse in natural log: M + log(L). Where every l is 0, out is 0 and lse -infinity or the sink's logit
/// Pre:    no token is in two partials
/// Errors: KVL_ERROR_NULL; KVL_ERROR_RANGE when n_partials or n_queries is 0; KVL_ERROR_OVERLAP when out and lse overlap
///         each other, a partial or the array partials; before anything is written
/// Threads: the calling one   Allocates: no
KVL_API kvl_status kvl_merge(const kvl_attention *attention, const kvl_partial *partials, uint32_t n_partials,
                             uint32_t n_queries, float *out, float *lse);

/// Computes the bytes of the keys and values that a call's queries see. Each row counts once, with its scales and without
/// padding. Values that are what the keys begin with (MLA) do not count again, and the memory of masks does not count. A
/// call may read more: stored tiles are read whole, and a chunk is read again, then mostly from caches, for every 32 rows of
/// queries and heads, fewer where head_dim is over 288.
/// Errors: as kvl_attend for sequences, except KVL_ERROR_OVERLAP: no output is written, so overlaps are not looked for
KVL_API kvl_status kvl_attend_bytes(const kvl_attention *attention, const kvl_sequence *sequences, uint32_t n_sequences,
                                    uint64_t *bytes);

#ifdef __cplusplus
}
#endif

#endif
