use std::os::raw::c_void;

use kvlane_sys::*;

use crate::error::{check, count};
use crate::{Error, Format, Result};

/// Elements of rows in the caller's memory; f16 and bf16 as their bits.
#[derive(Clone, Copy, Debug)]
pub enum Elements<'a> {
    /// IEEE 754 binary32
    F32(&'a [f32]),
    /// IEEE 754 binary16
    F16(&'a [u16]),
    /// The upper half of a binary32
    Bf16(&'a [u16]),
}

impl Elements<'_> {
    /// Returns the format of the elements.
    pub fn format(&self) -> Format {
        match self {
            Self::F32(_) => Format::F32,
            Self::F16(_) => Format::F16,
            Self::Bf16(_) => Format::Bf16,
        }
    }

    /// Returns the number of elements.
    pub fn len(&self) -> usize {
        match self {
            Self::F32(elements) => elements.len(),
            Self::F16(elements) | Self::Bf16(elements) => elements.len(),
        }
    }

    /// Returns whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Converts the elements to f32, exactly.
    ///
    /// # Errors
    /// `KVL_ERROR_RANGE` when there are more than `KVL_MAX_TOKENS`, `KVL_ERROR_ISA`
    pub fn to_f32(&self) -> Result<Vec<f32>> {
        let mut out = vec![0.0; self.len()];
        let format = self.format() as kvl_format;
        // Safety: both sides are one row of as many elements.
        check(unsafe { kvl_rows_to_f32(format, self.as_ptr(), 1, count(self.len()), 0, out.as_mut_ptr()) })?;
        Ok(out)
    }

    pub(crate) fn as_ptr(&self) -> *const c_void {
        match self {
            Self::F32(elements) => elements.as_ptr().cast(),
            Self::F16(elements) | Self::Bf16(elements) => elements.as_ptr().cast(),
        }
    }
}

impl<'a> From<&'a [f32]> for Elements<'a> {
    fn from(elements: &'a [f32]) -> Self {
        Self::F32(elements)
    }
}

impl<'a> From<&'a Vec<f32>> for Elements<'a> {
    fn from(elements: &'a Vec<f32>) -> Self {
        Self::F32(elements)
    }
}

/// Elements of rows in the caller's memory that a call writes; f16 and bf16 as their bits.
#[derive(Debug)]
pub enum ElementsMut<'a> {
    /// IEEE 754 binary32
    F32(&'a mut [f32]),
    /// IEEE 754 binary16
    F16(&'a mut [u16]),
    /// The upper half of a binary32
    Bf16(&'a mut [u16]),
}

impl ElementsMut<'_> {
    pub(crate) fn as_elements(&self) -> Elements<'_> {
        match self {
            Self::F32(elements) => Elements::F32(elements),
            Self::F16(elements) => Elements::F16(elements),
            Self::Bf16(elements) => Elements::Bf16(elements),
        }
    }

    pub(crate) fn as_mut_ptr(&mut self) -> *mut c_void {
        match self {
            Self::F32(elements) => elements.as_mut_ptr().cast(),
            Self::F16(elements) | Self::Bf16(elements) => elements.as_mut_ptr().cast(),
        }
    }
}

/// Distances in elements between the rows of consecutive tokens (or queries) and heads. 0: contiguous, `[token][head][dim]`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Strides {
    /// Between tokens
    pub token: usize,
    /// Between heads of a token
    pub head: usize,
}

/// The shape and strides of rows, with which slices are checked.
#[derive(Clone, Copy)]
pub(crate) struct Shape {
    pub n_tokens: usize,
    pub n_heads: u32,
    pub dim: u32,
    pub strides: Strides,
}

impl Shape {
    /// The strides with their defaults resolved, as C resolves them.
    pub fn resolved(&self) -> Strides {
        let head =
            if self.strides.head > 0 && self.n_heads > 1 { self.strides.head } else { self.dim as usize };
        let token = if self.strides.token > 0 {
            self.strides.token
        } else {
            head.saturating_mul(self.n_heads as usize)
        };
        Strides { token, head }
    }

    /// Checks that a slice holds the rows: exactly if they are contiguous, else at least.
    pub fn check(&self, name: &str, len: usize) -> Result<()> {
        let Strides { token, head } = self.resolved();
        let n_heads = self.n_heads as usize;
        let needed = extent(&[(self.n_tokens, token), (n_heads, head), (self.dim as usize, 1)]);
        let is_contiguous = self.strides == Strides::default();
        if len as u128 == needed || (!is_contiguous && len as u128 > needed) {
            return Ok(());
        }
        let at_least = if is_contiguous { "" } else { "at least " };
        let text = format!(
            "{name} has {len} elements; it must have {at_least}{needed}, for {} tokens of {n_heads} heads of {} elements",
            self.n_tokens, self.dim
        );
        Err(Error::new(KVL_ERROR_LENGTH, text))
    }
}

/// Elements from the first to the last one of an array with these counts and strides.
pub(crate) fn extent(dimensions: &[(usize, usize)]) -> u128 {
    if dimensions.iter().any(|(n, _)| *n == 0) {
        return 0;
    }
    dimensions.iter().fold(1, |sum: u128, (n, stride)| sum.saturating_add((n - 1) as u128 * *stride as u128))
}

/// A distance in bytes.
pub(crate) fn in_bytes(elements: usize, format: Format) -> i64 {
    let size = if format == Format::F32 { 4 } else { 2 };
    count(elements.saturating_mul(size))
}

/// Keys and values of new tokens in the caller's memory, of any layout and format.
#[derive(Clone, Copy, Debug)]
pub struct Rows<'a> {
    /// Tokens
    pub n_tokens: usize,
    /// `[n_tokens, n_kv_heads, head_dim]`
    pub k: Elements<'a>,
    /// `[n_tokens, n_kv_heads, v_head_dim]`
    pub v: Elements<'a>,
    /// Where the rows of k are
    pub k_strides: Strides,
    /// Where the rows of v are
    pub v_strides: Strides,
}

impl Rows<'_> {
    /// The C descriptor, whose memory is checked.
    pub(crate) fn desc(&self, n_kv_heads: u32, head_dim: u32, v_head_dim: u32) -> Result<kvl_rows> {
        let shape = |dim, strides| Shape { n_tokens: self.n_tokens, n_heads: n_kv_heads, dim, strides };
        shape(head_dim, self.k_strides).check("k", self.k.len())?;
        shape(v_head_dim, self.v_strides).check("v", self.v.len())?;
        Ok(kvl_rows {
            k_format: self.k.format() as kvl_format,
            v_format: self.v.format() as kvl_format,
            n_tokens: count(self.n_tokens),
            k: self.k.as_ptr(),
            v: self.v.as_ptr(),
            k_token_stride_bytes: in_bytes(self.k_strides.token, self.k.format()),
            k_head_stride_bytes: in_bytes(self.k_strides.head, self.k.format()),
            v_token_stride_bytes: in_bytes(self.v_strides.token, self.v.format()),
            v_head_stride_bytes: in_bytes(self.v_strides.head, self.v.format()),
            ..Default::default()
        })
    }
}
