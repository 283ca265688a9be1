//! Attention through the safe interface: against double precision, with each kind of keys and values, mask and output, and
//! what it refuses.

use kvlane::*;

mod common;
use common::{attention, error, random, Heads};

const N_QUERY_HEADS: usize = 4;
const N_KV_HEADS: usize = 2;
const HEAD_DIM: usize = 32;
const V_HEAD_DIM: usize = 24;
const N_TOKENS: usize = 700; // two chunks

fn layer() -> Layer {
    Layer {
        v_head_dim: V_HEAD_DIM as u32,
        k_format: Format::F32,
        v_format: Format::F32,
        ..Layer::new(N_KV_HEADS as u32, HEAD_DIM as u32)
    }
}

/// Keys, values and queries, and an attention object for them.
struct Problem {
    k: Vec<f32>,
    v: Vec<f32>,
    q: Vec<f32>,
    attention: Attention,
    workspace: Workspace,
}

fn problem(n_queries: usize) -> Problem {
    let geometry = Geometry {
        v_head_dim: V_HEAD_DIM as u32,
        k_format: Format::F32,
        v_format: Format::F32,
        ..Geometry::new(N_QUERY_HEADS as u32, N_KV_HEADS as u32, HEAD_DIM as u32)
    };
    let attention = Attention::new(&geometry).unwrap();
    Problem {
        k: random(N_TOKENS * N_KV_HEADS * HEAD_DIM, 1),
        v: random(N_TOKENS * N_KV_HEADS * V_HEAD_DIM, 2),
        q: random(n_queries * N_QUERY_HEADS * HEAD_DIM, 3),
        workspace: attention.workspace(2, N_TOKENS, n_queries as u32, 8).unwrap(),
        attention,
    }
}

impl Problem {
    fn cache(&self) -> Cache {
        let mut cache = Cache::new(1, &layer(), N_TOKENS).unwrap();
        cache.append(0, &self.k, &self.v).unwrap();
        cache
    }

    /// Out and lse of query i in double precision.
    fn expected(&self, i: usize, bias: &dyn Fn(usize, usize) -> Option<f64>) -> (Vec<f64>, Vec<f64>) {
        let k = Heads { rows: &self.k, n_kv_heads: N_KV_HEADS, dim: HEAD_DIM };
        let v = Heads { rows: &self.v, n_kv_heads: N_KV_HEADS, dim: V_HEAD_DIM };
        attention(&self.q[i * N_QUERY_HEADS * HEAD_DIM..][..N_QUERY_HEADS * HEAD_DIM], &k, &v, bias)
    }

    fn attend(&mut self, sequence: Sequence) {
        self.attention.attend(&mut [sequence], &mut self.workspace, None).unwrap();
    }
}

fn out() -> Vec<f32> {
    vec![f32::NAN; N_QUERY_HEADS * V_HEAD_DIM]
}

/// The output of one query over a view.
fn attend(problem: &mut Problem, view: &View) -> Vec<f32> {
    let mut out = out();
    let q = problem.q.clone();
    problem.attend(Sequence::new(view, &q, &mut out));
    out
}

#[test]
fn queries_of_a_cache() {
    let mut p = problem(3);
    let cache = p.cache();
    let (view, q) = (cache.view(0).unwrap(), p.q.clone());
    let mut out = vec![f32::NAN; 3 * N_QUERY_HEADS * V_HEAD_DIM];
    let mut lse = vec![f32::NAN; 3 * N_QUERY_HEADS];
    let output =
        Output::Rows { out: ElementsMut::F32(&mut out), strides: Strides::default(), lse: Some(&mut lse) };
    p.attend(Sequence { n_queries: 3, ..Sequence::new(&view, &q, output) });
    for i in 0..3 {
        let last = N_TOKENS - 3 + i;
        let (expected, expected_lse) = p.expected(i, &|_, token| (token <= last).then_some(0.0));
        assert!(error(&out[i * expected.len()..][..expected.len()], &expected) < 2e-6);
        assert!(error(&lse[i * N_QUERY_HEADS..][..N_QUERY_HEADS], &expected_lse) < 2e-6);
    }
    assert!(p.attention.kernel().ends_with("f32/group:2"), "{}", p.attention.kernel());
}

#[test]
fn strided_queries_and_outputs_in_bf16() {
    let mut p = problem(1);
    let cache = p.cache();
    let (view, expected) = (cache.view(0).unwrap(), attend(&mut p, &cache.view(0).unwrap()));
    let mut spread = vec![f32::NAN; N_QUERY_HEADS * 40];
    for (to, from) in spread.chunks_mut(40).zip(p.q.chunks(HEAD_DIM)) {
        to[..HEAD_DIM].copy_from_slice(from);
    }
    let mut out = vec![0xffff; (N_QUERY_HEADS - 1) * 30 + V_HEAD_DIM];
    let strides = Strides { token: 0, head: 30 };
    let output = Output::Rows { out: ElementsMut::Bf16(&mut out), strides, lse: None };
    let q_strides = Strides { token: 0, head: 40 };
    let mut workspace = p.attention.workspace_for(1, N_TOKENS, 1, 1, Format::Bf16).unwrap();
    let mut sequence = Sequence { q_strides, ..Sequence::new(&view, &spread, output) };
    p.attention.attend(std::slice::from_mut(&mut sequence), &mut workspace, None).unwrap();
    for (found, expected) in out.chunks(30).zip(expected.chunks(V_HEAD_DIM)) {
        let found = Elements::Bf16(&found[..V_HEAD_DIM]).to_f32().unwrap();
        assert!(
            found.iter().zip(expected).all(|(f, e)| (f - e).abs() <= e.abs() / 256.0),
            "{found:?} {expected:?}"
        );
    }
    assert!(out.chunks(30).all(|row| row[V_HEAD_DIM..].iter().all(|gap| *gap == 0xffff)));
}

#[test]
fn all_kinds_of_memory_give_the_same_bits() {
    let mut p = problem(1);
    let cache = p.cache();
    let expected = attend(&mut p, &cache.view(0).unwrap());

    // Rows, as they are and in two runs.
    let layout =
        RowLayout { v_head_dim: V_HEAD_DIM as u32, ..RowLayout::new(N_KV_HEADS as u32, HEAD_DIM as u32) };
    let (k, v) = (p.k.clone(), p.v.clone());
    let span = |from: usize, to: usize| Span {
        n_tokens: to - from,
        k: Elements::F32(&k[from * N_KV_HEADS * HEAD_DIM..to * N_KV_HEADS * HEAD_DIM]),
        v: Elements::F32(&v[from * N_KV_HEADS * V_HEAD_DIM..to * N_KV_HEADS * V_HEAD_DIM]),
    };
    let rows = View::rows(&layout, &[span(0, N_TOKENS)]).unwrap();
    assert_eq!(attend(&mut p, &rows), expected);
    let runs = View::rows(&layout, &[span(0, 100), span(100, N_TOKENS)]).unwrap();
    assert_eq!(attend(&mut p, &runs), expected);

    // Blocks of 20 tokens, last block first.
    let n_blocks = N_TOKENS / 20;
    let reversed =
        |rows: &[f32]| -> Vec<f32> { rows.chunks(rows.len() / n_blocks).rev().flatten().copied().collect() };
    let (k_blocks, v_blocks) = (reversed(&p.k), reversed(&p.v));
    let blocks: Vec<_> = (0..n_blocks as i32).rev().collect();
    let pool = Span { n_tokens: N_TOKENS, k: Elements::F32(&k_blocks), v: Elements::F32(&v_blocks) };
    let paged = Paged {
        pool,
        block_tokens: 20,
        k_block_stride: 0,
        v_block_stride: 0,
        blocks: &blocks,
        len: N_TOKENS,
    };
    assert_eq!(attend(&mut p, &View::paged(&layout, &paged).unwrap()), expected);

    // A pool of tiles, block by block from its end.
    let mut pool = TilePool::new(&layer(), 128, 6).unwrap();
    let slots: Vec<_> = (0..N_TOKENS as i64).map(|token| (5 - token / 128) * 128 + token % 128).collect();
    let all = Rows {
        n_tokens: N_TOKENS,
        k: Elements::F32(&k),
        v: Elements::F32(&v),
        k_strides: Strides::default(),
        v_strides: Strides::default(),
    };
    pool.write(&slots, &all).unwrap();
    assert_eq!(attend(&mut p, &pool.view(&[5, 4, 3, 2, 1, 0], N_TOKENS).unwrap()), expected);

    // A prefix of whole chunks, and the sequence's own tokens.
    let (first, rest) = (span(0, 512), span(512, N_TOKENS));
    let (prefix, own) = (View::rows(&layout, &[first]).unwrap(), View::rows(&layout, &[rest]).unwrap());
    let chain = prefix.followed_by(&own).unwrap();
    assert_eq!(chain.len(), N_TOKENS);
    assert_eq!(attend(&mut p, &chain), expected);
    assert_eq!(chain.followed_by(&own).unwrap_err().status(), sys::KVL_ERROR_RANGE);
}

#[test]
fn masks() {
    let mut p = problem(2);
    let cache = p.cache();
    let (view, q) = (cache.view(0).unwrap(), p.q.clone());
    let visible: Vec<_> = (0..2 * N_TOKENS).map(|i| i % 3 != 1).collect();
    let bits = mask_bits(&visible, N_TOKENS).unwrap();
    let biases = random(N_QUERY_HEADS * N_TOKENS, 4);
    let mask = Mask {
        n_tokens: N_TOKENS,
        bits: Some(MaskRows::by_query(&bits)),
        biases: Some(MaskRows { rows: &biases, by_head: true, by_query: false }),
    };
    let mut out = vec![f32::NAN; 2 * N_QUERY_HEADS * V_HEAD_DIM];
    let sequence =
        Sequence { n_queries: 2, is_causal: false, mask: Some(mask), ..Sequence::new(&view, &q, &mut out) };
    p.attend(sequence);
    for (i, out) in out.chunks(N_QUERY_HEADS * V_HEAD_DIM).enumerate() {
        let bias = |head: usize, token: usize| {
            visible[i * N_TOKENS + token].then(|| f64::from(biases[head * N_TOKENS + token]))
        };
        assert!(error(out, &p.expected(i, &bias).0) < 2e-6);
    }
}

#[test]
fn partials_merge_to_the_same_bits() {
    let mut p = problem(1);
    let cache = p.cache();
    let (view, q, expected) = (cache.view(0).unwrap(), p.q.clone(), attend(&mut p, &cache.view(0).unwrap()));
    let mut parts = [Partial::new(&p.attention, 1), Partial::new(&p.attention, 1)];
    for (partial, (first, end)) in parts.iter_mut().zip([(0, 512), (512, N_TOKENS)]) {
        let range = Range { view_first: 0, first, end };
        p.attend(Sequence::new(&view, &q, Output::Partial { range, partial }));
    }
    let (m, l, o) = parts[1].arrays();
    let sent = Partial::from_arrays(&p.attention, 1, m.to_vec(), l.to_vec(), o.to_vec()).unwrap();
    let (mut merged, mut lse) = (out(), vec![0.0; N_QUERY_HEADS]);
    p.attention.merge(&[&parts[0], &sent], &mut merged, Some(&mut lse)).unwrap();
    assert_eq!(merged, expected);
    assert!(error(&lse, &p.expected(0, &|_, _| Some(0.0)).1) < 2e-6);

    let two_queries = Partial::new(&p.attention, 2);
    let error = p.attention.merge(&[&parts[0], &two_queries], &mut merged, None).unwrap_err();
    assert!(error.to_string().contains("partials[1]: m has 8 elements; it must have 4"), "{error}");
    let error = p.attention.merge(&[], &mut [], None).unwrap_err();
    assert_eq!(error.status(), sys::KVL_ERROR_RANGE);
}

#[test]
fn a_plan_serves_other_layers() {
    let p = problem(1);
    let mut cache = Cache::with_layers(&[layer(), layer()], N_TOKENS).unwrap();
    cache.append(0, &p.k, &p.v).unwrap();
    cache.append(1, &random(p.k.len(), 5), &random(p.v.len(), 6)).unwrap();
    let mut workspace = p.attention.workspace(1, N_TOKENS, 1, 1).unwrap();
    let mut other = p.attention.workspace(1, N_TOKENS, 1, 1).unwrap();
    let (first, mut planned, mut expected) = (cache.view(0).unwrap(), out(), out());
    let mut plan =
        p.attention.plan(&mut [Sequence::new(&first, &p.q, &mut planned)], &mut workspace, 1).unwrap();
    for layer in 0..2 {
        let view = cache.view(layer).unwrap();
        plan.attend(&mut [Sequence::new(&view, &p.q, &mut planned)], None).unwrap();
        p.attention.attend(&mut [Sequence::new(&view, &p.q, &mut expected)], &mut other, None).unwrap();
        assert_eq!(planned, expected);
    }
    let mut shorter = [Sequence { len: N_TOKENS - 1, ..Sequence::new(&first, &p.q, &mut planned) }];
    assert_eq!(plan.attend(&mut shorter, None).unwrap_err().status(), sys::KVL_ERROR_PLAN);
}

#[test]
fn bytes_of_a_call() {
    let p = problem(1);
    let (cache, mut out) = (p.cache(), out());
    let view = cache.view(0).unwrap();
    let bytes = p.attention.bytes(&mut [Sequence::new(&view, &p.q, &mut out)]).unwrap();
    assert_eq!(bytes as usize, 4 * (p.k.len() + p.v.len()));
}

/// The error of a call of one sequence.
fn refused(p: &mut Problem, sequence: Sequence) -> Error {
    p.attention.attend(&mut [sequence], &mut p.workspace, None).unwrap_err()
}

#[test]
fn slices_that_are_too_short_are_refused() {
    let mut p = problem(1);
    let (cache, q, mut out, mut lse) = (p.cache(), p.q.clone(), out(), vec![0.0; N_QUERY_HEADS]);
    let view = cache.view(0).unwrap();
    let mut check = |sequence: Sequence, text: &str| {
        let error = refused(&mut p, sequence);
        assert!(error.to_string().contains(text), "{error}");
    };
    check(Sequence::new(&view, &q[1..], &mut out), "sequences[0]: q has 127 elements; it must have 128");
    check(Sequence::new(&view, &q, &mut out[1..]), "sequences[0]: out has 95 elements; it must have 96");
    check(
        Sequence { n_queries: 2, ..Sequence::new(&view, &q, &mut out) },
        "q has 128 elements; it must have 256",
    );
    check(Sequence { n_queries: 0, ..Sequence::new(&view, &q, &mut out) }, "n_queries is 0");
    check(Sequence { len: N_TOKENS + 1, ..Sequence::new(&view, &q, &mut out) }, "len is 701");
    check(Sequence { len: usize::MAX, ..Sequence::new(&view, &q, &mut out) }, "len is");
    let huge = Strides { token: 0, head: usize::MAX };
    check(
        Sequence { q_strides: huge, ..Sequence::new(&view, &q, &mut out) },
        "q has 128 elements; it must have at least",
    );
    let output = Output::Rows {
        out: ElementsMut::F32(&mut out),
        strides: Strides::default(),
        lse: Some(&mut lse[1..]),
    };
    check(Sequence::new(&view, &q, output), "lse has 3 elements; it must have 4");
    let words = [0; N_TOKENS / 64];
    let mask = Mask { n_tokens: N_TOKENS, bits: Some(MaskRows::by_query(&words)), biases: None };
    check(
        Sequence { mask: Some(mask), ..Sequence::new(&view, &q, &mut out) },
        "mask: bits has 10 elements; it must have 11",
    );
    let biases = [0.0; N_TOKENS - 1];
    let mask = Mask { n_tokens: N_TOKENS - 1, bits: None, biases: Some(MaskRows::by_query(&biases)) };
    check(Sequence { mask: Some(mask), ..Sequence::new(&view, &q, &mut out) }, "n_tokens is 699");
    let mask = Mask { n_tokens: usize::MAX, bits: Some(MaskRows::by_query(&words)), biases: None };
    check(Sequence { mask: Some(mask), ..Sequence::new(&view, &q, &mut out) }, "mask: bits has 10 elements");
}

#[test]
fn partials_and_workspaces_of_another_shape_are_refused() {
    let mut p = problem(1);
    let (cache, q, mut out) = (p.cache(), p.q.clone(), out());
    let view = cache.view(0).unwrap();
    let mut partial = Partial::new(&p.attention, 2);
    let output =
        Output::Partial { range: Range { view_first: 0, first: 0, end: 512 }, partial: &mut partial };
    let error = refused(&mut p, Sequence::new(&view, &q, output));
    assert!(error.to_string().contains("sequences[0]: partial: m has 8 elements; it must have 4"), "{error}");
    let wrong = Partial::from_arrays(&p.attention, 1, vec![0.0; 4], vec![0.0; 4], vec![0.0; 4]).unwrap_err();
    assert!(wrong.to_string().contains("o has 4 elements; it must have 96"), "{wrong}");
    let (mut second, mut small) = (out.clone(), p.attention.workspace(1, 1, 1, 1).unwrap());
    let mut sequences = [Sequence::new(&view, &q, &mut out), Sequence::new(&view, &q, &mut second)];
    let error = p.attention.attend(&mut sequences, &mut small, None).unwrap_err();
    assert_eq!(error.status(), sys::KVL_ERROR_WORKSPACE_SIZE);
}

#[test]
fn views_stay_within_their_slices() {
    let layout = RowLayout::new(1, 4);
    let rows = [0.0; 160];
    let check = |result: Result<View>, text: &str| {
        let error = result.unwrap_err();
        assert!(error.to_string().contains(text), "{error}");
    };
    let span = |n_tokens, n| Span { n_tokens, k: Elements::F32(&rows[..n]), v: Elements::F32(&rows) };
    check(
        View::rows(&layout, &[span(40, 160), span(40, 159)]),
        "spans[1]: k has 159 elements; it must have 160",
    );
    let bits = [0; 160];
    let other_format = Span { k: Elements::F16(&bits), ..span(40, 160) };
    check(View::rows(&layout, &[span(40, 160), other_format]), "spans[1]: its formats differ");
    let overflow = RowLayout { n_kv_heads: 2, k_strides: Strides { token: usize::MAX, head: 4 }, ..layout };
    check(View::rows(&overflow, &[span(20, 160)]), "k has 160 elements; it must have at least");

    let paged = |blocks, len| Paged {
        pool: span(40, 160),
        block_tokens: 20,
        k_block_stride: 0,
        v_block_stride: 0,
        blocks,
        len,
    };
    assert_eq!(View::paged(&layout, &paged(&[1, 0], 40)).unwrap().len(), 40);
    check(View::paged(&layout, &paged(&[0, 2], 40)), "blocks[1] is 2; the pool has 2 blocks");
    check(View::paged(&layout, &paged(&[-1, 0], 40)), "blocks[0] is -1");
    check(View::paged(&layout, &paged(&[1, 0], 41)), "len is 41; 2 blocks of 20 tokens hold fewer");
    check(
        View::paged(&layout, &Paged { k_block_stride: 81, ..paged(&[0], 20) }),
        "k has 160 elements; it must have at least 161",
    );
    check(View::paged(&layout, &Paged { block_tokens: 0, ..paged(&[0], 20) }), "hold fewer");

    let mut pool = TilePool::new(&Layer::new(1, 4), 64, 2).unwrap();
    check(pool.view(&[0, 2], 128), "blocks[1] is 2");
    check(pool.view(&[0], 65), "len is 65");
    let strides = Strides::default();
    let rows = Rows {
        n_tokens: 1,
        k: Elements::F32(&rows[..4]),
        v: Elements::F32(&rows[..4]),
        k_strides: strides,
        v_strides: strides,
    };
    let error = pool.write(&[128], &rows).unwrap_err();
    assert_eq!(error.status(), sys::KVL_ERROR_RANGE, "{error}");
    let error = pool.write(&[0, 1], &rows).unwrap_err();
    assert!(error.to_string().contains("slots has 2 elements; it must have 1"), "{error}");
    assert_eq!(TilePool::new(&Layer::new(1, 4), 64, usize::MAX).unwrap_err().status(), sys::KVL_ERROR_MEMORY);
}

#[test]
fn score_rules_have_one_number_per_head() {
    let slopes = [0.5; 3];
    let geometry = Geometry { alibi_slopes: Some(&slopes), ..Geometry::new(4, 2, 64) };
    let error = Attention::new(&geometry).unwrap_err();
    assert!(error.to_string().contains("alibi_slopes has 3 elements; it must have 4"), "{error}");
    let error = Attention::new(&Geometry::new(3, 2, 64)).unwrap_err();
    assert_eq!(error.status(), sys::KVL_ERROR_HEADS);
}

#[test]
fn counts_that_no_memory_holds_are_refused() {
    let status = |result: Result<()>| result.unwrap_err().status();
    let q8 = Layer { k_format: Format::Q8, v_format: Format::Q8, ..layer() };
    assert_eq!(status(Cache::new(1, &q8, usize::MAX).map(drop)), sys::KVL_ERROR_RANGE);
    let first = Layer { n_first_f16: usize::MAX, ..q8.clone() };
    assert_eq!(status(Cache::new(1, &first, 64).map(drop)), sys::KVL_ERROR_RANGE);
    let recent = Layer { n_recent_f16: usize::MAX, ..q8 };
    assert_eq!(status(Cache::new(1, &recent, 64).map(drop)), sys::KVL_ERROR_RANGE);

    let mut p = problem(1);
    assert_eq!(status(p.attention.workspace(1, usize::MAX, 1, 1).map(drop)), sys::KVL_ERROR_RANGE);
    assert_eq!(status(p.attention.workspace(u32::MAX, 1 << 31, 1, 1).map(drop)), sys::KVL_ERROR_MEMORY);
    let (cache, q, mut out) = (p.cache(), p.q.clone(), out());
    let view = cache.view(0).unwrap();
    let sequence = Sequence { causal_offset: i64::MIN, ..Sequence::new(&view, &q, &mut out) };
    assert_eq!(refused(&mut p, sequence).status(), sys::KVL_ERROR_RANGE);
    let mut partial = Partial::new(&p.attention, 1);
    for range in [(usize::MAX, 0, 1), (0, usize::MAX, 1), (0, 0, usize::MAX), (0, 2, 1)] {
        let range = Range { view_first: range.0, first: range.1, end: range.2 };
        let output = Output::Partial { range, partial: &mut partial };
        assert_eq!(refused(&mut p, Sequence::new(&view, &q, output)).status(), sys::KVL_ERROR_RANGE);
    }
    let geometry = Geometry { window: usize::MAX, ..Geometry::new(4, 2, 64) };
    assert_eq!(status(Attention::new(&geometry).map(drop)), sys::KVL_ERROR_RANGE);
}
