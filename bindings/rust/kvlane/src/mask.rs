use std::mem::size_of;

use kvlane_sys::*;

use crate::error::{check, check_len, count};
use crate::{Attention, Result};

/// Which tokens the queries of a sequence see, in addition to causality and the window, and biases of their scores.
#[derive(Clone, Copy, Debug)]
pub struct Mask<'a> {
    /// Tokens of each row: at least the smaller of the sequence's len and its range's end
    pub n_tokens: usize,
    /// Rows of `(n_tokens + 63) / 64` words: token t is visible if bit `t % 64` of word `t / 64` is set
    pub bits: Option<MaskRows<'a, u64>>,
    /// Rows of n_tokens elements that are added to the scores, in natural log; -infinity hides a token
    pub biases: Option<MaskRows<'a, f32>>,
}

/// Rows of a mask: `[n_query_heads or 1][n_queries or 1][words or tokens]`, contiguous.
#[derive(Clone, Copy, Debug)]
pub struct MaskRows<'a, T> {
    /// All rows
    pub rows: &'a [T],
    /// Whether each query head has its own rows
    pub by_head: bool,
    /// Whether each query has its own row
    pub by_query: bool,
}

impl<'a, T> MaskRows<'a, T> {
    /// A row for each query, which all query heads share.
    pub fn by_query(rows: &'a [T]) -> Self {
        Self { rows, by_head: false, by_query: true }
    }

    /// Checks the number of rows of `row_len` elements. Returns the strides of queries and heads in bytes.
    fn strides(&self, name: &str, row_len: usize, n_queries: u32, n_query_heads: u32) -> Result<(i64, i64)> {
        let n_queries = if self.by_query { n_queries as usize } else { 1 };
        let n_heads = if self.by_head { n_query_heads as usize } else { 1 };
        let needed = row_len as u128 * n_queries as u128 * n_heads as u128;
        let shape = format!("{n_heads} heads, {n_queries} queries, rows of {row_len}");
        check_len(name, self.rows.len(), needed, &shape)?;
        let row_bytes = row_len.saturating_mul(size_of::<T>());
        let query_stride = if self.by_query { row_bytes } else { 0 };
        let head_stride = if self.by_head { row_bytes.saturating_mul(n_queries) } else { 0 };
        Ok((count(query_stride), count(head_stride)))
    }
}

impl Mask<'_> {
    /// The C descriptor, whose memory is checked.
    pub(crate) fn desc(&self, attention: &Attention, n_queries: u32) -> Result<kvl_mask> {
        let n_words = self.n_tokens / 64 + usize::from(self.n_tokens % 64 > 0);
        let mut desc = kvl_mask { n_tokens: count(self.n_tokens), ..Default::default() };
        if let Some(bits) = &self.bits {
            desc.bits = bits.rows.as_ptr();
            (desc.bits_stride_bytes, desc.bits_head_stride_bytes) =
                bits.strides("bits", n_words, n_queries, attention.n_query_heads())?;
        }
        if let Some(biases) = &self.biases {
            desc.biases = biases.rows.as_ptr();
            (desc.biases_stride_bytes, desc.biases_head_stride_bytes) =
                biases.strides("biases", self.n_tokens, n_queries, attention.n_query_heads())?;
        }
        Ok(desc)
    }
}

/// Converts rows of n_tokens booleans to rows of bits, for [`Mask::bits`].
///
/// # Errors
/// `KVL_ERROR_LENGTH` when visible is not a whole number of rows; `KVL_ERROR_RANGE` when n_tokens is 0 or over
/// `KVL_MAX_TOKENS`
pub fn mask_bits(visible: &[bool], n_tokens: usize) -> Result<Vec<u64>> {
    if n_tokens == 0 {
        return Err(crate::Error::new(KVL_ERROR_RANGE, "n_tokens is 0; it must be at least 1".to_string()));
    }
    let n_rows = visible.len() / n_tokens;
    check_len("visible", visible.len(), n_rows as u128 * n_tokens as u128, "[n_rows, n_tokens]")?;
    let mut bits = vec![0; n_rows * ((n_tokens - 1) / 64 + 1)];
    let (n_rows, n_tokens) = (count(n_rows), count(n_tokens));
    // Safety: a bool is a byte, 0 or 1; the rows are consecutive.
    check(unsafe {
        kvl_mask_bits_from_bytes(visible.as_ptr().cast(), n_rows, n_tokens, n_tokens, bits.as_mut_ptr())
    })?;
    Ok(bits)
}
