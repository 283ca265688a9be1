use kvlane_sys::*;

use crate::error::{check, check_len, count};
use crate::view::check_blocks;
use crate::workspace::AlignedMemory;
use crate::{Layer, Result, Rows, View};

/// Packed tiles of one layer, in blocks that the caller gives to sequences: the memory of a paged KV cache.
///
/// A slot is the place of one token: slot s is token `s % block_tokens` of block `s / block_tokens`.
#[derive(Debug)]
pub struct TilePool {
    memory: AlignedMemory,
    layout: kvl_view, // without tokens; its k_offset is the layer's
    layer: Layer,
    n_blocks: usize,
}

// Safety: its pointer is to the layer's k_offset, which nothing changes.
unsafe impl Send for TilePool {}
unsafe impl Sync for TilePool {}

impl TilePool {
    /// Allocates n_blocks blocks of block_tokens tokens each, a multiple of `KVL_TILE_TOKENS`.
    ///
    /// # Errors
    /// Those of `kvl_tile_layout`; `KVL_ERROR_LENGTH` when k_offset is neither empty nor `[n_kv_heads, head_dim]`;
    /// `KVL_ERROR_MEMORY`
    pub fn new(layer: &Layer, block_tokens: u32, n_blocks: usize) -> Result<Self> {
        let layer = layer.clone();
        let mut layout = kvl_view::default();
        // Safety: the layer's k_offset is of its shape, and lives as long as the pool.
        check(unsafe { kvl_tile_layout(&layer.desc()?, block_tokens, &mut layout) })?;
        let bytes = (layout.k_block_stride_bytes as usize).saturating_mul(n_blocks);
        Ok(Self { memory: AlignedMemory::new(bytes)?, layout, layer, n_blocks })
    }

    /// Returns the number of blocks.
    pub fn n_blocks(&self) -> usize {
        self.n_blocks
    }

    /// Returns the geometry that the pool was made with.
    pub fn layer(&self) -> &Layer {
        &self.layer
    }

    /// Writes tokens to their slots; one with a negative slot is not written. Slots are distinct, and the first token of a
    /// tile is written before the others, or earlier in the same call: it clears the tile.
    ///
    /// # Errors
    /// Those of `kvl_tiles_write_slots`; `KVL_ERROR_LENGTH` when slots, k or v are not of n_tokens tokens
    pub fn write(&mut self, slots: &[i64], rows: &Rows<'_>) -> Result<()> {
        check_len("slots", slots.len(), rows.n_tokens as u128, "[n_tokens]")?;
        let desc = rows.desc(self.layout.n_kv_heads, self.layout.head_dim, self.layout.v_head_dim)?;
        let span = kvl_span { k: self.memory.as_mut_ptr(), v: std::ptr::null(), n_tokens: self.n_tokens() };
        let pool = kvl_view { spans: &span, n_spans: 1, ..self.layout };
        // Safety: the span is the pool's memory, and the rows of desc lie within its slices.
        check(unsafe { kvl_tiles_write_slots(&pool, slots.as_ptr(), &desc) })
    }

    /// Makes a view of the first len tokens of a sequence in these blocks, in order of position.
    ///
    /// # Errors
    /// `KVL_ERROR_LENGTH` when the blocks hold fewer tokens, `KVL_ERROR_BLOCK` when one is not in the pool
    pub fn view<'a>(&'a self, blocks: &'a [i32], len: usize) -> Result<View<'a>> {
        check_blocks(blocks, self.n_blocks, self.layout.block_tokens as usize, len)?;
        let raw = kvl_view {
            len: count(len),
            blocks: blocks.as_ptr(),
            n_blocks: crate::error::array_len("blocks", blocks.len())?,
            ..self.layout
        };
        let span = kvl_span { k: self.memory.as_ptr(), v: std::ptr::null(), n_tokens: self.n_tokens() };
        // Safety: the pool and the block table are borrowed, and hold the view's tokens.
        unsafe { View::with_spans(raw, vec![span]) }
    }

    fn n_tokens(&self) -> i64 {
        count(self.n_blocks.saturating_mul(self.layout.block_tokens as usize))
    }
}
