//! What the decoder reads: a few numbers of `config.json`, and tensors of `model.safetensors`.

use std::error::Error;
use std::fs;
use std::path::Path;

use kvlane::Elements;

/// Reads a file; an error names it.
pub fn read(path: &Path) -> Result<Vec<u8>, Box<dyn Error>> {
    fs::read(path).map_err(|error| format!("{}: {error}", path.display()).into())
}

/// The shape of the model.
pub struct Config {
    pub dim: usize,
    pub hidden_dim: usize,
    pub n_layers: usize,
    pub n_query_heads: usize,
    pub n_kv_heads: usize,
    pub head_dim: usize,
    pub vocab_size: usize,
    pub max_len: usize,
    pub norm_epsilon: f32,
    pub rope_theta: f32,
}

impl Config {
    pub fn load(path: &Path) -> Result<Self, Box<dyn Error>> {
        let json = String::from_utf8(read(path)?)?;
        let number =
            |key| number_of(&json, key).ok_or_else(|| format!("{}: no number {key}", path.display()));
        let size = |key| number(key).map(|n| n as usize);
        Ok(Self {
            dim: size("hidden_size")?,
            hidden_dim: size("intermediate_size")?,
            n_layers: size("num_hidden_layers")?,
            n_query_heads: size("num_attention_heads")?,
            n_kv_heads: size("num_key_value_heads")?,
            head_dim: size("head_dim")?,
            vocab_size: size("vocab_size")?,
            max_len: size("max_position_embeddings")?,
            norm_epsilon: number("rms_norm_eps")? as f32,
            rope_theta: number("rope_theta")? as f32,
        })
    }
}

/// What follows a key of a JSON text, wherever the key is.
fn value_of<'a>(json: &'a str, key: &str) -> Option<&'a str> {
    let (_, rest) = json.split_once(&format!("\"{key}\""))?;
    Some(rest.trim_start().strip_prefix(':')?.trim_start())
}

fn number_of(json: &str, key: &str) -> Option<f64> {
    let value = value_of(json, key)?;
    value[..value.find([',', '}', '\n'])?].trim().parse().ok()
}

/// Tensors by name: 8 bytes that are the length of a JSON header, the header, the tensors' bytes.
pub struct Tensors {
    header: String,
    data: Vec<u8>,
}

impl Tensors {
    pub fn load(path: &Path) -> Result<Self, Box<dyn Error>> {
        let bytes = read(path)?;
        let parse = || {
            let header_len = u64::from_le_bytes(bytes.get(..8)?.try_into().ok()?) as usize;
            let header = bytes.get(8..header_len.checked_add(8)?)?;
            Some(Self {
                header: String::from_utf8(header.to_vec()).ok()?,
                data: bytes[8 + header_len..].to_vec(),
            })
        };
        parse().ok_or_else(|| format!("{}: not a safetensors file", path.display()).into())
    }

    /// Reads a tensor of f16 with this many elements.
    pub fn read(&self, name: &str, n: usize) -> Result<Vec<f32>, Box<dyn Error>> {
        let find = || {
            let entry = value_of(&self.header, name)?.split_once('}')?.0;
            value_of(entry, "dtype")?.strip_prefix("\"F16\"")?;
            let (begin, rest) = value_of(entry, "data_offsets")?.strip_prefix('[')?.split_once(',')?;
            let end = rest.split_once(']')?.0;
            let bytes = self.data.get(begin.trim().parse().ok()?..end.trim().parse().ok()?)?;
            (bytes.len() == 2 * n).then_some(bytes)
        };
        let bytes = find().ok_or_else(|| format!("the model has no tensor {name} of {n} elements in f16"))?;
        let bits: Vec<_> = bytes.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]])).collect();
        Ok(Elements::F16(&bits).to_f32()?)
    }
}
