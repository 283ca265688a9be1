use kvlane_sys::*;

use crate::error::check_len;
use crate::{Format, Result, Rotation};

/// Geometry of one layer's keys and values.
///
/// ```
/// use kvlane::{Format, Layer};
/// let layer = Layer { k_format: Format::Q8, v_format: Format::Q4, n_recent_f16: 64, ..Layer::new(8, 128) };
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Layer {
    /// KV heads
    pub n_kv_heads: u32,
    /// Elements of a key
    pub head_dim: u32,
    /// Elements of a value; 0: as head_dim
    pub v_head_dim: u32,
    /// Storage format of the keys
    pub k_format: Format,
    /// Storage format of the values
    pub v_format: Format,
    /// Rotation of the keys
    pub k_rotation: Rotation,
    /// Rotation of the values
    pub v_rotation: Rotation,
    /// First tokens of a layer of q8 or q4 that are kept in f16
    pub n_first_f16: usize,
    /// Most recent tokens of a layer of q8 or q4 that are kept in f16
    pub n_recent_f16: usize,
    /// `[n_kv_heads, head_dim]`, subtracted from the keys before they are stored; empty: nothing
    pub k_offset: Vec<f32>,
    /// Whether the key offset is the mean of the first tile's keys, see `KVL_LAYER_ESTIMATE_K_OFFSET`
    pub estimates_k_offset: bool,
}

impl Layer {
    /// A layer of f16 whose values have head_dim elements too.
    pub fn new(n_kv_heads: u32, head_dim: u32) -> Self {
        Self {
            n_kv_heads,
            head_dim,
            v_head_dim: 0,
            k_format: Format::F16,
            v_format: Format::F16,
            k_rotation: Rotation::ByFormat,
            v_rotation: Rotation::ByFormat,
            n_first_f16: 0,
            n_recent_f16: 0,
            k_offset: Vec::new(),
            estimates_k_offset: false,
        }
    }

    /// The C descriptor, which points to this layer's k_offset.
    pub(crate) fn desc(&self) -> Result<kvl_layer_desc> {
        let mut k_offset = std::ptr::null();
        if !self.k_offset.is_empty() {
            let needed = u128::from(self.n_kv_heads) * u128::from(self.head_dim);
            check_len("k_offset", self.k_offset.len(), needed, "[n_kv_heads, head_dim]; or none")?;
            k_offset = self.k_offset.as_ptr();
        }
        Ok(kvl_layer_desc {
            flags: if self.estimates_k_offset { KVL_LAYER_ESTIMATE_K_OFFSET } else { 0 },
            n_kv_heads: self.n_kv_heads,
            head_dim: self.head_dim,
            v_head_dim: self.v_head_dim,
            k_format: self.k_format as kvl_format,
            v_format: self.v_format as kvl_format,
            k_rotation: self.k_rotation as kvl_rotation,
            v_rotation: self.v_rotation as kvl_rotation,
            n_first_f16: crate::error::count(self.n_first_f16),
            n_recent_f16: crate::error::count(self.n_recent_f16),
            k_offset,
            ..Default::default()
        })
    }
}

/// Geometry, formats and length of one layer of a cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LayerInfo {
    /// KV heads
    pub n_kv_heads: u32,
    /// Elements of a key
    pub head_dim: u32,
    /// Elements of a value
    pub v_head_dim: u32,
    /// Storage format of the keys
    pub k_format: Format,
    /// Storage format of the values
    pub v_format: Format,
    /// Rotation of the keys in force
    pub k_rotation: Rotation,
    /// Rotation of the values in force
    pub v_rotation: Rotation,
    /// Elements of one token's keys: `n_kv_heads * head_dim`
    pub k_entry_size: usize,
    /// Elements of one token's values: `n_kv_heads * v_head_dim`
    pub v_entry_size: usize,
    /// Tokens, pending ones included
    pub len: usize,
    /// Memory per token in k_format and v_format, padding included
    pub bytes_per_token: u64,
    /// First tokens that are kept in f16, in force: rounded up
    pub n_first_f16: usize,
    /// Most recent tokens that are kept in f16, in force: rounded up
    pub n_recent_f16: usize,
}

impl LayerInfo {
    pub(crate) fn from_c(info: &kvl_layer_info) -> Self {
        Self {
            n_kv_heads: info.n_kv_heads,
            head_dim: info.head_dim,
            v_head_dim: info.v_head_dim,
            k_format: Format::from_c(info.k_format),
            v_format: Format::from_c(info.v_format),
            k_rotation: Rotation::from_c(info.k_rotation),
            v_rotation: Rotation::from_c(info.v_rotation),
            k_entry_size: info.k_entry_size as usize,
            v_entry_size: info.v_entry_size as usize,
            len: info.len as usize,
            bytes_per_token: info.bytes_per_token,
            n_first_f16: info.n_first_f16 as usize,
            n_recent_f16: info.n_recent_f16 as usize,
        }
    }
}
