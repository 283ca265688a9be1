use std::ptr;

use kvlane_sys::*;

use crate::error::{check_len, count};
use crate::rows::{in_bytes, Shape};
use crate::{Attention, Elements, ElementsMut, Error, Mask, Partial, Range, Result, Strides, View};

/// One sequence of a call: its queries, keys and values, and outputs. Query i is at position
/// `len - n_queries + i + causal_offset` and, in causal order, sees the tokens up to its own position.
#[derive(Debug)]
pub struct Sequence<'a> {
    /// Keys and values
    pub view: &'a View<'a>,
    /// Tokens, at most the view's
    pub len: usize,
    /// Queries, at least 1
    pub n_queries: u32,
    /// `[n_queries, n_query_heads, head_dim]`
    pub q: Elements<'a>,
    /// Where the rows of q are
    pub q_strides: Strides,
    /// What is computed, and where it is written
    pub output: Output<'a>,
    /// None: all tokens in causal order and the window are visible
    pub mask: Option<Mask<'a>>,
    /// False: queries also see later tokens
    pub is_causal: bool,
    /// Added to the queries' positions
    pub causal_offset: i64,
}

/// The output of a sequence's queries.
#[derive(Debug)]
pub enum Output<'a> {
    /// Attention over all tokens
    Rows {
        /// `[n_queries, n_query_heads, v_head_dim]`
        out: ElementsMut<'a>,
        /// Where the rows of out are
        strides: Strides,
        /// `[n_queries, n_query_heads]`, the natural log of the sum of exponentials
        lse: Option<&'a mut [f32]>,
    },
    /// The partial state over a range of positions
    Partial {
        /// The positions
        range: Range,
        /// The partial state of n_queries queries
        partial: &'a mut Partial,
    },
}

impl<'a> From<&'a mut [f32]> for Output<'a> {
    fn from(out: &'a mut [f32]) -> Self {
        Self::Rows { out: ElementsMut::F32(out), strides: Strides::default(), lse: None }
    }
}

impl<'a> From<&'a mut Vec<f32>> for Output<'a> {
    fn from(out: &'a mut Vec<f32>) -> Self {
        out.as_mut_slice().into()
    }
}

impl<'a> Sequence<'a> {
    /// One query over all tokens of the view.
    pub fn new(view: &'a View<'a>, q: impl Into<Elements<'a>>, output: impl Into<Output<'a>>) -> Self {
        Self {
            view,
            len: view.len(),
            n_queries: 1,
            q: q.into(),
            q_strides: Strides::default(),
            output: output.into(),
            mask: None,
            is_causal: true,
            causal_offset: 0,
        }
    }

    fn range_desc(&mut self, attention: &Attention) -> Result<kvl_range> {
        match &mut self.output {
            Output::Rows { .. } => Ok(kvl_range::default()),
            Output::Partial { range, partial } => {
                partial.check(attention, self.n_queries).map_err(|e| e.within("partial"))?;
                Ok(kvl_range {
                    view_first: count(range.view_first),
                    first: count(range.first),
                    end: count(range.end),
                    out: partial.desc_mut(),
                    ..Default::default()
                })
            }
        }
    }

    fn mask_desc(&self, attention: &Attention) -> Result<kvl_mask> {
        match &self.mask {
            None => Ok(kvl_mask::default()),
            Some(mask) => mask.desc(attention, self.n_queries).map_err(|e| e.within("mask")),
        }
    }

    /// The C descriptor, whose memory is checked.
    fn desc(&mut self, attention: &Attention, range: &kvl_range, mask: &kvl_mask) -> Result<kvl_sequence> {
        if self.n_queries == 0 {
            return Err(Error::new(KVL_ERROR_RANGE, "n_queries is 0; it must be at least 1".to_string()));
        }
        let rows = |dim, strides| Shape {
            n_tokens: self.n_queries as usize,
            n_heads: attention.n_query_heads(),
            dim,
            strides,
        };
        rows(attention.head_dim(), self.q_strides).check("q", self.q.len())?;
        let mut desc = kvl_sequence {
            flags: if self.is_causal { 0 } else { KVL_SEQUENCE_NON_CAUSAL },
            n_queries: self.n_queries,
            view: self.view.as_ptr(),
            len: count(self.len),
            q: self.q.as_ptr(),
            mask: if self.mask.is_some() { mask } else { ptr::null() },
            q_format: self.q.format() as kvl_format,
            q_token_stride_bytes: in_bytes(self.q_strides.token, self.q.format()),
            q_head_stride_bytes: in_bytes(self.q_strides.head, self.q.format()),
            causal_offset: self.causal_offset,
            ..Default::default()
        };
        match &mut self.output {
            Output::Partial { .. } => desc.range = range,
            Output::Rows { out, strides, lse } => {
                let format = out.as_elements().format();
                rows(attention.v_head_dim(), *strides).check("out", out.as_elements().len())?;
                desc.out = out.as_mut_ptr();
                desc.out_format = format as kvl_format;
                desc.out_token_stride_bytes = in_bytes(strides.token, format);
                desc.out_head_stride_bytes = in_bytes(strides.head, format);
                if let Some(lse) = lse {
                    let needed = u128::from(self.n_queries) * u128::from(attention.n_query_heads());
                    check_len("lse", lse.len(), needed, "[n_queries, n_query_heads]")?;
                    desc.lse = lse.as_mut_ptr();
                }
            }
        }
        Ok(desc)
    }
}

/// The C descriptors of a call's sequences. Those of the sequences point to the others, which do not move.
#[derive(Debug)]
pub(crate) struct Descs {
    sequences: Vec<kvl_sequence>,
    _masks: Vec<kvl_mask>,
    _ranges: Vec<kvl_range>,
}

impl Descs {
    /// Checks all slices. What the descriptors point to is borrowed by the sequences.
    pub fn new(attention: &Attention, sequences: &mut [Sequence<'_>]) -> Result<Self> {
        let all = sequences.iter_mut().enumerate();
        let others = all.map(|(i, s)| {
            let descs = s.mask_desc(attention).and_then(|mask| Ok((mask, s.range_desc(attention)?)));
            descs.map_err(|e| e.within(&format!("sequences[{i}]")))
        });
        let (masks, ranges): (Vec<_>, Vec<_>) = others.collect::<Result<Vec<_>>>()?.into_iter().unzip();
        let all = sequences.iter_mut().zip(masks.iter().zip(&ranges)).enumerate();
        let descs = all.map(|(i, (s, (mask, range)))| {
            s.desc(attention, range, mask).map_err(|e| e.within(&format!("sequences[{i}]")))
        });
        Ok(Self { sequences: descs.collect::<Result<_>>()?, _masks: masks, _ranges: ranges })
    }

    pub fn as_ptr(&self) -> *const kvl_sequence {
        self.sequences.as_ptr()
    }

    pub fn len(&self) -> Result<u32> {
        crate::error::array_len("sequences", self.sequences.len())
    }
}
