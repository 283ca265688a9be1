use std::marker::PhantomData;
use std::ptr;

use kvlane_sys::*;

use crate::error::{array_len, count};
use crate::rows::{extent, in_bytes, Shape};
use crate::{Elements, Error, Format, Result, Rotation, Strides};

/// The location and formats of one layer's stored keys and values, which it borrows.
#[derive(Debug)]
pub struct View<'a> {
    raw: kvl_view,
    _spans: Box<[kvl_span]>, // those of raw, if they are this object's
    _borrowed: PhantomData<&'a [u8]>,
}

// Safety: a view reads memory that is borrowed, and can be shared between threads.
unsafe impl Send for View<'_> {}
unsafe impl Sync for View<'_> {}

/// Geometry of keys and values in the caller's memory.
#[derive(Clone, Copy, Debug)]
pub struct RowLayout {
    /// KV heads
    pub n_kv_heads: u32,
    /// Elements of a key
    pub head_dim: u32,
    /// Elements of a value
    pub v_head_dim: u32,
    /// How the keys were rotated: not `Rotation::ByFormat`
    pub k_rotation: Rotation,
    /// How the values were rotated: not `Rotation::ByFormat`
    pub v_rotation: Rotation,
    /// Distances between the keys of a run or block
    pub k_strides: Strides,
    /// Distances between the values of a run or block
    pub v_strides: Strides,
}

impl RowLayout {
    /// Contiguous rows `[n_tokens, n_kv_heads, head_dim]` of keys and of values, not rotated.
    pub fn new(n_kv_heads: u32, head_dim: u32) -> Self {
        Self {
            n_kv_heads,
            head_dim,
            v_head_dim: head_dim,
            k_rotation: Rotation::None,
            v_rotation: Rotation::None,
            k_strides: Strides::default(),
            v_strides: Strides::default(),
        }
    }

    fn k(&self, n_tokens: usize) -> Shape {
        Shape { n_tokens, n_heads: self.n_kv_heads, dim: self.head_dim, strides: self.k_strides }
    }

    fn v(&self, n_tokens: usize) -> Shape {
        Shape { n_tokens, n_heads: self.n_kv_heads, dim: self.v_head_dim, strides: self.v_strides }
    }
}

/// A run of consecutive tokens in the caller's memory.
#[derive(Clone, Copy, Debug)]
pub struct Span<'a> {
    /// Tokens
    pub n_tokens: usize,
    /// Keys of the tokens
    pub k: Elements<'a>,
    /// Values of the tokens
    pub v: Elements<'a>,
}

impl Span<'_> {
    fn desc(&self) -> kvl_span {
        kvl_span { k: self.k.as_ptr(), v: self.v.as_ptr(), n_tokens: count(self.n_tokens) }
    }
}

/// Rows in blocks of equally many tokens: token t is token `t % block_tokens` of block `blocks[t / block_tokens]`.
#[derive(Clone, Copy, Debug)]
pub struct Paged<'a> {
    /// All blocks: `n_tokens / block_tokens` of them
    pub pool: Span<'a>,
    /// Tokens of a block, at least `KVL_MIN_BLOCK_TOKENS`
    pub block_tokens: u32,
    /// Elements between the keys of consecutive blocks; 0: contiguous
    pub k_block_stride: usize,
    /// Elements between the values of consecutive blocks; 0: contiguous
    pub v_block_stride: usize,
    /// The sequence's blocks, in order of position
    pub blocks: &'a [i32],
    /// Tokens of the sequence
    pub len: usize,
}

impl<'a> View<'a> {
    /// Makes a view of rows in the caller's memory: the tokens of all spans, in this order.
    ///
    /// # Errors
    /// `KVL_ERROR_LENGTH` when a slice is too short, or longer than contiguous rows; `KVL_ERROR_FORMAT` when spans differ in
    /// their formats. Calls that use the view check the rest.
    pub fn rows(layout: &RowLayout, spans: &[Span<'a>]) -> Result<Self> {
        let formats = spans.first().map_or((Format::F32, Format::F32), |s| (s.k.format(), s.v.format()));
        for (i, span) in spans.iter().enumerate() {
            let place = format!("spans[{i}]");
            layout.k(span.n_tokens).check("k", span.k.len()).map_err(|e| e.within(&place))?;
            layout.v(span.n_tokens).check("v", span.v.len()).map_err(|e| e.within(&place))?;
            if (span.k.format(), span.v.format()) != formats {
                let text = "its formats differ from those of spans[0]; all must be alike".to_string();
                return Err(Error::new(KVL_ERROR_FORMAT, text).within(&place));
            }
        }
        let raw = kvl_view {
            len: count(spans.iter().fold(0, |sum: usize, span| sum.saturating_add(span.n_tokens))),
            ..rows_desc(layout, formats)
        };
        // Safety: the spans are borrowed and hold their tokens.
        unsafe { Self::with_spans(raw, spans.iter().map(Span::desc).collect()) }
    }

    /// Makes a view of rows in blocks of the caller's memory.
    ///
    /// # Errors
    /// `KVL_ERROR_LENGTH` when a slice or the blocks are too short, `KVL_ERROR_BLOCK` when a block is not in the pool. Calls
    /// that use the view check the rest.
    pub fn paged(layout: &RowLayout, paged: &Paged<'a>) -> Result<Self> {
        let pool = &paged.pool;
        let block_tokens = paged.block_tokens as usize;
        let n_blocks = pool.n_tokens.checked_div(block_tokens).unwrap_or(0);
        check_blocks(paged.blocks, n_blocks, block_tokens, paged.len)?;
        let (k, v) = (layout.k(block_tokens), layout.v(block_tokens));
        let k_block_stride = check_pool("k", pool.k, k, n_blocks, paged.k_block_stride)?;
        let v_block_stride = check_pool("v", pool.v, v, n_blocks, paged.v_block_stride)?;
        let raw = kvl_view {
            len: count(paged.len),
            blocks: paged.blocks.as_ptr(),
            n_blocks: array_len("blocks", paged.blocks.len())?,
            block_tokens: paged.block_tokens,
            k_block_stride_bytes: in_bytes(k_block_stride, pool.k.format()),
            v_block_stride_bytes: in_bytes(v_block_stride, pool.v.format()),
            ..rows_desc(layout, (pool.k.format(), pool.v.format()))
        };
        // Safety: the pool and the block table are borrowed, and hold the view's tokens.
        unsafe { Self::with_spans(raw, vec![pool.desc()]) }
    }

    /// Makes a view of this view's tokens and then those of another one, of the same geometry: a common prefix, for example,
    /// and a sequence's own tokens. If this view has not a multiple of 64 tokens, the last bits of results may change.
    ///
    /// # Errors
    /// `KVL_ERROR_RANGE` when this view already is several: of a layer that keeps tokens in f16, or from this function
    pub fn followed_by<'b>(&'b self, next: &'b View<'b>) -> Result<View<'b>> {
        if !self.raw.next.is_null() {
            let text = "view has a next one; only a single view can be followed by another".to_string();
            return Err(Error::new(KVL_ERROR_RANGE, text));
        }
        let raw = kvl_view { len: self.raw.len.saturating_add(next.raw.len), next: &next.raw, ..self.raw };
        // Safety: both are borrowed.
        Ok(unsafe { View::from_c(raw) })
    }

    /// Returns the number of tokens, pending ones included.
    pub fn len(&self) -> usize {
        self.raw.len as usize
    }

    /// Returns whether there are no tokens.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The view that C made, or one that refers to others: all that it points to must be valid for 'a.
    pub(crate) unsafe fn from_c(raw: kvl_view) -> Self {
        Self { raw, _spans: Box::default(), _borrowed: PhantomData }
    }

    /// A view of spans: their memory and all else that raw points to must be valid for 'a, and hold the view's tokens.
    pub(crate) unsafe fn with_spans(mut raw: kvl_view, spans: Vec<kvl_span>) -> Result<Self> {
        let spans = spans.into_boxed_slice();
        raw.spans = spans.as_ptr();
        raw.n_spans = array_len("spans", spans.len())?;
        Ok(Self { raw, _spans: spans, _borrowed: PhantomData })
    }

    pub(crate) fn as_ptr(&self) -> *const kvl_view {
        &self.raw
    }
}

/// The fields that the layout determines.
fn rows_desc(layout: &RowLayout, (k_format, v_format): (Format, Format)) -> kvl_view {
    let (k, v) = (layout.k(1).resolved(), layout.v(1).resolved());
    kvl_view {
        n_kv_heads: layout.n_kv_heads,
        head_dim: layout.head_dim,
        v_head_dim: layout.v_head_dim,
        k_format: k_format as kvl_format,
        v_format: v_format as kvl_format,
        k_token_stride_bytes: in_bytes(k.token, k_format),
        k_head_stride_bytes: in_bytes(k.head, k_format),
        v_token_stride_bytes: in_bytes(v.token, v_format),
        v_head_stride_bytes: in_bytes(v.head, v_format),
        k_rotation: layout.k_rotation as kvl_rotation,
        v_rotation: layout.v_rotation as kvl_rotation,
        next: ptr::null(),
        ..Default::default()
    }
}

/// Checks that a block table holds len tokens, in blocks of the pool.
pub(crate) fn check_blocks(blocks: &[i32], n_blocks: usize, block_tokens: usize, len: usize) -> Result<()> {
    if blocks.len() as u128 * (block_tokens as u128) < len as u128 {
        let text = format!("len is {len}; {} blocks of {block_tokens} tokens hold fewer", blocks.len());
        return Err(Error::new(KVL_ERROR_LENGTH, text));
    }
    match blocks.iter().position(|b| usize::try_from(*b).map_or(true, |b| b >= n_blocks)) {
        None => Ok(()),
        Some(i) => {
            let text = format!("blocks[{i}] is {}; the pool has {n_blocks} blocks, from 0 on", blocks[i]);
            Err(Error::new(KVL_ERROR_BLOCK, text))
        }
    }
}

/// Checks that a slice holds n_blocks blocks of one shape. Returns the stride between them.
fn check_pool(
    name: &str,
    elements: Elements<'_>,
    block: Shape,
    n_blocks: usize,
    stride: usize,
) -> Result<usize> {
    let Strides { token, head } = block.resolved();
    let stride = if stride > 0 { stride } else { token.saturating_mul(block.n_tokens) };
    let dimensions = [
        (n_blocks, stride),
        (block.n_tokens, token),
        (block.n_heads as usize, head),
        (block.dim as usize, 1),
    ];
    let needed = extent(&dimensions);
    if elements.len() as u128 >= needed {
        return Ok(stride);
    }
    let text = format!(
        "{name} has {} elements; it must have at least {needed}, for {n_blocks} blocks",
        elements.len()
    );
    Err(Error::new(KVL_ERROR_LENGTH, text))
}
