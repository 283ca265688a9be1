use std::ptr::{self, NonNull};

use kvlane_sys::*;

use crate::error::{array_len, check, count};
use crate::{Layer, LayerInfo, Result, Rows, View};

/// The keys and values of the tokens of one sequence, in all layers.
///
/// Tokens that are appended to a layer are *pending*: its views have them, [`len`](Self::len) does not count them. When all
/// layers have the same number of pending tokens, [`advance`](Self::advance) makes them part of the cache.
///
/// Reads share a cache, also between threads; what changes it needs it exclusively.
#[derive(Debug)]
pub struct Cache {
    raw: NonNull<kvl_cache>,
}

// Safety: the library ties a cache to no thread. Calls that take a const cache may run concurrently: they have `&self` here.
// Those that change one have `&mut self`.
unsafe impl Send for Cache {}
unsafe impl Sync for Cache {}

impl Cache {
    /// Creates an empty cache of n_layers layers that are alike. Address space for max_tokens is reserved at once and
    /// committed as tokens fill it; 0 selects `KVL_DEFAULT_MAX_TOKENS`.
    ///
    /// # Errors
    /// Those of `kvl_cache_create`; `KVL_ERROR_LENGTH` when k_offset is neither empty nor `[n_kv_heads, head_dim]`
    pub fn new(n_layers: u32, layer: &Layer, max_tokens: usize) -> Result<Self> {
        Self::create(n_layers, std::slice::from_ref(layer), max_tokens)
    }

    /// Creates an empty cache of layers that may differ.
    ///
    /// # Errors
    /// As [`new`](Self::new)
    pub fn with_layers(layers: &[Layer], max_tokens: usize) -> Result<Self> {
        Self::create(array_len("layers", layers.len())?, layers, max_tokens)
    }

    fn create(n_layers: u32, layers: &[Layer], max_tokens: usize) -> Result<Self> {
        let descs = layers.iter().map(Layer::desc).collect::<Result<Vec<_>>>()?;
        let desc = kvl_cache_desc {
            n_layers,
            layers: descs.as_ptr(),
            n_layer_descs: array_len("layers", descs.len())?,
            max_tokens: count(max_tokens),
            ..Default::default()
        };
        let mut raw = ptr::null_mut();
        // Safety: desc has as many layers as it says, and each k_offset is of its layer's shape.
        check(unsafe { kvl_cache_create(&desc, &mut raw) })?;
        Ok(Self::own(raw))
    }

    fn own(raw: *mut kvl_cache) -> Self {
        Self { raw: NonNull::new(raw).expect("a successful call creates a cache") }
    }

    /// Creates a cache with the same geometry, capacity, tokens and pending tokens, in its own memory.
    ///
    /// # Errors
    /// `KVL_ERROR_MEMORY`
    pub fn copy(&self) -> Result<Self> {
        let mut raw = ptr::null_mut();
        // Safety: no thread changes a cache that is borrowed.
        check(unsafe { kvl_cache_copy(self.raw.as_ptr(), &mut raw) })?;
        Ok(Self::own(raw))
    }

    /// Appends tokens to a layer, as many as k and v hold: k `[n_tokens, n_kv_heads, head_dim]`,
    /// v `[n_tokens, n_kv_heads, v_head_dim]`. Allocates nothing.
    ///
    /// # Errors
    /// Those of `kvl_cache_append`; `KVL_ERROR_LENGTH` also when k or v is not a whole number of tokens
    pub fn append(&mut self, layer: u32, k: &[f32], v: &[f32]) -> Result<()> {
        let entry = self.info(layer)?.k_entry_size;
        let n_tokens = count((k.len() + entry - 1) / entry);
        // Safety: C checks the lengths.
        check(unsafe {
            kvl_cache_append(self.raw.as_ptr(), layer, n_tokens, k.as_ptr(), k.len(), v.as_ptr(), v.len())
        })
    }

    /// Appends rows of any layout and format to a layer.
    ///
    /// # Errors
    /// Those of `kvl_cache_append_rows`; `KVL_ERROR_LENGTH` also when k or v does not hold n_tokens rows
    pub fn append_rows(&mut self, layer: u32, rows: &Rows<'_>) -> Result<()> {
        let info = self.info(layer)?;
        let desc = rows.desc(info.n_kv_heads, info.head_dim, info.v_head_dim)?;
        // Safety: the rows of desc lie within its slices.
        check(unsafe { kvl_cache_append_rows(self.raw.as_ptr(), layer, &desc) })
    }

    /// Makes the n_tokens pending tokens of every layer part of the cache.
    ///
    /// # Errors
    /// `KVL_ERROR_RANGE` when n_tokens is 0, `KVL_ERROR_LAYER_MISSING` unless every layer has exactly n_tokens pending
    pub fn advance(&mut self, n_tokens: usize) -> Result<()> {
        // Safety: the cache is borrowed exclusively, here and below.
        check(unsafe { kvl_cache_advance(self.raw.as_ptr(), count(n_tokens)) })
    }

    /// Removes all tokens from position len on, and all pending tokens. See `kvl_cache_truncate` for layers that keep tokens
    /// in f16.
    ///
    /// # Errors
    /// `KVL_ERROR_LENGTH` when len is over [`len`](Self::len)
    pub fn truncate(&mut self, len: usize) -> Result<()> {
        check(unsafe { kvl_cache_truncate(self.raw.as_ptr(), count(len)) })
    }

    /// Removes all tokens; the cache keeps its memory for the next sequence.
    pub fn clear(&mut self) {
        let status = unsafe { kvl_cache_clear(self.raw.as_ptr()) };
        assert_eq!(status, KVL_OK, "a cache that exists can be cleared");
    }

    /// Returns the number of tokens in every layer, excluding pending ones.
    pub fn len(&self) -> usize {
        // Safety: no thread changes a cache that is borrowed, here and below.
        unsafe { kvl_cache_len(self.raw.as_ptr()) as usize }
    }

    /// Returns whether [`len`](Self::len) is 0.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the capacity in tokens.
    pub fn max_tokens(&self) -> usize {
        unsafe { kvl_cache_max_tokens(self.raw.as_ptr()) as usize }
    }

    /// Returns the size of the stored tokens of all layers in bytes, see `kvl_cache_bytes`.
    pub fn bytes(&self) -> u64 {
        unsafe { kvl_cache_bytes(self.raw.as_ptr()) }
    }

    /// Returns the number of layers.
    pub fn n_layers(&self) -> u32 {
        unsafe { kvl_cache_n_layers(self.raw.as_ptr()) }
    }

    /// Describes one layer.
    ///
    /// # Errors
    /// `KVL_ERROR_LAYER`
    pub fn info(&self, layer: u32) -> Result<LayerInfo> {
        let mut info = kvl_layer_info::default();
        check(unsafe { kvl_cache_layer_info(self.raw.as_ptr(), layer, &mut info) })?;
        Ok(LayerInfo::from_c(&info))
    }

    /// Makes a view of one layer, pending tokens included. It borrows the cache, which cannot change while it lives:
    ///
    /// ```compile_fail,E0502
    /// # fn main() -> kvlane::Result<()> {
    /// let mut cache = kvlane::Cache::new(1, &kvlane::Layer::new(2, 64), 0)?;
    /// let view = cache.view(0)?;
    /// cache.append(0, &[0.5; 128], &[0.5; 128])?;
    /// assert!(view.is_empty());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// `KVL_ERROR_LAYER`
    pub fn view(&self, layer: u32) -> Result<View<'_>> {
        let mut view = kvl_view::default();
        check(unsafe { kvl_cache_view(self.raw.as_ptr(), layer, &mut view) })?;
        // Safety: what the view points to is the cache's, and valid while that is borrowed.
        Ok(unsafe { View::from_c(view) })
    }

    /// Decodes all keys of a layer, pending tokens included, to `[len, n_kv_heads, head_dim]`.
    ///
    /// # Errors
    /// `KVL_ERROR_LAYER`
    pub fn read_k(&self, layer: u32) -> Result<Vec<f32>> {
        let info = self.info(layer)?;
        let mut out = vec![0.0; info.len * info.k_entry_size];
        self.read_k_into(layer, 0, info.len, &mut out)?;
        Ok(out)
    }

    /// Decodes all values of a layer, pending tokens included, to `[len, n_kv_heads, v_head_dim]`.
    ///
    /// # Errors
    /// `KVL_ERROR_LAYER`
    pub fn read_v(&self, layer: u32) -> Result<Vec<f32>> {
        let info = self.info(layer)?;
        let mut out = vec![0.0; info.len * info.v_entry_size];
        self.read_v_into(layer, 0, info.len, &mut out)?;
        Ok(out)
    }

    /// Decodes the keys of n_tokens tokens from `first` on to out `[n_tokens, n_kv_heads, head_dim]`.
    ///
    /// # Errors
    /// `KVL_ERROR_LAYER`; `KVL_ERROR_RANGE` when the tokens reach past the layer's; `KVL_ERROR_LENGTH` when out is not of the
    /// shape
    pub fn read_k_into(&self, layer: u32, first: usize, n_tokens: usize, out: &mut [f32]) -> Result<()> {
        let (first, n_tokens) = (count(first), count(n_tokens));
        // Safety: C checks the length, here and below.
        check(unsafe {
            kvl_cache_read_k(self.raw.as_ptr(), layer, first, n_tokens, out.as_mut_ptr(), out.len())
        })
    }

    /// Decodes values, as [`read_k_into`](Self::read_k_into) decodes keys.
    ///
    /// # Errors
    /// As [`read_k_into`](Self::read_k_into)
    pub fn read_v_into(&self, layer: u32, first: usize, n_tokens: usize, out: &mut [f32]) -> Result<()> {
        let (first, n_tokens) = (count(first), count(n_tokens));
        check(unsafe {
            kvl_cache_read_v(self.raw.as_ptr(), layer, first, n_tokens, out.as_mut_ptr(), out.len())
        })
    }
}

impl Drop for Cache {
    fn drop(&mut self) {
        // Safety: the cache is this object's, and no view of it is alive.
        unsafe { kvl_cache_destroy(self.raw.as_ptr()) }
    }
}
