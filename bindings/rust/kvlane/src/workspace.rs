use std::os::raw::c_void;

use kvlane_sys::KVL_WORKSPACE_ALIGNMENT;

/// Zeroed memory that is aligned for workspaces and for packed tiles.
#[derive(Debug)]
pub(crate) struct AlignedMemory(Box<[Line]>);

#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
struct Line([u8; 64]);

impl AlignedMemory {
    pub fn new(bytes: usize) -> Self {
        assert!(std::mem::align_of::<Line>() >= KVL_WORKSPACE_ALIGNMENT);
        Self(vec![Line([0; 64]); (bytes + 63) / 64].into_boxed_slice())
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
