//! What several tests use: random numbers, and attention in double precision.
#![allow(dead_code)] // each test uses a part of it

/// Numbers from -1 to 1 that look random; the same for the same seed.
pub fn random(n: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..n).map(|_| next()).collect()
}

/// Rows of keys or values `[n_tokens, n_kv_heads, dim]`.
pub struct Heads<'a> {
    pub rows: &'a [f32],
    pub n_kv_heads: usize,
    pub dim: usize,
}

impl Heads<'_> {
    pub fn row(&self, token: usize, head: usize) -> &[f32] {
        &self.rows[(token * self.n_kv_heads + head) * self.dim..][..self.dim]
    }
}

/// Attention of one query over the tokens that `bias` gives a bias, in double precision.
/// Returns out `[n_query_heads, v_dim]` and lse `[n_query_heads]`.
pub fn attention(
    q: &[f32],
    k: &Heads,
    v: &Heads,
    bias: &dyn Fn(usize, usize) -> Option<f64>,
) -> (Vec<f64>, Vec<f64>) {
    let n_query_heads = q.len() / k.dim;
    let n_tokens = k.rows.len() / (k.n_kv_heads * k.dim);
    let (mut out, mut lse) = (Vec::new(), Vec::new());
    for (head, q) in q.chunks(k.dim).enumerate() {
        let kv_head = head / (n_query_heads / k.n_kv_heads);
        let mut sum = 0.0;
        let mut weighted = vec![0.0; v.dim];
        for token in 0..n_tokens {
            if let Some(bias) = bias(head, token) {
                let dot: f64 =
                    q.iter().zip(k.row(token, kv_head)).map(|(q, k)| f64::from(*q) * f64::from(*k)).sum();
                let weight = (dot / (k.dim as f64).sqrt() + bias).exp();
                sum += weight;
                for (o, v) in weighted.iter_mut().zip(v.row(token, kv_head)) {
                    *o += weight * f64::from(*v);
                }
            }
        }
        out.extend(weighted.iter().map(|o| o / sum));
        lse.push(sum.ln());
    }
    (out, lse)
}

/// Relative L2 error.
pub fn error(found: &[f32], expected: &[f64]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let square = |x: f64| x * x;
    let difference: f64 = found.iter().zip(expected).map(|(f, e)| square(f64::from(*f) - e)).sum();
    (difference / expected.iter().map(|e| square(*e)).sum::<f64>()).sqrt()
}
