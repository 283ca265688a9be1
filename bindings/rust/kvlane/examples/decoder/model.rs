//! A llama whose cache and attention are kvlane.

use std::error::Error;
use std::path::Path;

use kvlane::{Attention, Cache, Format, Geometry, Layer, Sequence, ThreadPool, Workspace};

use crate::files::{Config, Tensors};
use crate::operators::{add, multiply, rms_norm, rotate, swiglu};

/// Matrices are `[n_outputs, n_inputs]`.
struct LayerWeights {
    attention_norm: Vec<f32>,
    query: Vec<f32>,
    key: Vec<f32>,
    value: Vec<f32>,
    output: Vec<f32>,
    feed_forward_norm: Vec<f32>,
    gate: Vec<f32>,
    up: Vec<f32>,
    down: Vec<f32>,
}

pub struct Model {
    config: Config,
    embedding: Vec<f32>, // also the classifier
    layers: Vec<LayerWeights>,
    final_norm: Vec<f32>,
    cache_format: Format,
    attention: Attention,
    workspace: Workspace,
    pool: ThreadPool,
}

impl LayerWeights {
    fn load(tensors: &Tensors, config: &Config, layer: usize) -> Result<Self, Box<dyn Error>> {
        let (dim, hidden_dim) = (config.dim, config.hidden_dim);
        let q_dim = config.n_query_heads * config.head_dim;
        let kv_dim = config.n_kv_heads * config.head_dim;
        let read = |name, n| tensors.read(&format!("model.layers.{layer}.{name}.weight"), n);
        Ok(Self {
            attention_norm: read("input_layernorm", dim)?,
            query: read("self_attn.q_proj", q_dim * dim)?,
            key: read("self_attn.k_proj", kv_dim * dim)?,
            value: read("self_attn.v_proj", kv_dim * dim)?,
            output: read("self_attn.o_proj", dim * q_dim)?,
            feed_forward_norm: read("post_attention_layernorm", dim)?,
            gate: read("mlp.gate_proj", hidden_dim * dim)?,
            up: read("mlp.up_proj", hidden_dim * dim)?,
            down: read("mlp.down_proj", dim * hidden_dim)?,
        })
    }
}

impl Model {
    pub fn load(directory: &Path, cache_format: Format, n_threads: u32) -> Result<Self, Box<dyn Error>> {
        let config = Config::load(&directory.join("config.json"))?;
        let tensors = Tensors::load(&directory.join("model.safetensors"))?;
        let attention = Attention::new(&Geometry {
            k_format: cache_format,
            v_format: cache_format,
            ..Geometry::new(config.n_query_heads as u32, config.n_kv_heads as u32, config.head_dim as u32)
        })?;
        let layers = (0..config.n_layers).map(|layer| LayerWeights::load(&tensors, &config, layer));
        Ok(Self {
            embedding: tensors.read("model.embed_tokens.weight", config.vocab_size * config.dim)?,
            layers: layers.collect::<Result<_, _>>()?,
            final_norm: tensors.read("model.norm.weight", config.dim)?,
            cache_format,
            workspace: attention.workspace(1, config.max_len, config.max_len as u32, n_threads)?,
            attention,
            pool: ThreadPool::new(n_threads),
            config,
        })
    }

    pub fn config(&self) -> &Config {
        &self.config
    }

    /// An empty cache for a text.
    pub fn cache(&self) -> kvlane::Result<Cache> {
        let layer = Layer {
            k_format: self.cache_format,
            v_format: self.cache_format,
            ..Layer::new(self.config.n_kv_heads as u32, self.config.head_dim as u32)
        };
        Cache::new(self.config.n_layers as u32, &layer, self.config.max_len)
    }

    /// Runs the tokens that follow those in the cache. Returns the logits of the token after the last.
    pub fn forward(&mut self, cache: &mut Cache, tokens: &[u32]) -> kvlane::Result<Vec<f32>> {
        let dim = self.config.dim;
        let mut x: Vec<f32> = Vec::new();
        for token in tokens {
            x.extend_from_slice(&self.embedding[*token as usize * dim..][..dim]);
        }
        for layer in 0..self.layers.len() {
            let attended = self.attend(cache, layer, &x)?;
            add(&mut x, &attended);
            let fed = self.feed_forward(layer, &x);
            add(&mut x, &fed);
        }
        cache.advance(tokens.len())?;
        let last = rms_norm(&x[x.len() - dim..], &self.final_norm, self.config.norm_epsilon);
        Ok(multiply(&self.pool, &self.embedding, &last, dim))
    }

    /// output attention(query norm(x), key norm(x), value norm(x)), which appends the keys and values to the cache.
    fn attend(&mut self, cache: &mut Cache, layer: usize, x: &[f32]) -> kvlane::Result<Vec<f32>> {
        let (config, weights, pool) = (&self.config, &self.layers[layer], &self.pool);
        let normed = rms_norm(x, &weights.attention_norm, config.norm_epsilon);
        let mut q = multiply(pool, &weights.query, &normed, config.dim);
        let mut k = multiply(pool, &weights.key, &normed, config.dim);
        let v = multiply(pool, &weights.value, &normed, config.dim);
        for heads in [&mut q, &mut k] {
            let of_token = heads.len() / (x.len() / config.dim);
            for (position, heads) in (cache.len()..).zip(heads.chunks_mut(of_token)) {
                rotate(heads, config.head_dim, position, config.rope_theta);
            }
        }
        cache.append(layer as u32, &k, &v)?;
        let view = cache.view(layer as u32)?;
        let mut attended = vec![0.0; q.len()];
        let n_queries = (x.len() / config.dim) as u32;
        let sequence = Sequence { n_queries, ..Sequence::new(&view, &q, &mut attended) };
        self.attention.attend(&mut [sequence], &mut self.workspace, Some(pool))?;
        Ok(multiply(pool, &weights.output, &attended, config.n_query_heads * config.head_dim))
    }

    /// down (silu(gate norm(x)) * up norm(x))
    fn feed_forward(&self, layer: usize, x: &[f32]) -> Vec<f32> {
        let (config, weights, pool) = (&self.config, &self.layers[layer], &self.pool);
        let normed = rms_norm(x, &weights.feed_forward_norm, config.norm_epsilon);
        let mut gate = multiply(pool, &weights.gate, &normed, config.dim);
        let up = multiply(pool, &weights.up, &normed, config.dim);
        swiglu(&mut gate, &up);
        multiply(pool, &weights.down, &gate, config.hidden_dim)
    }
}
