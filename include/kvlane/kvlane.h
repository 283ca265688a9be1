/* kvlane: decode-time attention on CPUs.  C ABI, C99 and C++.
 *
 * A cache owns the keys and values of one sequence; an attention object computes
 *
 *     out[h] = softmax(scale * q[h] K[h / group]^T) V[h / group]
 *
 * for any number of queries per sequence by reading the cached keys and values in place.
 *
 * Every function that can fail returns a kvl_status. For an invalid argument, kvl_last_error() names the argument, its value
 * and the allowed values; for other failures, the cause. Array elements and the views of a chain are identified by
 * zero-based index. A function that fails has changed nothing, except where its comment says otherwise. Fields that do not
 * apply, given the other fields, are ignored; an unknown bit in flags is an error.
 *
 * Versions: a descriptor begins with struct_size, the size of its type in the version that its caller was compiled with;
 * kvl_view_init() and its like set it, and all other fields to 0. A later version only appends fields, and 0 in such a field
 * selects the earlier behaviour. Fields that an earlier descriptor lacks are read as 0. A later one, of up to
 * KVL_MAX_STRUCT_SIZE bytes, is accepted if all bytes after the known fields are 0; otherwise the call fails with
 * KVL_ERROR_STRUCT_SIZE, and kvl_last_error() gives the offset of the first nonzero byte. The elements of an array are
 * struct_size bytes apart and have equal struct_size. Functions that fill in a descriptor write at most struct_size bytes;
 * kvl_cache_view and kvl_tile_layout fail with KVL_ERROR_STRUCT_SIZE if a nonzero field does not fit.
 *
 * Pointers must be aligned for their types. Rows of keys and values may lie at any address; packed tiles must be aligned
 * to 64 bytes. The caller must not modify anything that a call reads until it returns or, if it was begun by
 * kvl_attend_begin or kvl_attend_begin_planned, until kvl_attend_finish returns.
 *
 * Floating point: results are specified for the default environment (round to nearest, subnormal numbers kept) on the
 * calling thread and on all threads of the executor. With FTZ or DAZ set, subnormal numbers are treated as 0; the bounds
 * hold for all other numbers. In other rounding modes the error bounds are 100 times larger. The environment must be the
 * same on all threads of a call; otherwise results depend on the assignment of tasks to threads.
 *
 * Terms: a token is one cached position; a row is the head_dim (keys, queries) or v_head_dim (values, outputs) elements
 * of one token and head; a query row is one (query, query head) pair; a tile holds the keys and values of 64 consecutive
 * tokens of one KV head; group = n_query_heads / n_kv_heads query heads read the same KV head. Strides are in bytes.
 */
#ifndef KVLANE_KVLANE_H
#define KVLANE_KVLANE_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#ifndef KVL_API
#define KVL_API /* the library's build exports the functions that have it */
#endif

/* ---- Constants --------------------------------------------------------------------------------------------------- */

#define KVL_VERSION_MAJOR 0 /* major version of this header, see kvl_version() for the library */
#define KVL_VERSION_MINOR 3 /* minor version of this header */
#define KVL_VERSION_PATCH 0 /* patch version of this header */

#define KVL_MAX_HEAD_DIM 1024                    /* largest head_dim and v_head_dim */
#define KVL_MAX_HEADS 65536                      /* largest number of query heads or KV heads */
#define KVL_MAX_LAYERS 65536                     /* per cache */
#define KVL_MAX_TOKENS ((int64_t)1 << 31)        /* per sequence */
#define KVL_DEFAULT_MAX_TOKENS ((int64_t)131072) /* default capacity of a cache */
#define KVL_MIN_BLOCK_TOKENS 16                  /* smallest block of a paged view */
#define KVL_MAX_EXTENT_BYTES ((int64_t)1 << 47)  /* upper bound of stride * (n - 1), for n rows, tiles, heads or blocks */
#define KVL_MAX_STRUCT_SIZE 4096                 /* largest struct_size of a descriptor */
#define KVL_WORKSPACE_ALIGNMENT 64               /* bytes */
#define KVL_MAX_EXECUTOR_CALLS 256       /* concurrent calls per process on executors; others run on the calling thread */
#define KVL_MAX_TASKS 65536              /* per call */
#define KVL_TASK_STACK_BYTES (16 * 1024) /* upper bound on a task's stack use */

#define KVL_TILE_TOKENS 64    /* tokens per packed tile */
#define KVL_TILE_ALIGNMENT 64 /* bytes, of packed tiles and of the strides between them */

/* Tokens per chunk, the unit of merging: chunk c holds positions c * KVL_CHUNK_TOKENS to (c + 1) * KVL_CHUNK_TOKENS - 1. */
#define KVL_CHUNK_TOKENS 512

/* In a cache that keeps tokens in f16, kvl_cache_truncate is lossless down to this many tokens below the largest length
 * since the last clear. */
#define KVL_TRUNCATABLE_TOKENS 64

#ifdef __cplusplus
extern "C" {
#endif

/// The result of a call that can fail.
typedef enum kvl_status {
    KVL_OK = 0,                    /* no error */
    KVL_ERROR_STRUCT_SIZE,         /* struct_size is that of no version, or fields of a later version are in use */
    KVL_ERROR_FLAGS,               /* an unknown, missing or inapplicable flag, or a nonzero reserved field */
    KVL_ERROR_NULL,                /* a null pointer */
    KVL_ERROR_RANGE,               /* a count, position, offset or slot is out of range */
    KVL_ERROR_FORMAT,              /* an unknown storage format, or one that is not allowed in a view of rows */
    KVL_ERROR_HEADS,               /* n_query_heads is not a multiple of n_kv_heads */
    KVL_ERROR_HEAD_DIM,            /* head_dim or v_head_dim is 0 or over KVL_MAX_HEAD_DIM */
    KVL_ERROR_SCALE,               /* scale is not finite */
    KVL_ERROR_LAYER,               /* layer is out of range */
    KVL_ERROR_LENGTH,              /* a buffer's or a sequence's length is wrong */
    KVL_ERROR_CAPACITY,            /* the cache would exceed max_tokens */
    KVL_ERROR_APPEND_TWICE,        /* the layer already has pending tokens */
    KVL_ERROR_LAYER_MISSING,       /* a layer lacks the tokens that advance would commit */
    KVL_ERROR_GEOMETRY,            /* a view does not fit the attention object */
    KVL_ERROR_WORKSPACE_SIZE,      /* the workspace is too small */
    KVL_ERROR_WORKSPACE_ALIGNMENT, /* the workspace is not aligned to KVL_WORKSPACE_ALIGNMENT */
    KVL_ERROR_WORKSPACE_STATE,     /* the workspace holds no begun call, or no plan */
    KVL_ERROR_TASK,                /* a task is out of range, run twice, not run, or still running at finish */
    KVL_ERROR_ISA,                 /* KVLANE_ISA names no instruction set that this CPU can run */
    KVL_ERROR_MEMORY,              /* out of memory or address space */
    KVL_ERROR_ROTATION,            /* an unknown rotation, or KVL_ROTATION_DEFAULT in a view */
    KVL_ERROR_RULE,                /* a softcap, slope, sink logit or k_offset is out of range */
    KVL_ERROR_PRECISION,           /* an unknown precision, or KVL_PRECISION_FAST unless both formats are q8 or q4 */
    KVL_ERROR_BLOCK,               /* a block's index is out of range */
    KVL_ERROR_STRIDE,              /* a stride of a view or mask is too small, too large for KVL_MAX_EXTENT_BYTES, or not
                                      aligned */
    KVL_ERROR_OVERLAP,             /* an output or the workspace overlaps other memory that the call reads or writes */
    KVL_ERROR_MASK,                /* a mask is too short, or not aligned */
    KVL_ERROR_ALIGNMENT,           /* packed tiles are not aligned to KVL_TILE_ALIGNMENT */
    KVL_ERROR_PLAN,                /* sequences differ from those of the plan in more than addresses */
    KVL_ERROR_NUMA                 /* the system does not let the process place memory on NUMA nodes */
} kvl_status;

/* Storage format of a key or value. Rows owned by the caller are f32, f16 or bf16. q8 and q4 exist only in packed tiles
 * (KVL_VIEW_TILES), whose layout is internal to the library; caches and kvl_tiles_write write them.
 *
 * q8: an element is an 8-bit integer from -127 to 127, times the row's scale.
 *
 * q4: an element is a 4-bit code that selects one of 16 levels. The levels are 8-bit integers spaced by 14 near 0 and by up
 * to 19 at the ends, which suits normally distributed elements. Each group of 32 elements, or fewer at the end of a row, has
 * a multiplier from -127 to 127:
 *
 *     element = scale * multiplier / 128 * level
 *
 * The scale of a row is an f32. It is 0, a positive normal number, or NaN, which makes the whole row NaN. */
typedef uint32_t kvl_format;

/// Values of kvl_format.
enum {
    KVL_F32 = 0,  /* IEEE 754 binary32 */
    KVL_F16 = 1,  /* IEEE 754 binary16 */
    KVL_BF16 = 2, /* bfloat16: the upper half of a binary32 */
    KVL_Q8 = 3,   /* 8-bit integers with one scale per row */
    KVL_Q4 = 4    /* 4-bit codes with one multiplier per group of 32 elements and one scale per row */
};

/* Orthogonal matrix that rows are multiplied by before they are stored, and queries before they are multiplied by keys. It
 * spreads outliers over all elements, which reduces the quantization error of q8 and q4. Dot products of queries and keys
 * are unchanged; outputs and rows that are read back are rotated back. */
typedef uint32_t kvl_rotation;

/// Values of kvl_rotation.
enum {
    KVL_ROTATION_DEFAULT = 0, /* by format: Hadamard for q4 and for q8 keys, else none */
    KVL_ROTATION_NONE = 1,    /* rows are stored as they are */
    KVL_ROTATION_HADAMARD = 2 /* Walsh-Hadamard of the row's size; block diagonal if that is not a power of two */
};

/* Rounding of queries and softmax weights before they are multiplied by keys and values in q8 or q4.
 *
 * Exact: no rounding; products with the stored integers are computed in f32.
 *
 * Fast: rounded to 8-bit integers if the instruction set multiplies bytes (avx2_vnni, avx512_vnni, neon_dotprod),
 * both formats are q8 or q4, and, for queries, keys are q4 or the group has at least 2 query heads, or, for weights, values
 * are q4; otherwise to 16-bit integers. In tests with random data, rounding to 8 bits raises the output's error to at most
 * 1.5 times that of storage alone, and rounding to 16 bits adds less than a hundredth of the error of storage in q8. Fast is
 * valid only if both formats are q8 or q4.
 *
 * Default: same as fast, but valid for all formats. */
typedef uint32_t kvl_precision;

/// Values of kvl_precision.
enum {
    KVL_PRECISION_DEFAULT = 0, /* as fast */
    KVL_PRECISION_EXACT = 1,   /* no rounding */
    KVL_PRECISION_FAST = 2     /* only if both formats are q8 or q4 */
};

/* ---- Errors and introspection ------------------------------------------------------------------------------------ */

/// Returns the text of the calling thread's most recent error, or "" if there was none.
/// The text is valid until the thread's next failing call.
KVL_API const char *kvl_last_error(void);

/// Returns the name of a status, "KVL_ERROR_NULL" for example; "unknown status" for any other value.
KVL_API const char *kvl_status_name(kvl_status status);

/// Returns the version of the loaded library, "major.minor.patch".
KVL_API const char *kvl_version(void);

/// Returns the name of a storage format, "f16" for example, or null for an unknown one.
KVL_API const char *kvl_format_name(kvl_format format);

/// Finds the storage format with the given name.
/// Errors: KVL_ERROR_NULL; KVL_ERROR_FORMAT when no format has that name
KVL_API kvl_status kvl_format_from_name(const char *name, kvl_format *format);

/// Returns how many instruction sets (isas) are compiled in. They are numbered from the portable to the widest.
KVL_API uint32_t kvl_n_isas(void);

/// Returns the name of isa i, "avx2" for example, or null when i >= kvl_n_isas().
KVL_API const char *kvl_isa_name(uint32_t i);

/// Returns 1 when this CPU and its operating system can run isa i, 0 when not or when i >= kvl_n_isas().
KVL_API int kvl_isa_supported(uint32_t i);

/// Finds the isa in force: the one named by the environment variable KVLANE_ISA, or else the widest supported one.
/// It is chosen once, at the first use in the process, and used by all caches and attention objects.
/// Errors: KVL_ERROR_NULL; KVL_ERROR_ISA when KVLANE_ISA names an unknown or unsupported isa
KVL_API kvl_status kvl_isa_in_force(const char **name);

/* ---- Views ------------------------------------------------------------------------------------------------------- */

/// A run of tokens in memory or, in a view with blocks, the pool of all blocks.
typedef struct kvl_span {
    const void *k;    /* the first token's key row, or the first tile, of KV head 0; with blocks, of block 0 */
    const void *v;    /* value row of the same token; unused with tiles */
    int64_t n_tokens; /* tokens that the run holds */
} kvl_span;

/// Returns a kvl_span with all fields 0.
static inline kvl_span kvl_span_init(void) {
    kvl_span init;
    memset(&init, 0, sizeof init);
    return init;
}

/// Flags of a view.
enum {
    KVL_VIEW_TILES = 1 /* packed tiles, not rows */
};

/// The location and formats of one layer's stored keys and values. Plain data, owns nothing. Tokens that are stored in
/// different formats need one view per format, linked by next in order of position. A view's formats equal the attention
/// object's, except that f16 may replace q8 or q4; all views of a chain have the same rotations. A view that does not begin
/// at a multiple of 64 tokens may change the last bits of a result.
///
/// A view and the previous one may store the same tokens in different formats: the first n_overlap tokens of this view are
/// then the last n_overlap tokens of the previous view. For a query at position p in the sequence, let
///             cut = floor64(p + 1) - n_recent, where floor64 rounds down to a multiple of 64.
/// The query reads overlapping tokens at positions below cut from the previous view and the rest from this view. So the
/// queries of a prompt read the same data as if its tokens had been appended one by one.
///
/// Without KVL_VIEW_TILES the keys and values are rows in f32, f16 or bf16, as in a caller's own cache; q8 and q4 fail with
/// KVL_ERROR_FORMAT. Spans may hold any number of tokens. Attention packs the rows that it needs into tiles of 64 tokens
/// each, counted from the view's start; results are bitwise identical to those of packed tiles with the same contents.
///
/// With KVL_VIEW_TILES they are packed tiles, as in caches: a tile is one record of the keys and values of 64 tokens of one
/// KV head. Its layout is internal to the library and may change between versions. Tiles owned by the caller are written by
/// kvl_tiles_write; whole tiles may be copied, also from a cache whose layer has the same geometry, formats and rotations.
/// kvl_tile_layout gives their size and strides. Every block, and every span that precedes another span with visible tokens,
/// holds a multiple of 64 tokens, else the call fails with KVL_ERROR_LENGTH. The last tile must be readable in full; its
/// contents for tokens that are not visible do not affect results.
///
/// If block_tokens is not 0, the view is paged: it has one span, a pool of n_tokens / block_tokens blocks, and token t
/// is token t % block_tokens of block blocks[t / block_tokens]. Results are bitwise identical to those
/// of the same tokens in one contiguous span.
/// Shape:  rows: the key row of token t of a span and KV head h starts at
///             k + h * k_head_stride_bytes + t * k_token_stride_bytes,
///         with blocks, the key row of token t of block b starts at
///             k + b * k_block_stride_bytes + h * k_head_stride_bytes + t * k_token_stride_bytes,
///         and value rows likewise with v. Tiles: the tile of token t is at the same address with t replaced by t / 64:
///         k_token_stride_bytes is the distance between consecutive tiles. The strides of v are unused
/// Units:  strides in bytes
/// Pre:    each stride is at least the bytes of a row or tile, and at most KVL_MAX_EXTENT_BYTES / (n - 1), where n is the
///         number of tokens or tiles (of the longest run), heads or blocks (up to the largest index in use) that the
///         stride separates; a stride with n = 1 is ignored. Tiles are aligned to KVL_TILE_ALIGNMENT, else the call fails
///         with KVL_ERROR_ALIGNMENT; their strides are multiples of it, else the call fails with KVL_ERROR_STRIDE.
///         Rows of keys and values may be interleaved in memory, and may alias. Both rotations are set explicitly:
///         KVL_ROTATION_DEFAULT fails with KVL_ERROR_ROTATION, because a format does not imply how existing rows were
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
    int64_t len;           /* tokens from this view's first to the end of the chain; the view's own are the first
                              len - next->len + next->n_overlap of them, or all without next: at most the sum of the
                              spans' n_tokens */
    const kvl_span *spans; /* in order of position */
    uint32_t n_spans;
    uint32_t reserved;       /* 0 */
    kvl_rotation k_rotation; /* KVL_ROTATION_NONE or KVL_ROTATION_HADAMARD */
    kvl_rotation v_rotation;
    const struct kvl_view *next; /* the following tokens, after n_overlap repeated ones; len >= 1. null: none */
    const int32_t *blocks;       /* [n_blocks] indices >= 0 in order of position; unread past the own tokens */
    uint32_t n_blocks;
    uint32_t block_tokens; /* at least KVL_MIN_BLOCK_TOKENS; a multiple of 64 with tiles; 0: no blocks, and n_blocks is 0 */
    int64_t k_block_stride_bytes;
    int64_t v_block_stride_bytes;
    int64_t n_overlap;     /* 0 to len - next->len; 0 in the first view of a chain */
    int64_t n_recent;      /* 0 to KVL_MAX_TOKENS; ignored where n_overlap is 0 */
    const float *k_offset; /* [n_kv_heads, head_dim], what was subtracted from the keys before they were rotated and stored;
                              null: nothing */
} kvl_view;

/// Returns a kvl_view with struct_size set and all other fields 0.
static inline kvl_view kvl_view_init(void) {
    kvl_view init;
    memset(&init, 0, sizeof init);
    init.struct_size = sizeof init;
    return init;
}

/* ---- Cache ------------------------------------------------------------------------------------------------------- */

/// A cache: it owns the keys and values of the tokens of one sequence, in all layers.
typedef struct kvl_cache kvl_cache;

/// Flags of a layer.
enum {
    KVL_LAYER_ESTIMATE_K_OFFSET =
        1 /* key offset: mean of the first KVL_TILE_TOKENS keys, taken when their tile is
             quantized; needs q8 or q4 keys, n_first_f16 or n_recent_f16 over 0, and k_offset null */
};

/// Geometry of one layer's keys and values.
///
/// Where keys or values are q8 or q4, the first and the most recent tokens, which receive most of the attention, may be kept
/// in f16. Both counts are rounded up to multiples of 64, whole tiles. New tokens are then stored in f16 and quantized
/// later, a whole tile at a time. With floor64 rounding down to a multiple of 64, the query at position p reads in f16 the
/// first n_first_f16 tokens and the positions from
///             floor64(p + 1) - n_recent_f16
/// to p, at most n_recent_f16 + 63 tokens; it reads the tokens in between quantized. This depends on p alone: if a prompt is
/// appended at once and attended to before kvl_cache_advance, its results are bitwise identical to those of appending its
/// tokens one by one, or in pieces of any size. For this, the tokens that any pending query reads in f16, and
/// KVL_TRUNCATABLE_TOKENS more, are stored in both formats. Elements over 65504 become infinite in f16.
///
/// Keys whose channels have a large mean over the tokens, for example from a bias of the projection, quantize badly. A key
/// offset c removes it: k - c is stored instead of k, and attention adds q c^T to the scores, so that results are those of k
/// but for the smaller error of quantization. It is subtracted before the rotation. Tokens that are kept in f16 are stored
/// without an offset.
///
/// numa_nodes places the memory of each KV head on a NUMA node, whose threads then attend to these heads alone
/// (KVL_SEQUENCE_KV_HEADS). The system's policy for a head's memory becomes to prefer its node: pages are taken from other
/// nodes when that one has no memory left. The tiles of such heads begin at page boundaries, and each head needs a mapping
/// or two of the process. Without NUMA policies in the system only node 0 is accepted, and first touch decides where pages
/// lie; see kvl_cache_commit.
typedef struct kvl_layer_desc {
    size_t struct_size;
    uint32_t flags; /* KVL_LAYER_... */
    uint32_t n_kv_heads;
    uint32_t head_dim;   /* 1 to KVL_MAX_HEAD_DIM */
    uint32_t v_head_dim; /* 0: as head_dim */
    kvl_format k_format;
    kvl_format v_format;
    kvl_rotation k_rotation;
    kvl_rotation v_rotation;
    int64_t n_first_f16;       /* 0 where neither format is q8 or q4 */
    int64_t n_recent_f16;      /* likewise; both 0: tokens are quantized when they are appended */
    const float *k_offset;     /* finite, [n_kv_heads, head_dim]; null: none. A cache copies it */
    const int32_t *numa_nodes; /* [n_kv_heads], of a cache: the node of each KV head, or -1: any; null: any */
} kvl_layer_desc;

/// Returns a kvl_layer_desc with struct_size set and all other fields 0.
static inline kvl_layer_desc kvl_layer_desc_init(void) {
    kvl_layer_desc init;
    memset(&init, 0, sizeof init);
    init.struct_size = sizeof init;
    return init;
}

/// Flags of a cache.
enum {
    KVL_CACHE_NO_HUGE_PAGES = 1 /* do not ask the system for huge pages */
};

/// Geometry and capacity of a cache.
typedef struct kvl_cache_desc {
    size_t struct_size;
    uint32_t flags;               /* KVL_CACHE_... */
    uint32_t n_layers;            /* 1 to KVL_MAX_LAYERS */
    const kvl_layer_desc *layers; /* n_layer_descs geometries */
    uint32_t n_layer_descs;       /* n_layers, or 1: all layers are alike */
    uint32_t reserved;            /* 0 */
    int64_t max_tokens;           /* capacity; 0: KVL_DEFAULT_MAX_TOKENS */
} kvl_cache_desc;

/// Returns a kvl_cache_desc with struct_size set and all other fields 0.
static inline kvl_cache_desc kvl_cache_desc_init(void) {
    kvl_cache_desc init;
    memset(&init, 0, sizeof init);
    init.struct_size = sizeof init;
    return init;
}

/// Creates an empty cache. Address space for max_tokens is reserved at once and committed only as tokens fill it, so
/// tiles never move. If the process has called mlockall(MCL_FUTURE), or the system has no mmap, as Windows, the whole
/// reservation is committed here, or KVL_ERROR_MEMORY is returned: then set max_tokens no larger than needed.
/// Errors: KVL_ERROR_STRUCT_SIZE, _FLAGS, _NULL, _RANGE, _FORMAT, _ROTATION, _HEAD_DIM, _RULE, _ISA; KVL_ERROR_MEMORY when
///         the address space cannot be reserved; KVL_ERROR_RANGE also when numa_nodes has a node whose memory this process
///         may not use; KVL_ERROR_NUMA when the process may not query these nodes or set a policy
/// Threads: any   Allocates: yes
KVL_API kvl_status kvl_cache_create(const kvl_cache_desc *desc, kvl_cache **cache);

/// Destroys a cache and frees its memory; null is allowed. Its views become invalid.
KVL_API void kvl_cache_destroy(kvl_cache *cache);

/// Creates a cache with the same geometry, capacity, tokens and pending tokens as the source, in its own memory.
/// Errors: KVL_ERROR_NULL, KVL_ERROR_MEMORY; KVL_ERROR_NUMA as kvl_cache_create
/// Threads: any, while no thread changes the source   Allocates: yes
KVL_API kvl_status kvl_cache_copy(const kvl_cache *source, kvl_cache **copy);

/// Appends the keys and values of n_tokens new tokens to one layer, where they are pending until kvl_cache_advance:
/// included in views of this layer, not counted by kvl_cache_len.
/// Shape:  k [n_tokens, n_kv_heads, head_dim] f32; v [n_tokens, n_kv_heads, v_head_dim] f32
/// Units:  k_len and v_len in elements
/// Pre:    k and v do not overlap the cache
/// Errors: KVL_ERROR_NULL; _LAYER; _RANGE when n_tokens < 1; _LENGTH when k_len or v_len is not that of the shape;
///         _APPEND_TWICE when the layer has pending tokens; _CAPACITY when len + n_tokens > max_tokens
/// Bound:  f32, f16 and bf16: rounds to the nearest value of the format, ties to even; NaN stays NaN. If rows are rotated,
///         the bounds apply to the rotated row. Let M be the largest magnitude of the row, and G that of a group of 32
///         elements. q8: the error of an element is at most M / 253. q4: it is at most 0.22 G + M / 100; the relative RMS
///         error of a group of normally distributed elements is about 0.08. A row (q4: a group) so small that its scale
///         would not be a normal f32 becomes 0; a row with NaN or infinity becomes NaN. Elements over 0.9 times the largest
///         f32, divided by sqrt(head_dim) if rows are rotated, may be read back as infinity, or their row as NaN
/// Threads: one at a time per layer, while no other thread reads that layer; different layers may be appended to
///         concurrently
/// Allocates: no; where huge pages are used, a few appends of a layer wait about a millisecond each while the system makes
///         huge pages from small ones. Memory is committed at the first write: if the system has none left, Linux's OOM
///         killer may end the process. The memory in use, kvl_cache_bytes, is at most the sum over layers of
///         kvl_layer_info.bytes_per_token * max_tokens, plus, in layers that keep tokens in f16, n_first_f16 + n_recent_f16
///         + 127 tokens and all pending tokens in f16. kvl_cache_advance returns the memory of older f16 tokens to the
///         system in whole pages. Memory is written in whole tiles of 64 tokens
KVL_API kvl_status kvl_cache_append(kvl_cache *cache, uint32_t layer, int64_t n_tokens, const float *k, size_t k_len,
                                    const float *v, size_t v_len);

/// Keys and values of n_tokens new tokens of one layer, in the caller's memory.
/// Shape:  k [n_tokens, n_kv_heads, head_dim] in k_format; v [n_tokens, n_kv_heads, v_head_dim] in v_format. The row of
///         token t and KV head h is at t * token_stride_bytes + h * head_stride_bytes of k or v. A stride of 0 selects the
///         contiguous layout: the head stride is a row's size, the token stride n_kv_heads head strides
/// Units:  strides in bytes
/// Pre:    k_format and v_format are f32, f16 or bf16. Strides are multiples of an element's size, at least the size of a
///         row, and at most KVL_MAX_EXTENT_BYTES / (n - 1), where n is the number of tokens or KV heads; a stride is
///         ignored, and taken as 0, if n is 1
/// Bound:  rows are converted to f32 exactly and then stored: the result is bitwise identical to that of f32 rows that the
///         caller converts
typedef struct kvl_rows {
    size_t struct_size;
    uint32_t flags; /* none are defined */
    kvl_format k_format;
    kvl_format v_format;
    uint32_t reserved; /* 0 */
    int64_t n_tokens;
    const void *k;
    const void *v;
    int64_t k_token_stride_bytes;
    int64_t k_head_stride_bytes;
    int64_t v_token_stride_bytes;
    int64_t v_head_stride_bytes;
} kvl_rows;

/// Returns a kvl_rows with struct_size set and all other fields 0.
static inline kvl_rows kvl_rows_init(void) {
    kvl_rows init;
    memset(&init, 0, sizeof init);
    init.struct_size = sizeof init;
    return init;
}

/// Appends rows of any layout and format, as kvl_cache_append appends consecutive f32 rows.
/// Errors: as kvl_cache_append, and KVL_ERROR_STRUCT_SIZE, _FLAGS, _FORMAT, _STRIDE
KVL_API kvl_status kvl_cache_append_rows(kvl_cache *cache, uint32_t layer, const kvl_rows *rows);

/// Makes the n_tokens pending tokens of every layer part of the cache, and drops the f16 data of each recent token that a
/// query at none of the last KVL_TRUNCATABLE_TOKENS positions reads in f16. A query at an earlier position that attends
/// after this call reads such tokens quantized.
/// Errors: KVL_ERROR_NULL; _RANGE when n_tokens < 1; _LAYER_MISSING unless every layer has exactly n_tokens pending
/// Threads: one, while no other thread uses the cache   Allocates: no
KVL_API kvl_status kvl_cache_advance(kvl_cache *cache, int64_t n_tokens);

/// Removes all tokens from position len on, and all pending tokens. If len is at most KVL_TRUNCATABLE_TOKENS below the
/// largest length since the last clear, the cache becomes bitwise identical to its earlier state at length len. Otherwise,
/// tokens that are stored only in quantized form do not regain their precision: in a layer that keeps tokens in f16, if the
/// new end lies within a tile that is stored only in quantized form, its tokens are stored in f16 again with their
/// dequantized values. Quantizing the tile again restores the same bits, unless the layer has a key offset.
/// Errors: KVL_ERROR_NULL; KVL_ERROR_LENGTH when len < 0 or len > kvl_cache_len
/// Threads: one, while no other thread uses the cache   Allocates: no
KVL_API kvl_status kvl_cache_truncate(kvl_cache *cache, int64_t len);

/// Removes all tokens. The cache keeps its memory for the next sequence, except the memory of recent tokens in f16.
/// Errors: KVL_ERROR_NULL
/// Threads: one, while no other thread uses the cache   Allocates: no
KVL_API kvl_status kvl_cache_clear(kvl_cache *cache);

/// Commits the memory of tokens 0 to n_tokens - 1 of KV heads [first_kv_head, first_kv_head + n_kv_heads) of one layer, in
/// the layer's formats: the calling thread writes to each page of tiles not used so far, and later appends find these pages
/// committed. Memory of tokens that a layer keeps in f16 is not included. Unless numa_nodes says otherwise, systems take a
/// page from the NUMA node of the thread that first writes to it: to place a head's memory, call this on a thread of the
/// node whose threads are to read that head.
/// Errors: KVL_ERROR_NULL; _LAYER; _RANGE when the range exceeds the layer's KV heads, or n_tokens is negative or over
///         max_tokens
/// Threads: any, in different KV heads, while no thread changes this layer
/// Allocates: no; commits memory, as kvl_cache_append does
KVL_API kvl_status kvl_cache_commit(kvl_cache *cache, uint32_t layer, uint32_t first_kv_head, uint32_t n_kv_heads,
                                    int64_t n_tokens);

/// Returns the number of tokens in every layer, excluding pending ones; 0 for an empty or a null cache.
KVL_API int64_t kvl_cache_len(const kvl_cache *cache);

/// Returns the capacity in tokens; 0 for a null cache.
KVL_API int64_t kvl_cache_max_tokens(const kvl_cache *cache);

/// Returns the size of the stored tokens of all layers: pending tokens, both copies of tokens that are stored in two
/// formats, and the padding of head_dim and v_head_dim count; unfilled parts of tiles and pages do not. 0 for a null cache.
/// Units:  bytes
KVL_API uint64_t kvl_cache_bytes(const kvl_cache *cache);

/// Returns the number of layers; 0 for a null cache.
KVL_API uint32_t kvl_cache_n_layers(const kvl_cache *cache);

/// Geometry, formats and length of one layer.
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
    int64_t len;              /* kvl_cache_len plus the layer's pending tokens */
    uint64_t bytes_per_token; /* memory per token in k_format and v_format, padding included */
    kvl_rotation k_rotation;  /* in force: not the default */
    kvl_rotation v_rotation;
    int64_t n_first_f16; /* in force: rounded up */
    int64_t n_recent_f16;
} kvl_layer_info;

/// Returns a kvl_layer_info with struct_size set and all other fields 0.
static inline kvl_layer_info kvl_layer_info_init(void) {
    kvl_layer_info init;
    memset(&init, 0, sizeof init);
    init.struct_size = sizeof init;
    return init;
}

/// Describes one layer. info->struct_size is set by the caller.
/// Errors: KVL_ERROR_NULL, KVL_ERROR_LAYER, KVL_ERROR_STRUCT_SIZE
KVL_API kvl_status kvl_cache_layer_info(const kvl_cache *cache, uint32_t layer, kvl_layer_info *info);

/// Makes a view of one layer's packed tiles, including pending tokens, with the current length. Its pointers are valid for
/// the lifetime of the cache or, if first or recent tokens are kept in f16, until the layer's next append or the cache's
/// next advance, truncate or clear. After a truncate or clear an older view may cover tokens that no longer exist. Attention
/// to this view stays within the cache's memory and reads removed tokens, zeros, or tokens appended in their place, or fails
/// with KVL_ERROR_LENGTH or _RANGE. No other check is made: make a new view for every step. view->struct_size is set by the
/// caller.
/// Errors: KVL_ERROR_NULL, KVL_ERROR_LAYER, KVL_ERROR_STRUCT_SIZE
/// Threads: any, while no thread changes this layer   Allocates: no
KVL_API kvl_status kvl_cache_view(const kvl_cache *cache, uint32_t layer, kvl_view *view);

/// Decodes the keys of tokens first to first + n_tokens - 1 of one layer, pending ones included.
/// Shape:  out [n_tokens, n_kv_heads, head_dim] f32
/// Units:  out_len in elements
/// Errors: KVL_ERROR_NULL; _LAYER; _RANGE when first or n_tokens is negative or they reach past the layer's len; _LENGTH
///         when out_len is not that of the shape
/// Bound:  exact; for q8 and q4 the dequantized value, rounded to f32; undoing a rotation or a key offset adds its own
///         rounding error
/// Threads: any, while no thread changes this layer   Allocates: no
KVL_API kvl_status kvl_cache_read_k(const kvl_cache *cache, uint32_t layer, int64_t first, int64_t n_tokens, float *out,
                                    size_t out_len);

/// Decodes values, as kvl_cache_read_k decodes keys.
/// Shape:  out [n_tokens, n_kv_heads, v_head_dim] f32
KVL_API kvl_status kvl_cache_read_v(const kvl_cache *cache, uint32_t layer, int64_t first, int64_t n_tokens, float *out,
                                    size_t out_len);

/* ---- Packed tiles that the caller owns --------------------------------------------------------------------------- */

/// Computes the layout of packed tiles of one layer in memory owned by the caller, in blocks of block_tokens tokens each.
/// Sets all fields of the view: the layer's geometry and formats, the rotations in force, the strides, and no tokens. The
/// caller then sets spans, n_spans, blocks, n_blocks and len. view->k_offset is layer->k_offset, not a copy. The caller
/// may increase the strides. If view->block_tokens is set to 0, the strides fit spans of up to block_tokens tokens.
/// Shape:  a block is [n_kv_heads][block_tokens / KVL_TILE_TOKENS] tiles
/// Units:  bytes: a tile has k_token_stride_bytes, the tiles of a KV head in a block k_head_stride_bytes, a block
///         k_block_stride_bytes, and a pool of n blocks n * k_block_stride_bytes, aligned to KVL_TILE_ALIGNMENT
/// Pre:    layer as in kvl_cache_desc, with n_first_f16 and n_recent_f16 0: tokens in f16 need a separate view.
///         view->struct_size is set by the caller
/// Errors: KVL_ERROR_NULL, _STRUCT_SIZE, _FLAGS, _FORMAT, _ROTATION, _HEAD_DIM; KVL_ERROR_RANGE, also when block_tokens is 0
///         or not a multiple of KVL_TILE_TOKENS
/// Threads: any   Allocates: no
KVL_API kvl_status kvl_tile_layout(const kvl_layer_desc *layer, uint32_t block_tokens, kvl_view *view);

/// Rotates, quantizes and packs the keys and values of tokens [first, first + n_tokens) of a view into its tiles. If tokens
/// are written in order, the tiles are bitwise identical to a cache's.
///
/// A fresh or reused tile need not be cleared: a write that includes the first token of a tile sets the whole tile to zero
/// first. A write that starts at a later token leaves all other tokens of the tile unchanged.
/// Shape:  k [n_tokens, n_kv_heads, head_dim] f32; v [n_tokens, n_kv_heads, v_head_dim] f32
/// Units:  k_len and v_len in elements; first counts from the view's first token
/// Pre:    view is as for attention, with KVL_VIEW_TILES; the memory of its spans is writable. Its len includes the tokens
///         that this call writes: it is at least first + n_tokens. Tokens of view->next are not the view's own and cannot be
///         written; only len is read from view->next. The first token of every tile is written here or was written before.
///         No other call reads or writes these tiles concurrently. The tiles of all visible tokens, with gaps as in
///         kvl_sequence, do not overlap k, v, the view, its spans or its blocks
/// Errors: KVL_ERROR_NULL, _STRUCT_SIZE, _FORMAT, _ROTATION, _HEAD_DIM, _LENGTH, _STRIDE, _BLOCK, _ALIGNMENT, _OVERLAP,
///         _ISA; _FLAGS, also when the view is of rows; _RANGE, also when first or n_tokens is negative or the tokens
///         are not all the view's own. All are returned before anything is written
/// Bound:  that of kvl_cache_append
/// Threads: any, in different tiles; the calling thread does the work   Allocates: no
KVL_API kvl_status kvl_tiles_write(const kvl_view *view, int64_t first, int64_t n_tokens, const float *k, size_t k_len,
                                   const float *v, size_t v_len);

/// Writes rows of any layout and format, as kvl_tiles_write writes consecutive f32 rows: rows->n_tokens tokens from the
/// view's token `first` on.
/// Errors: as kvl_tiles_write, and KVL_ERROR_FORMAT, _STRIDE of the rows
KVL_API kvl_status kvl_tiles_write_rows(const kvl_view *view, int64_t first, const kvl_rows *rows);

/// Writes tokens of any number of sequences to their slots in a pool of tiles: the slot mapping of a paged cache. Token i
/// goes to slot slots[i] of the pool, which is token slots[i] % block_tokens of block slots[i] / block_tokens; a token with
/// a negative slot is not written. A write to the first slot of a tile sets the whole tile to zero first, as in
/// kvl_tiles_write; consecutive slots are written faster.
/// Shape:  slots [rows->n_tokens]
/// Pre:    pool is a view from kvl_tile_layout with one span; its len, blocks and n_blocks are not used. Slots are distinct.
///         The first token of every tile is written before any later token of it, or earlier in the same call. No other call
///         reads or writes these tiles concurrently. The pool's memory, gaps included, does not overlap the rows, slots,
///         pool or its span
/// Errors: KVL_ERROR_NULL, _STRUCT_SIZE, _FLAGS, _HEAD_DIM, _FORMAT, _ROTATION, _LENGTH, _STRIDE, _ALIGNMENT, _OVERLAP,
///         _ISA; _RANGE, also when a slot is not in the pool. All are returned before anything is written
/// Bound:  that of kvl_cache_append
/// Threads: any, in different tiles; the calling thread does the work   Allocates: no
KVL_API kvl_status kvl_tiles_write_slots(const kvl_view *pool, const int64_t *slots, const kvl_rows *rows);

/* ---- Attention --------------------------------------------------------------------------------------------------- */

/// An attention object: the geometry and score rules of a layer, and the kernels for them.
typedef struct kvl_attention kvl_attention;

/// Geometry and score rules of an attention object. Rules that are zero or null do not apply.
///
/// A query sees the newest `window` tokens up to and including its own, and the first n_sink_tokens tokens. Rows that are
/// hidden from all queries are not read; packed tiles with no visible token are skipped, others are read whole. A score is
///         s = softcap * tanh(scale * q[h] k[t] / softcap) + alibi_slopes[h] * (t - the query's position)
/// without the softcap or slope term if it is not set; exp(sink_logits[h]) is added to the sum of exponentials.
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
    const float *alibi_slopes; /* [n_query_heads], finite also times KVL_MAX_TOKENS; null: none. Copied */
    const float *sink_logits;  /* [n_query_heads], less than infinity, copied; null: none */
    float softcap;             /* 0: none; else from 1e-38 to 1e38 */
    kvl_precision precision;   /* KVL_PRECISION_FAST only if both formats are q8 or q4 */
} kvl_attention_desc;

/// Returns a kvl_attention_desc with struct_size set and all other fields 0.
static inline kvl_attention_desc kvl_attention_desc_init(void) {
    kvl_attention_desc init;
    memset(&init, 0, sizeof init);
    init.struct_size = sizeof init;
    return init;
}

/// Sets desc to the geometry, formats and rotations in force of one layer of a cache, with n_query_heads query heads, and
/// all other fields to 0. desc->struct_size is set by the caller.
/// Errors: KVL_ERROR_NULL, KVL_ERROR_LAYER, KVL_ERROR_STRUCT_SIZE; n_query_heads is checked by kvl_attention_create
/// Threads: any   Allocates: no
KVL_API kvl_status kvl_attention_desc_from_cache(const kvl_cache *cache, uint32_t layer, uint32_t n_query_heads,
                                                 kvl_attention_desc *desc);

/// Creates an attention object. It is immutable and may be shared by any number of threads.
/// Errors: KVL_ERROR_NULL, _STRUCT_SIZE, _FLAGS, _HEADS, _HEAD_DIM, _RANGE, _FORMAT, _ROTATION, _SCALE, _PRECISION,
///         _RULE, _ISA, _MEMORY
/// Threads: any   Allocates: yes
KVL_API kvl_status kvl_attention_create(const kvl_attention_desc *desc, kvl_attention **attention);

/// Destroys an attention object; null is allowed. No call may be using it.
KVL_API void kvl_attention_destroy(kvl_attention *attention);

/// Returns the name of the kernel that this object's calls use, "avx2/f16+bf16/group:4" for example, followed by "/fast" if
/// queries or weights are rounded to 8-bit integers, or by "/exact" if stored integers are multiplied as f32, and by nothing
/// if they are rounded to 16-bit integers; null for null.
KVL_API const char *kvl_attention_kernel(const kvl_attention *attention);

/// The largest calls that a workspace is for: up to n_sequences sequences of up to max_len tokens and max_queries queries
/// each, run by up to max_tasks concurrent tasks (the executor's n_threads, or 1 without one), with outputs in out_format or
/// in f32.
typedef struct kvl_workspace_desc {
    size_t struct_size;
    uint32_t flags; /* none are defined */
    uint32_t n_sequences;
    int64_t max_len;       /* 0 to KVL_MAX_TOKENS */
    uint32_t max_queries;  /* at least 1 */
    uint32_t max_tasks;    /* 1 to KVL_MAX_TASKS */
    kvl_format out_format; /* KVL_F32, KVL_F16 or KVL_BF16 */
    uint32_t reserved;     /* 0 */
} kvl_workspace_desc;

/// Returns a kvl_workspace_desc with struct_size set and all other fields 0.
static inline kvl_workspace_desc kvl_workspace_desc_init(void) {
    kvl_workspace_desc init;
    memset(&init, 0, sizeof init);
    init.struct_size = sizeof init;
    return init;
}

/// Computes a workspace size that suffices for every call that desc allows: a multiple of KVL_WORKSPACE_ALIGNMENT.
/// Units:  bytes
/// Errors: KVL_ERROR_NULL, _STRUCT_SIZE, _FLAGS, _FORMAT; KVL_ERROR_RANGE when max_len, max_queries or max_tasks is out of
///         range
/// Bound:  per task, max(0.7 MB, S + 4 P), where S are its scratch buffers and P is a partial state of max(128, group)
///         (query, query head) pairs; per sequence, 1 KB, 32 bytes for each chunk of KVL_CHUNK_TOKENS tokens of max_len, and
///         8 bytes for each of the max_queries * group pairs, or with f16 or bf16 outputs 72 + 4 * v_head_dim; and, if that
///         is more than all of this, 48 bytes for each of the max_queries * n_query_heads rows of a sequence's outputs
/// Threads: any   Allocates: no
KVL_API kvl_status kvl_attention_workspace_size_for(const kvl_attention *attention, const kvl_workspace_desc *desc,
                                                    size_t *bytes);

/// kvl_attention_workspace_size_for with the given fields, and f32 outputs.
KVL_API kvl_status kvl_attention_workspace_size(const kvl_attention *attention, uint32_t n_sequences, int64_t max_len,
                                                uint32_t max_queries, uint32_t max_tasks, size_t *bytes);

/// The partial attention state of queries over a subset of their tokens, to be merged with the states of the other tokens.
/// For each (query, query head) pair
///         m = max over t of s[t],  l = sum over t of exp(s[t] - m),  o = sum over t of exp(s[t] - m) v[t]
/// with scores s by the rules of kvl_attention_desc. If none of the tokens is visible, m is -infinity and l and o are 0.
/// Sink logits are not included; kvl_merge adds them. Plain data, owns nothing; the layout is the same on every isa.
/// Shape:  m and l [n_queries, n_query_heads] f32; o [n_queries, n_query_heads, v_head_dim] f32
/// Units:  m in natural log; o is rotated as the stored values are: kvl_merge rotates the merged output back
/// Source: Z. Ye et al., "FlashInfer: Efficient and Customizable Attention Engine for LLM Inference Serving" (2025)
typedef struct kvl_partial {
    float *m; /* largest scores */
    float *l; /* sums of exponentials */
    float *o; /* weighted sums of values */
} kvl_partial;

/// Returns a kvl_partial with all fields 0.
static inline kvl_partial kvl_partial_init(void) {
    kvl_partial init;
    memset(&init, 0, sizeof init);
    return init;
}

/// A range of a sequence's positions for which the partial state is computed instead of the output: the share of one of
/// several machines or sockets, which need not hold any other tokens. The positions of the queries are those given by
/// kvl_sequence.len: inside, after or before the range. If first or view_first is not a multiple of 64, the merged result
/// may differ in its last bits from a single call over all tokens.
/// Pre:    out's three arrays overlap no other memory that the call uses
typedef struct kvl_range {
    size_t struct_size;
    uint32_t flags;     /* none are defined */
    uint32_t reserved;  /* 0 */
    int64_t view_first; /* position of the view's first token */
    int64_t first;      /* the range is positions first to end - 1, all in the view */
    int64_t end;        /* one past the range's last position */
    kvl_partial out;    /* where the partial state is written */
} kvl_range;

/// Returns a kvl_range with struct_size set and all other fields 0.
static inline kvl_range kvl_range_init(void) {
    kvl_range init;
    memset(&init, 0, sizeof init);
    init.struct_size = sizeof init;
    return init;
}

/// Restricts the tokens that each query sees, in addition to causality and the window, and adds biases to its scores: in a
/// tree of draft tokens a query sees its own branch, in a padded batch the tokens that are not padding; biases by query head
/// serve relative position embeddings such as T5's. A query sees token t if bit t % 64 of word t / 64 in its row of bits is
/// set. Element t of its row of biases is added to the token's score, after all other rules. A bias of -infinity hides the
/// token as a clear bit does; a finite bias never does. Hidden tokens do not affect a query's output, even if they contain
/// NaN or infinity. Rows that are hidden from all queries are not read; a packed tile is skipped if all its tokens are
/// hidden from all queries, otherwise read whole. If all tokens are hidden from a query, the result is that of an empty
/// sequence: out is 0 and lse is -infinity or the sink's logit. A bias of infinity or NaN on a visible token makes the
/// query's output NaN.
/// Shape:  bits [n_query_heads, n_queries, (n_tokens + 63) / 64], where bits from n_tokens on are ignored; biases
///         [n_query_heads, n_queries, n_tokens]; both indexed by position in the sequence, regardless of any range. With a
///         stride of 0 all query heads, or all queries, share the same rows
/// Units:  biases in natural log; strides in bytes
/// Pre:    bits are aligned to 8 bytes, biases to 4. A stride is 0 or a multiple of 8 (bits) or 4 (biases), and at most
///         KVL_MAX_EXTENT_BYTES / (n - 1), where n is n_queries or n_query_heads; it is ignored if n is 1
typedef struct kvl_mask {
    size_t struct_size;
    uint32_t flags;            /* none are defined */
    uint32_t reserved;         /* 0 */
    const uint64_t *bits;      /* null: all are visible */
    const float *biases;       /* null: none */
    int64_t n_tokens;          /* per row: at least the smaller of the sequence's len and its range's end */
    int64_t bits_stride_bytes; /* between queries */
    int64_t biases_stride_bytes;
    int64_t bits_head_stride_bytes; /* between query heads */
    int64_t biases_head_stride_bytes;
} kvl_mask;

/// Returns a kvl_mask with struct_size set and all other fields 0.
static inline kvl_mask kvl_mask_init(void) {
    kvl_mask init;
    memset(&init, 0, sizeof init);
    init.struct_size = sizeof init;
    return init;
}

/// Converts rows of boolean bytes to rows of bits for kvl_mask.bits: bit t of row i is set if byte t of row i is not 0.
/// Shape:  bytes [n_rows, n_tokens], rows stride_bytes apart; bits [n_rows, (n_tokens + 63) / 64], whose bits from n_tokens
///         on are 0
/// Pre:    stride_bytes is at least n_tokens, or ignored for a single row
/// Errors: KVL_ERROR_NULL, KVL_ERROR_STRIDE; KVL_ERROR_RANGE when n_rows is negative, or n_tokens is negative or over
///         KVL_MAX_TOKENS
/// Threads: the calling thread   Allocates: no
KVL_API kvl_status kvl_mask_bits_from_bytes(const uint8_t *bytes, int64_t n_rows, int64_t n_tokens, int64_t stride_bytes,
                                            uint64_t *bits);

/// Converts rows of f32, f16 or bf16 to consecutive rows of f32, exactly: for kvl_mask.biases, for example.
/// Shape:  rows [n_rows, n] in format, stride_bytes apart; out [n_rows, n] f32
/// Pre:    stride_bytes is at least the size of a row, or ignored for a single row
/// Errors: KVL_ERROR_NULL, _FORMAT, _STRIDE, _ISA; KVL_ERROR_RANGE when n_rows is negative, or n is negative or over
///         KVL_MAX_TOKENS
/// Threads: the calling thread   Allocates: no
KVL_API kvl_status kvl_rows_to_f32(kvl_format format, const void *rows, int64_t n_rows, int64_t n, int64_t stride_bytes,
                                   float *out);

/// Flags of a sequence.
enum {
    KVL_SEQUENCE_NON_CAUSAL = 1, /* queries also see later tokens */
    KVL_SEQUENCE_KV_HEADS = 2    /* the view has more KV heads than the attention object, see first_kv_head */
};

/// One sequence of a call: its queries, keys and values, and outputs. Query i is at position
///             p = len - n_queries + i + causal_offset
/// and sees the tokens at positions 0 to p (causal order), so that with a causal_offset of 0 the last query belongs to the
/// last token. With KVL_SEQUENCE_NON_CAUSAL it sees all len tokens (encoders, cross attention). A window, see
/// kvl_attention_desc, restricts this to positions above p - window, from which sink tokens are exempt, and with
/// KVL_SEQUENCE_NON_CAUSAL also to positions below p + window. A query at a negative position sees no token in causal
/// order. For a prefix language model, pass the queries of the prefix with KVL_SEQUENCE_NON_CAUSAL and len at the prefix's
/// end, and those of the rest as a sequence of the same call.
///
/// With KVL_SEQUENCE_KV_HEADS, KV head h of the attention object reads KV head first_kv_head + h of the view: calls of
/// different threads, of different NUMA nodes for example, divide a view's KV heads. Results are bitwise identical to those
/// of one call for all heads.
/// Shape:  q [n_queries, n_query_heads, head_dim] in q_format; out [n_queries, n_query_heads, v_head_dim] in out_format;
///         lse [n_queries, n_query_heads] f32, or null. The row of query i and head h is at
///             i * token_stride_bytes + h * head_stride_bytes
///         of each. A stride of 0 selects the contiguous layout: the head stride is a row's size, the token stride
///         n_query_heads head strides
/// Units:  lse is the natural log of the sum of exponentials that out is divided by; strides in bytes
/// Pre:    q_format and out_format are f32, f16 or bf16. Strides are multiples of an element's size, at least the size of a
///         row, and at most KVL_MAX_EXTENT_BYTES / (n - 1), where n is the number of queries or heads; a stride is
///         ignored, and taken as 0, if n is 1. Rows of outputs overlap neither each other, nor the workspace, any array or
///         descriptor that the call reads, or any keys and values: all memory from the first to the last visible row or
///         tile of a span, gaps included; with blocks, from the first to the last row or tile of the blocks in use
/// Bound:  queries are converted to f32 exactly, and outputs are rounded from f32 to the nearest value of out_format, ties
///         to even: results are bitwise identical to those with f32 queries and outputs that the caller converts
typedef struct kvl_sequence {
    size_t struct_size;
    uint32_t flags;       /* KVL_SEQUENCE_... */
    uint32_t n_queries;   /* 0: 1 */
    const kvl_view *view; /* keys and values */
    int64_t len; /* number of tokens, 0 to view->len. 0 is an empty sequence, not the whole view: then out is 0 and lse is
                    -infinity or the sink's logit */
    const void *q;
    void *out;
    float *lse;
    const kvl_range *range; /* null: all tokens; else out and lse are unused, and len is at most KVL_MAX_TOKENS */
    const kvl_mask *mask;   /* null: none */
    kvl_format q_format;    /* KVL_F32, KVL_F16 or KVL_BF16 */
    kvl_format out_format;  /* likewise */
    int64_t q_token_stride_bytes;
    int64_t q_head_stride_bytes;
    int64_t out_token_stride_bytes;
    int64_t out_head_stride_bytes;
    int64_t lse_token_stride_bytes;
    int64_t lse_head_stride_bytes;
    int64_t causal_offset;  /* added to the queries' positions; -KVL_MAX_TOKENS to KVL_MAX_TOKENS */
    uint32_t first_kv_head; /* with KVL_SEQUENCE_KV_HEADS: at most view->n_kv_heads minus the attention object's */
    uint32_t reserved;      /* 0 */
} kvl_sequence;

/// Returns a kvl_sequence with struct_size set and all other fields 0.
static inline kvl_sequence kvl_sequence_init(void) {
    kvl_sequence init;
    memset(&init, 0, sizeof init);
    init.struct_size = sizeof init;
    return init;
}

/// Runs task(context, i) once for every i in [0, n_tasks), in any order, on any threads, and returns when all are done;
/// the calling thread may take part. There are at most kvl_executor.n_threads tasks, which divide the call's work among
/// themselves as they run. A task throws nothing, takes no lock and uses at most KVL_TASK_STACK_BYTES of stack.
///
/// If a task is not run, kvl_attend returns KVL_ERROR_TASK. Running a task a second time has no effect. An exception that
/// this function throws propagates out of kvl_attend; then the outputs are incomplete, and the workspace can be used for
/// another call. In every case kvl_attend first waits for all running tasks; a task that starts later does nothing and
/// accesses no memory of the call.
/// Threads: must be reentrant if kvl_attend is called on several threads concurrently, or within a task of the same pool
typedef void (*kvl_parallel_for)(void *pool, uint32_t n_tasks, void (*task)(void *context, uint32_t i), void *context);

/// The caller's threads.
typedef struct kvl_executor {
    kvl_parallel_for parallel_for; /* runs tasks on the pool */
    void *pool;                    /* passed to parallel_for */
    uint32_t n_threads; /* threads that run tasks concurrently, 1 to KVL_MAX_TASKS: the maximum number of tasks per call */
} kvl_executor;

/// Returns a kvl_executor with all fields 0.
static inline kvl_executor kvl_executor_init(void) {
    kvl_executor init;
    memset(&init, 0, sizeof init);
    return init;
}

/// Computes attention for the queries of each of n_sequences sequences.
///         out[h] = softmax(scale * q[h] K[h / group]^T) V[h / group], with the rules of kvl_attention_desc
/// A common prefix is read once for consecutive sequences in the array, if they begin with the same memory (spans or blocks)
/// in the first view of a chain. The prefix consists of whole chunks of KVL_CHUNK_TOKENS tokens, none of which the window
/// hides even in part. Sequences with a range, a mask, or more than max(1, 128 / group) queries share no prefix.
/// Shape:  as in kvl_sequence
/// Pre:    workspace is aligned to KVL_WORKSPACE_ALIGNMENT, used by one call at a time, and at least as large as
///         kvl_attention_workspace_size_for computes for these sequences, their out_format and the executor's n_threads. Any
///         plan or begun call in it is lost, even if this call fails
/// Errors: KVL_ERROR_NULL, _STRUCT_SIZE, _FLAGS, _GEOMETRY, _FORMAT, _ROTATION, _LENGTH, _STRIDE, _ALIGNMENT, _BLOCK,
///         _MASK, _OVERLAP,
///         _WORKSPACE_SIZE, _WORKSPACE_ALIGNMENT, _RANGE (also for an executor's n_threads), all before any output is
///         written; KVL_ERROR_TASK when the executor did not run every task: the call has ended, and the outputs may be
///         incomplete
/// Bound:  relative L2 error against exact arithmetic on the decoded values <= 2e-6 for scores of unit variance and 4096
///         tokens; <= 2e-4 if keys or values in q8 or q4 are multiplied by 16-bit integers, see kvl_precision. For each
///         (query, query head) pair the weight of the largest score is exactly 1 before normalization. The relative error of
///         a weight is the absolute error of its score, which grows with the scores: 1e-2 at 1e4. Products that overflow f32
///         give infinity or NaN. Except for the bits of a NaN, results do not depend on the executor, its threads, or the
///         other sequences and queries; they may differ between isas
/// Threads: the executor's. The calling thread runs all tasks if executor is null, or if KVL_MAX_EXECUTOR_CALLS other calls
///         of the process are running on executors
/// Allocates: no
/// Source: M. Milakov, N. Gimelshein, "Online normalizer calculation for softmax" (2018); T. Dao et al., "Flash-Decoding
///         for long-context inference" (2023)
KVL_API kvl_status kvl_attend(const kvl_attention *attention, const kvl_sequence *sequences, uint32_t n_sequences,
                              void *workspace, size_t workspace_bytes, const kvl_executor *executor);

/// Begins a call whose tasks the caller runs: for runtimes whose threads are all inside the operator already.
/// One thread begins the call. Each task in [0, n_tasks) is then run exactly once, by any thread, in any order; when all
/// have returned, one thread finishes the call. Until then, everything that the call reads stays valid and unchanged.
/// n_tasks is at most max_tasks, the number of threads that are to take part. A task claims work items until none is left,
/// so tasks that one thread runs one after another do not share the work.
/// Pre:    as kvl_attend; n_tasks does not overlap anything else that the call uses
/// Errors: as kvl_attend; KVL_ERROR_NULL also when n_tasks is null; KVL_ERROR_RANGE also when max_tasks is 0 or over
///         KVL_MAX_TASKS
KVL_API kvl_status kvl_attend_begin(const kvl_attention *attention, const kvl_sequence *sequences, uint32_t n_sequences,
                                    void *workspace, size_t workspace_bytes, uint32_t max_tasks, uint32_t *n_tasks);

/// Runs one task of the call that was begun in this workspace.
/// Errors: KVL_ERROR_NULL; KVL_ERROR_WORKSPACE_STATE when no call has been begun; KVL_ERROR_TASK when task >= n_tasks or
///         the task was already run
/// Threads: any number at once, with different tasks   Allocates: no
KVL_API kvl_status kvl_attend_run_task(void *workspace, uint32_t task);

/// Ends the call that was begun in this workspace; the outputs are complete.
/// Errors: KVL_ERROR_NULL; KVL_ERROR_WORKSPACE_STATE when no call has been begun; KVL_ERROR_TASK when a task was not run or
///         is still running: then the call stays open
KVL_API kvl_status kvl_attend_finish(void *workspace);

/// Plans the calls of one step of a model: checks the sequences and divides them into work items once.
/// kvl_attend_planned then serves the step's layers, whose sequences differ in addresses alone. Results are bitwise
/// identical to those of kvl_attend.
/// Pre:    as kvl_attend, with the addresses of the step's first layer. The plan is stored in the workspace and serves one
///         call at a time; attention outlives it. Any other call in the workspace destroys the plan
/// Errors: as kvl_attend_begin
/// Threads: any, one at a time per workspace   Allocates: no
KVL_API kvl_status kvl_plan(const kvl_attention *attention, const kvl_sequence *sequences, uint32_t n_sequences,
                            void *workspace, size_t workspace_bytes, uint32_t max_tasks);

/// Computes attention, as kvl_attend does, for the sequences of the plan in the workspace. Only addresses may differ: of q,
/// out, lse, a range's outputs, a mask's rows, views, their spans' keys and values, blocks and key offsets. The plan stays
/// valid even if the call fails.
/// Pre:    as kvl_attend. Overlaps, strides of views, and which blocks a block table lists, the same as in the plan, are not
///         checked again
/// Errors: KVL_ERROR_NULL, _STRUCT_SIZE, _FLAGS, _GEOMETRY, _FORMAT, _ROTATION, _STRIDE, _ALIGNMENT, _LENGTH, _RANGE,
///         _MASK; KVL_ERROR_PLAN when a field that is not an address differs from the plan's, or when sequences that share a
///         prefix in the plan do not share its memory here; KVL_ERROR_WORKSPACE_STATE when the workspace holds no plan, or a
///         call of it that has not ended; KVL_ERROR_TASK as kvl_attend
/// Bound:  as kvl_attend
/// Threads: those of the executor, of which at most max_tasks of the plan take part   Allocates: no
KVL_API kvl_status kvl_attend_planned(void *workspace, const kvl_sequence *sequences, uint32_t n_sequences,
                                      const kvl_executor *executor);

/// Begins a planned call whose tasks the caller runs, as kvl_attend_begin does. kvl_attend_finish ends it and keeps the
/// plan.
/// Errors: as kvl_attend_planned; KVL_ERROR_NULL also when n_tasks is null
KVL_API kvl_status kvl_attend_begin_planned(void *workspace, const kvl_sequence *sequences, uint32_t n_sequences,
                                            uint32_t *n_tasks);

/// Merges n_partials partial states of the same n_queries queries, in the order of the array. They may come from calls
/// with kvl_sequence.range on any machine and isa, with an attention object of the same descriptor, or from the caller.
///         out[h] = sum over p of exp(m[p] - M) o[p] / L,  L = exp(sink_logits[h] - M) + sum over p of exp(m[p] - M) l[p]
/// Partials are merged one at a time: m' = max(m, m[p]), l' = exp(m - m') l + exp(m[p] - m') l[p], and o likewise; a partial
/// without visible tokens changes no bit. If each partial covers one chunk of KVL_CHUNK_TOKENS positions, or fewer for the
/// last one, in order of position, the result is bitwise identical to a single call over all tokens on the same isa; without
/// sink logits the first partial may cover any number of whole chunks. Other partitions agree within kvl_attend's bound.
/// Shape:  partials [n_partials], each of n_queries; out [n_queries, n_query_heads, v_head_dim] f32; lse [n_queries,
///         n_query_heads] f32 or null
/// Units:  lse in natural log: M + log(L). If every l is 0, out is 0 and lse is -infinity or the sink's logit
/// Pre:    no token is in two partials
/// Errors: KVL_ERROR_NULL; KVL_ERROR_RANGE when n_partials or n_queries is 0, or n_queries * n_query_heads is over
///         INT32_MAX; KVL_ERROR_OVERLAP when out and lse overlap
///         each other, a partial or the array partials. All are returned before anything is written
/// Threads: the calling thread   Allocates: no
KVL_API kvl_status kvl_merge(const kvl_attention *attention, const kvl_partial *partials, uint32_t n_partials,
                             uint32_t n_queries, float *out, float *lse);

/// Merges n_partials partial states, in the order of the array, to one partial state: a link of a chain of machines, each
/// of which merges the states of its own tokens onto the state that it receives from the previous machine.
///         m = max over p of m[p],  l = sum over p of exp(m[p] - m) l[p],  o = sum over p of exp(m[p] - m) o[p]
/// Partials are merged one at a time, as by kvl_merge. Without sink logits, any consecutive partials from the first on may
/// be replaced by their merged state: a chain of any number of calls, ended by kvl_merge, is bitwise identical to one
/// kvl_merge of all partials. Sink logits are not included. A single call starts from them, kvl_merge adds them
/// last, and the bits differ: for identical bits, create the attention object of the ranges and of all merges
/// without sink_logits, and let the first partial of the chain be m = sink_logits[h], l = 1, o = 0, with l = 0 for a logit
/// of -infinity.
/// Shape:  each partial and out: m and l [n_rows], o [n_rows, v_head_dim] f32. Rows are independent, so they may be any
///         consecutive rows of larger partials: those from row r on begin at m + r, l + r and o + r * v_head_dim
/// Pre:    no token is in two partials. out.m, out.l and out.o may each be exactly the m, l or o of one partial (in place);
///         otherwise they overlap nothing
/// Errors: KVL_ERROR_NULL; KVL_ERROR_RANGE when n_partials is 0, or n_rows is 0 or over INT32_MAX; KVL_ERROR_OVERLAP when an
///         array of out overlaps another one, the array partials, or an array of a partial with another address or name. All
///         are returned before anything is written
/// Threads: the calling thread; other threads may merge other rows   Allocates: no
KVL_API kvl_status kvl_merge_partials(const kvl_attention *attention, const kvl_partial *partials, uint32_t n_partials,
                                      uint32_t n_rows, kvl_partial out);

/// The partial states of one sequence's queries and where their merged output goes.
/// Shape:  partials [n_partials]; out and lse as in kvl_sequence
typedef struct kvl_merge_desc {
    size_t struct_size;
    uint32_t flags;              /* none are defined */
    uint32_t n_queries;          /* 0: 1 */
    const kvl_partial *partials; /* in the order of merging */
    uint32_t n_partials;
    kvl_format out_format; /* KVL_F32, KVL_F16 or KVL_BF16 */
    void *out;
    float *lse; /* may be null */
    int64_t out_token_stride_bytes;
    int64_t out_head_stride_bytes;
    int64_t lse_token_stride_bytes;
    int64_t lse_head_stride_bytes;
} kvl_merge_desc;

/// Returns a kvl_merge_desc with struct_size set and all other fields 0.
static inline kvl_merge_desc kvl_merge_desc_init(void) {
    kvl_merge_desc init;
    memset(&init, 0, sizeof init);
    init.struct_size = sizeof init;
    return init;
}

/// Merges the partial states of n_merges sequences, each as kvl_merge does, to outputs of any layout and format.
/// Pre:    no output overlaps another output, a partial or a descriptor. Only overlaps within one element of merges are
///         detected; an output counts as all memory from its first row to its last
/// Errors: KVL_ERROR_NULL, _STRUCT_SIZE, _FLAGS, _FORMAT, _STRIDE, _OVERLAP; KVL_ERROR_RANGE as kvl_merge. All are returned
///         before anything is written
/// Threads: the calling thread   Allocates: no
KVL_API kvl_status kvl_merge_batch(const kvl_attention *attention, const kvl_merge_desc *merges, uint32_t n_merges);

/// Computes the size in bytes of the keys and values visible to a call's queries. Each row counts once, with its scales and
/// without padding. Values that alias the leading elements of the keys (MLA) are not counted again; masks are not counted. A
/// call may read more: stored tiles are read whole, and a chunk is reread, mostly from CPU caches, for every 32 (query,
/// query head) pairs, or fewer if head_dim is over 288.
/// Errors: as kvl_attend for sequences, except KVL_ERROR_OVERLAP: no output is written, so overlaps are not checked
KVL_API kvl_status kvl_attend_bytes(const kvl_attention *attention, const kvl_sequence *sequences, uint32_t n_sequences,
                                    uint64_t *bytes);

#ifdef __cplusplus
}
#endif

#endif
