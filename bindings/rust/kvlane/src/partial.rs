use kvlane_sys::kvl_partial;

use crate::error::check_len;
use crate::{Attention, Result};

/// The partial attention state of queries over a subset of their tokens: for each query and query head the largest score m,
/// the sum of exponentials l, and the weighted sum of values o. [`Attention::merge`] makes outputs of partials.
#[derive(Clone, Debug, PartialEq)]
pub struct Partial {
    n_queries: u32,
    m: Vec<f32>,
    l: Vec<f32>,
    o: Vec<f32>,
}

impl Partial {
    /// Allocates the partial state of n_queries queries, which have seen no token.
    pub fn new(attention: &Attention, n_queries: u32) -> Self {
        let n_rows = n_queries as usize * attention.n_query_heads() as usize;
        Self {
            n_queries,
            m: vec![f32::NEG_INFINITY; n_rows],
            l: vec![0.0; n_rows],
            o: vec![0.0; n_rows * attention.v_head_dim() as usize],
        }
    }

    /// Makes a partial state that another machine computed, from its arrays: m and l `[n_queries, n_query_heads]`,
    /// o `[n_queries, n_query_heads, v_head_dim]`.
    ///
    /// # Errors
    /// `KVL_ERROR_LENGTH` when an array is not of its shape
    pub fn from_arrays(
        attention: &Attention,
        n_queries: u32,
        m: Vec<f32>,
        l: Vec<f32>,
        o: Vec<f32>,
    ) -> Result<Self> {
        let partial = Self { n_queries, m, l, o };
        partial.check(attention, n_queries)?;
        Ok(partial)
    }

    /// Returns the arrays m, l and o.
    pub fn arrays(&self) -> (&[f32], &[f32], &[f32]) {
        (&self.m, &self.l, &self.o)
    }

    /// Returns the number of queries.
    pub fn n_queries(&self) -> u32 {
        self.n_queries
    }

    /// Checks that the arrays are those of n_queries queries.
    pub(crate) fn check(&self, attention: &Attention, n_queries: u32) -> Result<()> {
        let n_rows = u128::from(n_queries) * u128::from(attention.n_query_heads());
        check_len("m", self.m.len(), n_rows, "[n_queries, n_query_heads]")?;
        check_len("l", self.l.len(), n_rows, "[n_queries, n_query_heads]")?;
        let needed = n_rows * u128::from(attention.v_head_dim());
        check_len("o", self.o.len(), needed, "[n_queries, n_query_heads, v_head_dim]")
    }

    pub(crate) fn desc_mut(&mut self) -> kvl_partial {
        kvl_partial { m: self.m.as_mut_ptr(), l: self.l.as_mut_ptr(), o: self.o.as_mut_ptr() }
    }

    /// The C descriptor for a call that reads it.
    pub(crate) fn desc(&self) -> kvl_partial {
        let [m, l, o] = [&self.m, &self.l, &self.o].map(|array| array.as_ptr() as *mut f32);
        kvl_partial { m, l, o }
    }
}

/// The positions of a sequence whose partial state is computed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Range {
    /// Position of the view's first token
    pub view_first: usize,
    /// First position of the range
    pub first: usize,
    /// One past its last position
    pub end: usize,
}
