//! Declarations of kvlane's C ABI, under its names. `include/kvlane/kvlane.h` is their reference: shapes, units,
//! preconditions, errors and thread safety. `NAME::default()` stands for C's `NAME_init()`.
//!
//! A test compares these declarations with the header. The crate `kvlane` has a safe interface.
#![allow(non_camel_case_types)]

use std::os::raw::{c_char, c_int, c_uint, c_void};

#[macro_use]
mod declare;
#[cfg(test)]
mod header_test;
#[cfg(test)]
use header_test::{Field, Function, Struct};

aliases! {
    pub type kvl_status = c_uint;
    pub type kvl_format = u32;
    pub type kvl_rotation = u32;
    pub type kvl_precision = u32;
}

callbacks! {
    /// The task that a `kvl_parallel_for` runs.
    pub type kvl_task = fn(context: *mut c_void, i: u32);
    pub type kvl_parallel_for = fn(pool: *mut c_void, n_tasks: u32, task: kvl_task, context: *mut c_void);
}

opaque_types! {
    pub struct kvl_cache;
    pub struct kvl_attention;
}

constants! {
    pub const KVL_VERSION_MAJOR: u32 = 0;
    pub const KVL_VERSION_MINOR: u32 = 3;
    pub const KVL_VERSION_PATCH: u32 = 0;

    pub const KVL_MAX_HEAD_DIM: u32 = 1024;
    pub const KVL_MAX_HEADS: u32 = 65536;
    pub const KVL_MAX_LAYERS: u32 = 65536;
    pub const KVL_MAX_TOKENS: i64 = 1 << 31;
    pub const KVL_DEFAULT_MAX_TOKENS: i64 = 131072;
    pub const KVL_MIN_BLOCK_TOKENS: u32 = 16;
    pub const KVL_MAX_EXTENT_BYTES: i64 = 1 << 47;
    pub const KVL_MAX_STRUCT_SIZE: usize = 4096;
    pub const KVL_WORKSPACE_ALIGNMENT: usize = 64;
    pub const KVL_MAX_EXECUTOR_CALLS: u32 = 256;
    pub const KVL_MAX_TASKS: u32 = 65536;
    pub const KVL_TASK_STACK_BYTES: usize = 16 * 1024;
    pub const KVL_TILE_TOKENS: u32 = 64;
    pub const KVL_TILE_ALIGNMENT: usize = 64;
    pub const KVL_CHUNK_TOKENS: u32 = 512;
    pub const KVL_TRUNCATABLE_TOKENS: u32 = 64;

    pub const KVL_OK: kvl_status = 0;
    pub const KVL_ERROR_STRUCT_SIZE: kvl_status = 1;
    pub const KVL_ERROR_FLAGS: kvl_status = 2;
    pub const KVL_ERROR_NULL: kvl_status = 3;
    pub const KVL_ERROR_RANGE: kvl_status = 4;
    pub const KVL_ERROR_FORMAT: kvl_status = 5;
    pub const KVL_ERROR_HEADS: kvl_status = 6;
    pub const KVL_ERROR_HEAD_DIM: kvl_status = 7;
    pub const KVL_ERROR_SCALE: kvl_status = 8;
    pub const KVL_ERROR_LAYER: kvl_status = 9;
    pub const KVL_ERROR_LENGTH: kvl_status = 10;
    pub const KVL_ERROR_CAPACITY: kvl_status = 11;
    pub const KVL_ERROR_APPEND_TWICE: kvl_status = 12;
    pub const KVL_ERROR_LAYER_MISSING: kvl_status = 13;
    pub const KVL_ERROR_GEOMETRY: kvl_status = 14;
    pub const KVL_ERROR_WORKSPACE_SIZE: kvl_status = 15;
    pub const KVL_ERROR_WORKSPACE_ALIGNMENT: kvl_status = 16;
    pub const KVL_ERROR_WORKSPACE_STATE: kvl_status = 17;
    pub const KVL_ERROR_TASK: kvl_status = 18;
    pub const KVL_ERROR_ISA: kvl_status = 19;
    pub const KVL_ERROR_MEMORY: kvl_status = 20;
    pub const KVL_ERROR_ROTATION: kvl_status = 21;
    pub const KVL_ERROR_RULE: kvl_status = 22;
    pub const KVL_ERROR_PRECISION: kvl_status = 23;
    pub const KVL_ERROR_BLOCK: kvl_status = 24;
    pub const KVL_ERROR_STRIDE: kvl_status = 25;
    pub const KVL_ERROR_OVERLAP: kvl_status = 26;
    pub const KVL_ERROR_MASK: kvl_status = 27;
    pub const KVL_ERROR_ALIGNMENT: kvl_status = 28;
    pub const KVL_ERROR_PLAN: kvl_status = 29;
    pub const KVL_ERROR_NUMA: kvl_status = 30;

    pub const KVL_F32: kvl_format = 0;
    pub const KVL_F16: kvl_format = 1;
    pub const KVL_BF16: kvl_format = 2;
    pub const KVL_Q8: kvl_format = 3;
    pub const KVL_Q4: kvl_format = 4;

    pub const KVL_ROTATION_DEFAULT: kvl_rotation = 0;
    pub const KVL_ROTATION_NONE: kvl_rotation = 1;
    pub const KVL_ROTATION_HADAMARD: kvl_rotation = 2;

    pub const KVL_PRECISION_DEFAULT: kvl_precision = 0;
    pub const KVL_PRECISION_EXACT: kvl_precision = 1;
    pub const KVL_PRECISION_FAST: kvl_precision = 2;

    pub const KVL_VIEW_TILES: u32 = 1;
    pub const KVL_LAYER_ESTIMATE_K_OFFSET: u32 = 1;
    pub const KVL_CACHE_NO_HUGE_PAGES: u32 = 1;
    pub const KVL_SEQUENCE_NON_CAUSAL: u32 = 1;
    pub const KVL_SEQUENCE_KV_HEADS: u32 = 2;
}

structs! {
    pub struct kvl_span {
        pub k: *const c_void,
        pub v: *const c_void,
        pub n_tokens: i64,
    }

    pub struct kvl_view {
        pub struct_size: usize,
        pub flags: u32,
        pub n_kv_heads: u32,
        pub head_dim: u32,
        pub v_head_dim: u32,
        pub k_format: kvl_format,
        pub v_format: kvl_format,
        pub k_token_stride_bytes: i64,
        pub k_head_stride_bytes: i64,
        pub v_token_stride_bytes: i64,
        pub v_head_stride_bytes: i64,
        pub len: i64,
        pub spans: *const kvl_span,
        pub n_spans: u32,
        pub reserved: u32,
        pub k_rotation: kvl_rotation,
        pub v_rotation: kvl_rotation,
        pub next: *const kvl_view,
        pub blocks: *const i32,
        pub n_blocks: u32,
        pub block_tokens: u32,
        pub k_block_stride_bytes: i64,
        pub v_block_stride_bytes: i64,
        pub n_overlap: i64,
        pub n_recent: i64,
        pub k_offset: *const f32,
    }

    pub struct kvl_layer_desc {
        pub struct_size: usize,
        pub flags: u32,
        pub n_kv_heads: u32,
        pub head_dim: u32,
        pub v_head_dim: u32,
        pub k_format: kvl_format,
        pub v_format: kvl_format,
        pub k_rotation: kvl_rotation,
        pub v_rotation: kvl_rotation,
        pub n_first_f16: i64,
        pub n_recent_f16: i64,
        pub k_offset: *const f32,
        pub numa_nodes: *const i32,
    }

    pub struct kvl_cache_desc {
        pub struct_size: usize,
        pub flags: u32,
        pub n_layers: u32,
        pub layers: *const kvl_layer_desc,
        pub n_layer_descs: u32,
        pub reserved: u32,
        pub max_tokens: i64,
    }

    pub struct kvl_rows {
        pub struct_size: usize,
        pub flags: u32,
        pub k_format: kvl_format,
        pub v_format: kvl_format,
        pub reserved: u32,
        pub n_tokens: i64,
        pub k: *const c_void,
        pub v: *const c_void,
        pub k_token_stride_bytes: i64,
        pub k_head_stride_bytes: i64,
        pub v_token_stride_bytes: i64,
        pub v_head_stride_bytes: i64,
    }

    pub struct kvl_layer_info {
        pub struct_size: usize,
        pub flags: u32,
        pub n_kv_heads: u32,
        pub head_dim: u32,
        pub v_head_dim: u32,
        pub k_format: kvl_format,
        pub v_format: kvl_format,
        pub k_entry_size: u32,
        pub v_entry_size: u32,
        pub len: i64,
        pub bytes_per_token: u64,
        pub k_rotation: kvl_rotation,
        pub v_rotation: kvl_rotation,
        pub n_first_f16: i64,
        pub n_recent_f16: i64,
    }

    pub struct kvl_attention_desc {
        pub struct_size: usize,
        pub flags: u32,
        pub n_query_heads: u32,
        pub n_kv_heads: u32,
        pub head_dim: u32,
        pub v_head_dim: u32,
        pub k_format: kvl_format,
        pub v_format: kvl_format,
        pub scale: f32,
        pub k_rotation: kvl_rotation,
        pub v_rotation: kvl_rotation,
        pub window: i64,
        pub n_sink_tokens: i64,
        pub alibi_slopes: *const f32,
        pub sink_logits: *const f32,
        pub softcap: f32,
        pub precision: kvl_precision,
    }

    pub struct kvl_workspace_desc {
        pub struct_size: usize,
        pub flags: u32,
        pub n_sequences: u32,
        pub max_len: i64,
        pub max_queries: u32,
        pub max_tasks: u32,
        pub out_format: kvl_format,
        pub reserved: u32,
    }

    pub struct kvl_partial {
        pub m: *mut f32,
        pub l: *mut f32,
        pub o: *mut f32,
    }

    pub struct kvl_range {
        pub struct_size: usize,
        pub flags: u32,
        pub reserved: u32,
        pub view_first: i64,
        pub first: i64,
        pub end: i64,
        pub out: kvl_partial,
    }

    pub struct kvl_mask {
        pub struct_size: usize,
        pub flags: u32,
        pub reserved: u32,
        pub bits: *const u64,
        pub biases: *const f32,
        pub n_tokens: i64,
        pub bits_stride_bytes: i64,
        pub biases_stride_bytes: i64,
        pub bits_head_stride_bytes: i64,
        pub biases_head_stride_bytes: i64,
    }

    pub struct kvl_sequence {
        pub struct_size: usize,
        pub flags: u32,
        pub n_queries: u32,
        pub view: *const kvl_view,
        pub len: i64,
        pub q: *const c_void,
        pub out: *mut c_void,
        pub lse: *mut f32,
        pub range: *const kvl_range,
        pub mask: *const kvl_mask,
        pub q_format: kvl_format,
        pub out_format: kvl_format,
        pub q_token_stride_bytes: i64,
        pub q_head_stride_bytes: i64,
        pub out_token_stride_bytes: i64,
        pub out_head_stride_bytes: i64,
        pub lse_token_stride_bytes: i64,
        pub lse_head_stride_bytes: i64,
        pub causal_offset: i64,
        pub first_kv_head: u32,
        pub reserved: u32,
    }

    pub struct kvl_executor {
        pub parallel_for: kvl_parallel_for,
        pub pool: *mut c_void,
        pub n_threads: u32,
    }

    pub struct kvl_merge_desc {
        pub struct_size: usize,
        pub flags: u32,
        pub n_queries: u32,
        pub partials: *const kvl_partial,
        pub n_partials: u32,
        pub out_format: kvl_format,
        pub out: *mut c_void,
        pub lse: *mut f32,
        pub out_token_stride_bytes: i64,
        pub out_head_stride_bytes: i64,
        pub lse_token_stride_bytes: i64,
        pub lse_head_stride_bytes: i64,
    }
}

functions! {
    pub fn kvl_last_error() -> *const c_char;
    pub fn kvl_status_name(status: kvl_status) -> *const c_char;
    pub fn kvl_version() -> *const c_char;
    pub fn kvl_format_name(format: kvl_format) -> *const c_char;
    pub fn kvl_format_from_name(name: *const c_char, format: *mut kvl_format) -> kvl_status;
    pub fn kvl_n_isas() -> u32;
    pub fn kvl_isa_name(i: u32) -> *const c_char;
    pub fn kvl_isa_supported(i: u32) -> c_int;
    pub fn kvl_isa_in_force(name: *mut *const c_char) -> kvl_status;
    pub fn kvl_cache_create(desc: *const kvl_cache_desc, cache: *mut *mut kvl_cache) -> kvl_status;
    pub fn kvl_cache_destroy(cache: *mut kvl_cache);
    pub fn kvl_cache_copy(source: *const kvl_cache, copy: *mut *mut kvl_cache) -> kvl_status;
    pub fn kvl_cache_append(
        cache: *mut kvl_cache,
        layer: u32,
        n_tokens: i64,
        k: *const f32,
        k_len: usize,
        v: *const f32,
        v_len: usize,
    ) -> kvl_status;
    pub fn kvl_cache_append_rows(cache: *mut kvl_cache, layer: u32, rows: *const kvl_rows) -> kvl_status;
    pub fn kvl_cache_commit(
        cache: *mut kvl_cache,
        layer: u32,
        first_kv_head: u32,
        n_kv_heads: u32,
        n_tokens: i64,
    ) -> kvl_status;
    pub fn kvl_cache_advance(cache: *mut kvl_cache, n_tokens: i64) -> kvl_status;
    pub fn kvl_cache_truncate(cache: *mut kvl_cache, len: i64) -> kvl_status;
    pub fn kvl_cache_clear(cache: *mut kvl_cache) -> kvl_status;
    pub fn kvl_cache_len(cache: *const kvl_cache) -> i64;
    pub fn kvl_cache_max_tokens(cache: *const kvl_cache) -> i64;
    pub fn kvl_cache_bytes(cache: *const kvl_cache) -> u64;
    pub fn kvl_cache_n_layers(cache: *const kvl_cache) -> u32;
    pub fn kvl_cache_layer_info(cache: *const kvl_cache, layer: u32, info: *mut kvl_layer_info) -> kvl_status;
    pub fn kvl_cache_view(cache: *const kvl_cache, layer: u32, view: *mut kvl_view) -> kvl_status;
    pub fn kvl_cache_read_k(
        cache: *const kvl_cache,
        layer: u32,
        first: i64,
        n_tokens: i64,
        out: *mut f32,
        out_len: usize,
    ) -> kvl_status;
    pub fn kvl_cache_read_v(
        cache: *const kvl_cache,
        layer: u32,
        first: i64,
        n_tokens: i64,
        out: *mut f32,
        out_len: usize,
    ) -> kvl_status;
    pub fn kvl_tile_layout(
        layer: *const kvl_layer_desc,
        block_tokens: u32,
        view: *mut kvl_view,
    ) -> kvl_status;
    pub fn kvl_tiles_write(
        view: *const kvl_view,
        first: i64,
        n_tokens: i64,
        k: *const f32,
        k_len: usize,
        v: *const f32,
        v_len: usize,
    ) -> kvl_status;
    pub fn kvl_tiles_write_rows(view: *const kvl_view, first: i64, rows: *const kvl_rows) -> kvl_status;
    pub fn kvl_tiles_write_slots(
        pool: *const kvl_view,
        slots: *const i64,
        rows: *const kvl_rows,
    ) -> kvl_status;
    pub fn kvl_attention_desc_from_cache(
        cache: *const kvl_cache,
        layer: u32,
        n_query_heads: u32,
        desc: *mut kvl_attention_desc,
    ) -> kvl_status;
    pub fn kvl_attention_create(
        desc: *const kvl_attention_desc,
        attention: *mut *mut kvl_attention,
    ) -> kvl_status;
    pub fn kvl_attention_destroy(attention: *mut kvl_attention);
    pub fn kvl_attention_kernel(attention: *const kvl_attention) -> *const c_char;
    pub fn kvl_attention_workspace_size_for(
        attention: *const kvl_attention,
        desc: *const kvl_workspace_desc,
        bytes: *mut usize,
    ) -> kvl_status;
    pub fn kvl_attention_workspace_size(
        attention: *const kvl_attention,
        n_sequences: u32,
        max_len: i64,
        max_queries: u32,
        max_tasks: u32,
        bytes: *mut usize,
    ) -> kvl_status;
    pub fn kvl_mask_bits_from_bytes(
        bytes: *const u8,
        n_rows: i64,
        n_tokens: i64,
        stride_bytes: i64,
        bits: *mut u64,
    ) -> kvl_status;
    pub fn kvl_rows_to_f32(
        format: kvl_format,
        rows: *const c_void,
        n_rows: i64,
        n: i64,
        stride_bytes: i64,
        out: *mut f32,
    ) -> kvl_status;
    pub fn kvl_attend(
        attention: *const kvl_attention,
        sequences: *const kvl_sequence,
        n_sequences: u32,
        workspace: *mut c_void,
        workspace_bytes: usize,
        executor: *const kvl_executor,
    ) -> kvl_status;
    pub fn kvl_attend_begin(
        attention: *const kvl_attention,
        sequences: *const kvl_sequence,
        n_sequences: u32,
        workspace: *mut c_void,
        workspace_bytes: usize,
        max_tasks: u32,
        n_tasks: *mut u32,
    ) -> kvl_status;
    pub fn kvl_attend_run_task(workspace: *mut c_void, task: u32) -> kvl_status;
    pub fn kvl_attend_finish(workspace: *mut c_void) -> kvl_status;
    pub fn kvl_plan(
        attention: *const kvl_attention,
        sequences: *const kvl_sequence,
        n_sequences: u32,
        workspace: *mut c_void,
        workspace_bytes: usize,
        max_tasks: u32,
    ) -> kvl_status;
    pub fn kvl_attend_planned(
        workspace: *mut c_void,
        sequences: *const kvl_sequence,
        n_sequences: u32,
        executor: *const kvl_executor,
    ) -> kvl_status;
    pub fn kvl_attend_begin_planned(
        workspace: *mut c_void,
        sequences: *const kvl_sequence,
        n_sequences: u32,
        n_tasks: *mut u32,
    ) -> kvl_status;
    pub fn kvl_merge(
        attention: *const kvl_attention,
        partials: *const kvl_partial,
        n_partials: u32,
        n_queries: u32,
        out: *mut f32,
        lse: *mut f32,
    ) -> kvl_status;
    pub fn kvl_merge_partials(
        attention: *const kvl_attention,
        partials: *const kvl_partial,
        n_partials: u32,
        n_rows: u32,
        out: kvl_partial,
    ) -> kvl_status;
    pub fn kvl_merge_batch(
        attention: *const kvl_attention,
        merges: *const kvl_merge_desc,
        n_merges: u32,
    ) -> kvl_status;
    pub fn kvl_attend_bytes(
        attention: *const kvl_attention,
        sequences: *const kvl_sequence,
        n_sequences: u32,
        bytes: *mut u64,
    ) -> kvl_status;
}
