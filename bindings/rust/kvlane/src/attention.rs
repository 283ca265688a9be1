use std::marker::PhantomData;
use std::os::raw::c_void;
use std::ptr::{self, NonNull};

use kvlane_sys::*;

use crate::error::{array_len, check, check_len, count, text};
use crate::executor::with_executor;
use crate::sequence::Descs;
use crate::workspace::AlignedMemory;
use crate::{Cache, Executor, Format, Partial, Precision, Result, Rotation, Sequence, Workspace};

/// Geometry and score rules of an attention object. A score is
/// `softcap * tanh(scale * q[h] k[t] / softcap) + alibi_slopes[h] * (t - the query's position)`; rules that are zero or none
/// do not apply.
#[derive(Clone, Copy, Debug)]
pub struct Geometry<'a> {
    /// Query heads, a multiple of n_kv_heads
    pub n_query_heads: u32,
    /// KV heads
    pub n_kv_heads: u32,
    /// Elements of a key or query
    pub head_dim: u32,
    /// Elements of a value or output; 0: as head_dim
    pub v_head_dim: u32,
    /// Storage format of the keys
    pub k_format: Format,
    /// Storage format of the values
    pub v_format: Format,
    /// Rotation of the keys
    pub k_rotation: Rotation,
    /// Rotation of the values
    pub v_rotation: Rotation,
    /// Of the scores; 0: 1 / sqrt(head_dim)
    pub scale: f32,
    /// Newest tokens that a query sees, its own included; 0: all
    pub window: usize,
    /// First tokens that stay visible
    pub n_sink_tokens: usize,
    /// 0: none
    pub softcap: f32,
    /// `[n_query_heads]`
    pub alibi_slopes: Option<&'a [f32]>,
    /// `[n_query_heads]`; their exponentials are added to the sum
    pub sink_logits: Option<&'a [f32]>,
    /// Rounding of queries and softmax weights
    pub precision: Precision,
}

impl Geometry<'_> {
    /// f16 keys and values, and no score rules.
    pub fn new(n_query_heads: u32, n_kv_heads: u32, head_dim: u32) -> Self {
        Self {
            n_query_heads,
            n_kv_heads,
            head_dim,
            v_head_dim: 0,
            k_format: Format::F16,
            v_format: Format::F16,
            k_rotation: Rotation::ByFormat,
            v_rotation: Rotation::ByFormat,
            scale: 0.0,
            window: 0,
            n_sink_tokens: 0,
            softcap: 0.0,
            alibi_slopes: None,
            sink_logits: None,
            precision: Precision::ByFormat,
        }
    }

    /// The geometry, formats and rotations of one layer of a cache, and no score rules.
    ///
    /// # Errors
    /// `KVL_ERROR_LAYER`
    pub fn of(cache: &Cache, layer: u32, n_query_heads: u32) -> Result<Self> {
        let info = cache.info(layer)?;
        Ok(Self {
            v_head_dim: info.v_head_dim,
            k_format: info.k_format,
            v_format: info.v_format,
            k_rotation: info.k_rotation,
            v_rotation: info.v_rotation,
            ..Self::new(n_query_heads, info.n_kv_heads, info.head_dim)
        })
    }

    fn desc(&self) -> Result<kvl_attention_desc> {
        let by_head = |name, values: Option<&[f32]>| {
            let values = match values {
                Some(values) => values,
                None => return Ok(ptr::null()),
            };
            check_len(name, values.len(), self.n_query_heads.into(), "[n_query_heads]")
                .map(|()| values.as_ptr())
        };
        Ok(kvl_attention_desc {
            n_query_heads: self.n_query_heads,
            n_kv_heads: self.n_kv_heads,
            head_dim: self.head_dim,
            v_head_dim: self.v_head_dim,
            k_format: self.k_format as kvl_format,
            v_format: self.v_format as kvl_format,
            scale: self.scale,
            k_rotation: self.k_rotation as kvl_rotation,
            v_rotation: self.v_rotation as kvl_rotation,
            window: count(self.window),
            n_sink_tokens: count(self.n_sink_tokens),
            alibi_slopes: by_head("alibi_slopes", self.alibi_slopes)?,
            sink_logits: by_head("sink_logits", self.sink_logits)?,
            softcap: self.softcap,
            precision: self.precision as kvl_precision,
            ..Default::default()
        })
    }
}

/// The geometry and score rules of a layer, and the kernels for them. Immutable; any number of threads may share it.
#[derive(Debug)]
pub struct Attention {
    raw: NonNull<kvl_attention>,
    n_query_heads: u32,
    head_dim: u32,
    v_head_dim: u32,
}

// Safety: an attention object is immutable, and the library ties it to no thread.
unsafe impl Send for Attention {}
unsafe impl Sync for Attention {}

impl Attention {
    /// Creates an attention object.
    ///
    /// # Errors
    /// Those of `kvl_attention_create`; `KVL_ERROR_LENGTH` when slopes or logits are not `[n_query_heads]`
    pub fn new(geometry: &Geometry<'_>) -> Result<Self> {
        let mut raw = ptr::null_mut();
        // Safety: the arrays of desc have as many elements as there are query heads.
        check(unsafe { kvl_attention_create(&geometry.desc()?, &mut raw) })?;
        Ok(Self {
            raw: NonNull::new(raw).expect("a successful call creates an attention object"),
            n_query_heads: geometry.n_query_heads,
            head_dim: geometry.head_dim,
            v_head_dim: if geometry.v_head_dim > 0 { geometry.v_head_dim } else { geometry.head_dim },
        })
    }

    /// Returns the number of query heads.
    pub fn n_query_heads(&self) -> u32 {
        self.n_query_heads
    }

    /// Returns the elements of a query.
    pub fn head_dim(&self) -> u32 {
        self.head_dim
    }

    /// Returns the elements of an output of one head.
    pub fn v_head_dim(&self) -> u32 {
        self.v_head_dim
    }

    /// Returns the name of the kernel that calls use, "avx2/f16/group:4" for example.
    pub fn kernel(&self) -> &str {
        // Safety: the name lives as long as the attention object.
        unsafe { text(kvl_attention_kernel(self.raw.as_ptr())) }
    }

    /// Makes a workspace for calls with up to n_sequences sequences of up to max_len tokens and max_queries queries each, on
    /// executors with up to max_tasks threads (1 without one), with outputs in f32.
    ///
    /// # Errors
    /// `KVL_ERROR_RANGE`, `KVL_ERROR_MEMORY`
    pub fn workspace(
        &self,
        n_sequences: u32,
        max_len: usize,
        max_queries: u32,
        max_tasks: u32,
    ) -> Result<Workspace> {
        self.workspace_for(n_sequences, max_len, max_queries, max_tasks, Format::F32)
    }

    /// Makes a workspace for calls with outputs in out_format or f32, see [`workspace`](Self::workspace).
    ///
    /// # Errors
    /// `KVL_ERROR_RANGE`, `KVL_ERROR_MEMORY`; `KVL_ERROR_FORMAT` when out_format is q8 or q4
    pub fn workspace_for(
        &self,
        n_sequences: u32,
        max_len: usize,
        max_queries: u32,
        max_tasks: u32,
        out_format: Format,
    ) -> Result<Workspace> {
        let desc = kvl_workspace_desc {
            n_sequences,
            max_len: count(max_len),
            max_queries,
            max_tasks,
            out_format: out_format as kvl_format,
            ..Default::default()
        };
        let mut bytes = 0;
        // Safety: desc is complete.
        check(unsafe { kvl_attention_workspace_size_for(self.raw.as_ptr(), &desc, &mut bytes) })?;
        Ok(Workspace(AlignedMemory::new(bytes)?))
    }

    /// Computes attention for the queries of each sequence, on the executor's threads or, without one, on the calling thread.
    /// Results do not depend on the executor. Allocates an array of descriptors.
    ///
    /// # Errors
    /// Those of `kvl_attend`; `KVL_ERROR_LENGTH` when a slice is not of its shape; `KVL_ERROR_RANGE` when n_queries is 0
    pub fn attend(
        &self,
        sequences: &mut [Sequence<'_>],
        workspace: &mut Workspace,
        executor: Option<&dyn Executor>,
    ) -> Result<()> {
        let descs = Descs::new(self, sequences)?;
        let (n, bytes) = (descs.len()?, workspace.bytes());
        // Safety: what the descriptors point to is borrowed by the sequences until the call returns, and large enough.
        check(with_executor(executor, |executor| unsafe {
            kvl_attend(self.raw.as_ptr(), descs.as_ptr(), n, workspace.0.as_mut_ptr(), bytes, executor)
        }))
    }

    /// Begins a call whose tasks the caller runs, at most max_tasks: for threads that are all inside the operator already.
    ///
    /// # Errors
    /// As [`attend`](Self::attend); `KVL_ERROR_RANGE` also when max_tasks is 0 or over `KVL_MAX_TASKS`
    pub fn begin<'c>(
        &'c self,
        sequences: &'c mut [Sequence<'_>],
        workspace: &'c mut Workspace,
        max_tasks: u32,
    ) -> Result<Call<'c>> {
        let descs = Descs::new(self, sequences)?;
        let (n, bytes, workspace) = (descs.len()?, workspace.bytes(), workspace.0.as_mut_ptr());
        let mut n_tasks = 0;
        // Safety: what the descriptors point to is borrowed as long as the call lives, and large enough.
        check(unsafe {
            kvl_attend_begin(self.raw.as_ptr(), descs.as_ptr(), n, workspace, bytes, max_tasks, &mut n_tasks)
        })?;
        Ok(Call { workspace, n_tasks, _descs: descs, _borrowed: PhantomData })
    }

    /// Plans the calls of one step of a model, whose layers differ in addresses alone: checks the sequences, those of the
    /// first layer, and divides them into work items once.
    ///
    /// # Errors
    /// As [`begin`](Self::begin)
    pub fn plan<'p>(
        &'p self,
        sequences: &mut [Sequence<'_>],
        workspace: &'p mut Workspace,
        max_tasks: u32,
    ) -> Result<Plan<'p>> {
        let descs = Descs::new(self, sequences)?;
        let (n, bytes) = (descs.len()?, workspace.bytes());
        // Safety: as attend's.
        check(unsafe {
            kvl_plan(self.raw.as_ptr(), descs.as_ptr(), n, workspace.0.as_mut_ptr(), bytes, max_tasks)
        })?;
        Ok(Plan { attention: self, workspace })
    }

    /// Merges partial states of the same queries, in this order, to out `[n_queries, n_query_heads, v_head_dim]` and
    /// lse `[n_queries, n_query_heads]`. No token is in two of them.
    ///
    /// # Errors
    /// `KVL_ERROR_RANGE` when there are no partials; `KVL_ERROR_LENGTH` when they differ in their shape, or out or lse is not
    /// of its shape
    pub fn merge(&self, partials: &[&Partial], out: &mut [f32], lse: Option<&mut [f32]>) -> Result<()> {
        let n_queries = partials.first().map_or(0, |partial| partial.n_queries());
        for (i, partial) in partials.iter().enumerate() {
            partial.check(self, n_queries).map_err(|e| e.within(&format!("partials[{i}]")))?;
        }
        let n_rows = u128::from(n_queries) * u128::from(self.n_query_heads);
        let needed = n_rows * u128::from(self.v_head_dim);
        check_len("out", out.len(), needed, "[n_queries, n_query_heads, v_head_dim]")?;
        let lse = match lse {
            None => ptr::null_mut(),
            Some(lse) => {
                check_len("lse", lse.len(), n_rows, "[n_queries, n_query_heads]")?;
                lse.as_mut_ptr()
            }
        };
        let descs: Vec<_> = partials.iter().map(|partial| partial.desc()).collect();
        let n_partials = array_len("partials", descs.len())?;
        // Safety: the arrays are of their shapes; those of the partials are only read.
        check(unsafe {
            kvl_merge(self.raw.as_ptr(), descs.as_ptr(), n_partials, n_queries, out.as_mut_ptr(), lse)
        })
    }

    /// Computes the size in bytes of the keys and values that are visible to a call's queries, see `kvl_attend_bytes`.
    ///
    /// # Errors
    /// As [`attend`](Self::attend)
    pub fn bytes(&self, sequences: &mut [Sequence<'_>]) -> Result<u64> {
        let descs = Descs::new(self, sequences)?;
        let mut bytes = 0;
        // Safety: as attend's.
        check(unsafe { kvl_attend_bytes(self.raw.as_ptr(), descs.as_ptr(), descs.len()?, &mut bytes) })?;
        Ok(bytes)
    }
}

impl Drop for Attention {
    fn drop(&mut self) {
        // Safety: the object is this one's, and calls and plans borrow it.
        unsafe { kvl_attention_destroy(self.raw.as_ptr()) }
    }
}

/// A call that was begun, whose tasks the caller runs on threads of its own, each once, before [`finish`](Self::finish).
///
/// ```
/// # use kvlane::{Attention, Cache, Geometry, Layer, Sequence};
/// # fn main() -> kvlane::Result<()> {
/// # let mut cache = Cache::new(1, &Layer::new(2, 64), 0)?;
/// # cache.append(0, &[0.5; 128], &[0.5; 128])?;
/// # let attention = Attention::new(&Geometry::of(&cache, 0, 8)?)?;
/// # let mut workspace = attention.workspace(1, 1024, 1, 2)?;
/// # let (view, q, mut out) = (cache.view(0)?, vec![0.1; 8 * 64], vec![0.0; 8 * 64]);
/// let mut sequences = [Sequence::new(&view, &q, &mut out)];
/// let call = attention.begin(&mut sequences, &mut workspace, 2)?;
/// std::thread::scope(|scope| {
///     for task in 0..call.n_tasks() {
///         let call = &call;
///         scope.spawn(move || call.run_task(task));
///     }
/// });
/// call.finish()?;
/// assert_eq!(out[0], 0.5);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[must_use = "the outputs are complete when the call is finished"]
pub struct Call<'c> {
    workspace: *mut c_void,
    n_tasks: u32,
    _descs: Descs,
    _borrowed: PhantomData<&'c mut [f32]>, // sequences, workspace and attention object
}

// Safety: tasks may run on any thread, several at once.
unsafe impl Send for Call<'_> {}
unsafe impl Sync for Call<'_> {}

impl Call<'_> {
    /// Returns the number of tasks.
    pub fn n_tasks(&self) -> u32 {
        self.n_tasks
    }

    /// Runs one task, in `0..n_tasks`.
    ///
    /// # Errors
    /// `KVL_ERROR_TASK` when it is out of range, or was already run
    pub fn run_task(&self, task: u32) -> Result<()> {
        // Safety: the call is open in the workspace, which it borrows.
        check(unsafe { kvl_attend_run_task(self.workspace, task) })
    }

    /// Ends the call; the outputs are complete.
    ///
    /// # Errors
    /// `KVL_ERROR_TASK` when a task was not run
    pub fn finish(self) -> Result<()> {
        // Safety: as above; no task is running, for that borrows the call.
        check(unsafe { kvl_attend_finish(self.workspace) })
    }
}

/// The plan of a step's calls, in a workspace that it borrows.
#[derive(Debug)]
pub struct Plan<'p> {
    attention: &'p Attention,
    workspace: &'p mut Workspace,
}

impl Plan<'_> {
    /// Computes attention, as [`Attention::attend`] does, for sequences that differ from the plan's in addresses alone.
    /// The plan stays valid even if the call fails.
    ///
    /// # Errors
    /// As [`Attention::attend`]; `KVL_ERROR_PLAN` when anything else differs
    pub fn attend(&mut self, sequences: &mut [Sequence<'_>], executor: Option<&dyn Executor>) -> Result<()> {
        let descs = Descs::new(self.attention, sequences)?;
        let n = descs.len()?;
        // Safety: as Attention::attend's. What the planned call does not check again, views check when they are made.
        check(with_executor(executor, |executor| unsafe {
            kvl_attend_planned(self.workspace.0.as_mut_ptr(), descs.as_ptr(), n, executor)
        }))
    }
}
