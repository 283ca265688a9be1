//! Decode-time attention on CPUs: a KV cache, and grouped-query attention that reads it in place.
//!
//! A [`Cache`] owns the keys and values of one sequence, an [`Attention`] object computes
//!
//! ```text
//! out[h] = softmax(scale * q[h] K[h / group]^T) V[h / group]
//! ```
//!
//! for the queries of any number of [`Sequence`]s, whose keys and values are [`View`]s of caches, of a [`TilePool`] or of the
//! caller's own rows.
//!
//! ```
//! use kvlane::{Attention, Cache, Geometry, Layer, Sequence};
//!
//! # fn main() -> kvlane::Result<()> {
//! let (n_layers, n_query_heads, n_kv_heads, head_dim) = (2, 8, 2, 64);
//! let mut cache = Cache::new(n_layers, &Layer::new(n_kv_heads, head_dim), 1024)?; // f16, at most 1024 tokens
//! let attention = Attention::new(&Geometry::of(&cache, 0, n_query_heads)?)?;
//! let mut workspace = attention.workspace(1, cache.max_tokens(), 1, 1)?;
//! let (k, v) = (vec![0.5; 2 * 64], vec![0.5; 2 * 64]);
//! let (q, mut out) = (vec![0.1; 8 * 64], vec![0.0; 8 * 64]);
//! for _token in 0..10 {
//!     for layer in 0..n_layers {
//!         cache.append(layer, &k, &v)?; // this token's keys and values
//!         let view = cache.view(layer)?; // it sees itself and all before it
//!         attention.attend(&mut [Sequence::new(&view, &q, &mut out)], &mut workspace, None)?;
//!     }
//!     cache.advance(1)?;
//! }
//! assert_eq!(cache.len(), 10);
//! assert_eq!(out, vec![0.5; 8 * 64]);
//! # Ok(())
//! # }
//! ```
//!
//! The interface is safe: the lengths of slices are checked, a view borrows what it reads, and a panic of an [`Executor`] does
//! not unwind through C. Every C function's contract (`include/kvlane/kvlane.h`) also applies to the method that calls it;
//! [`sys`] has the statuses that an [`Error`] can have, and all other constants.
#![warn(missing_docs)]

mod attention;
mod cache;
mod error;
mod executor;
mod format;
mod layer;
mod mask;
mod partial;
mod pool;
mod rows;
mod sequence;
mod tiles;
mod view;
mod workspace;

pub use attention::{Attention, Call, Geometry, Plan};
pub use cache::Cache;
pub use error::{Error, Result};
pub use executor::Executor;
pub use format::{Format, Precision, Rotation};
pub use kvlane_sys as sys;
pub use layer::{Layer, LayerInfo};
pub use mask::{mask_bits, Mask, MaskRows};
pub use partial::{Partial, Range};
pub use pool::ThreadPool;
pub use rows::{Elements, ElementsMut, Rows, Strides};
pub use sequence::{Output, Sequence};
pub use tiles::TilePool;
pub use view::{Paged, RowLayout, Span, View};
pub use workspace::Workspace;

/// Compiles the example of the page.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;

/// Returns the version of the library, "major.minor.patch".
pub fn version() -> &'static str {
    // Safety: the string lives as long as the program.
    unsafe { error::text(sys::kvl_version()) }
}

/// Returns the name of the instruction set in force: the one that the environment variable `KVLANE_ISA` names, or else the
/// widest one that this CPU can run.
///
/// # Errors
/// `KVL_ERROR_ISA` when `KVLANE_ISA` names an unknown or unsupported one.
pub fn isa_in_force() -> Result<&'static str> {
    let mut name = std::ptr::null();
    // Safety: name is written; the string lives as long as the program.
    unsafe {
        error::check(sys::kvl_isa_in_force(&mut name))?;
        Ok(error::text(name))
    }
}
