use std::os::raw::c_void;

use kvlane_sys::{KVL_ERROR_MEMORY, KVL_TILE_ALIGNMENT, KVL_WORKSPACE_ALIGNMENT};

use crate::{Error, Result};

/// Zeroed memory that is aligned for workspaces and for packed tiles.
#[derive(Debug)]
pub(crate) struct AlignedMemory(Box<[Line]>);

/// The alignment of workspaces and of tiles.
const LINE: usize = 64;
const _: () = assert!(LINE == KVL_WORKSPACE_ALIGNMENT && LINE == KVL_TILE_ALIGNMENT);

#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
struct Line([u8; LINE]);

impl AlignedMemory {
    /// Allocates at least this many bytes, or returns `KVL_ERROR_MEMORY`.
    pub fn new(bytes: usize) -> Result<Self> {
        let n_lines = bytes / LINE + usize::from(bytes % LINE > 0);
        let mut lines = Vec::new();
        lines.try_reserve_exact(n_lines).map_err(|_| {
            let text = format!("{bytes} bytes cannot be allocated");
            Error::new(KVL_ERROR_MEMORY, text)
        })?;
        lines.resize(n_lines, Line([0; LINE]));
        Ok(Self(lines.into_boxed_slice()))
    }

    pub fn bytes(&self) -> usize {
        std::mem::size_of_val(&*self.0)
    }

    pub fn as_ptr(&self) -> *const c_void {
        self.0.as_ptr().cast()
    }

    pub fn as_mut_ptr(&mut self) -> *mut c_void {
        self.0.as_mut_ptr().cast()
    }
}

/// Memory for the intermediate results of calls, from [`Attention::workspace`](crate::Attention::workspace). One call at a time.
#[derive(Debug)]
pub struct Workspace(pub(crate) AlignedMemory);

impl Workspace {
    /// Returns the size in bytes.
    pub fn bytes(&self) -> usize {
        self.0.bytes()
    }
}
