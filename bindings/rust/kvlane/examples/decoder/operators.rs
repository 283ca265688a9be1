//! The operators of a llama that are not attention, on vectors of f32.

use std::sync::Mutex;

use kvlane::{Executor, ThreadPool};

/// In lanes, because a compiler may not reorder one running sum and so cannot use vectors for it.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut lanes = [0.0; 16];
    let (a_chunks, b_chunks) = (a.chunks_exact(16), b.chunks_exact(16));
    let rest: f32 = a_chunks.remainder().iter().zip(b_chunks.remainder()).map(|(a, b)| a * b).sum();
    for (a, b) in a_chunks.zip(b_chunks) {
        for (lane, (a, b)) in lanes.iter_mut().zip(a.iter().zip(b)) {
            *lane += a * b;
        }
    }
    lanes.iter().fold(rest, |sum, lane| sum + lane)
}

/// Multiplies vectors by a matrix `[n_rows, n_columns]`: x `[n, n_columns]` to `[n, n_rows]`. Threads share the rows.
pub fn multiply(pool: &ThreadPool, matrix: &[f32], x: &[f32], n_columns: usize) -> Vec<f32> {
    let n_rows = matrix.len() / n_columns;
    let mut out = vec![0.0; x.len() / n_columns * n_rows];
    let chunk_len = (16384 / n_columns).max(1); // enough multiplications to be worth handing to a thread
    let chunks: Vec<_> = out.chunks_mut(chunk_len).map(Mutex::new).collect();
    pool.parallel_for(chunks.len() as u32, &|task| {
        let first = task as usize * chunk_len;
        let mut chunk = chunks[task as usize].lock().unwrap();
        for (i, out) in (first..).zip(chunk.iter_mut()) {
            let (row, vector) = (i % n_rows, i / n_rows);
            *out = dot(&matrix[row * n_columns..][..n_columns], &x[vector * n_columns..][..n_columns]);
        }
    });
    drop(chunks);
    out
}

pub fn add(x: &mut [f32], y: &[f32]) {
    x.iter_mut().zip(y).for_each(|(x, y)| *x += y);
}

/// Divides each vector by its root mean square, and multiplies it by the weight.
pub fn rms_norm(x: &[f32], weight: &[f32], epsilon: f32) -> Vec<f32> {
    let normalized = x.chunks(weight.len()).flat_map(|x| {
        let scale = 1.0 / (dot(x, x) / x.len() as f32 + epsilon).sqrt();
        x.iter().zip(weight).map(move |(x, weight)| weight * (x * scale))
    });
    normalized.collect()
}

/// RoPE of one token's heads: turns elements i and i + head_dim / 2 of each by position * theta^(-2 i / head_dim).
pub fn rotate(heads: &mut [f32], head_dim: usize, position: usize, theta: f32) {
    let half = head_dim / 2;
    for head in heads.chunks_mut(head_dim) {
        for i in 0..half {
            let angle = position as f32 * theta.powf(-(i as f32) / half as f32);
            let ((sin, cos), a, b) = (angle.sin_cos(), head[i], head[i + half]);
            head[i] = a * cos - b * sin;
            head[i + half] = b * cos + a * sin;
        }
    }
}

/// gate = silu(gate) * up
pub fn swiglu(gate: &mut [f32], up: &[f32]) {
    gate.iter_mut().zip(up).for_each(|(gate, up)| *gate *= up / (1.0 + (-*gate).exp()));
}
