//! Writes text with a small llama, greedily. Its cache and attention are kvlane; all else is Rust's std, threads included.
//!
//! ```sh
//! cargo run --release --example decoder -- MODEL_DIRECTORY --prompt "In the beginning" --threads 2 --cache q8
//! ```
//!
//! The directory has `model.safetensors` in f16 and `config.json`, as Hugging Face's `LlamaForCausalLM` has them, and
//! `tokenizer.bin`, a vocabulary as llama2.c stores it.

use std::env;
use std::error::Error;
use std::io::Write;
use std::path::Path;
use std::time::Instant;

use kvlane::Format;

mod files;
mod model;
mod operators;
mod tokenizer;

use model::Model;
use tokenizer::Tokenizer;

struct Options {
    directory: String,
    prompt: String,
    steps: usize,
    n_threads: u32,
    cache_format: Format,
}

const USAGE: &str =
    "decoder MODEL_DIRECTORY [--prompt TEXT] [--steps N] [--threads N] [--cache f32|f16|bf16|q8|q4]
  --steps    tokens of the text in all, those of the prompt included (256)
  --threads  threads that share the work (1)
  --cache    how keys and values are stored (f16)";

fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Options, Box<dyn Error>> {
    let directory = arguments.next().ok_or(USAGE)?;
    let mut options =
        Options { directory, prompt: String::new(), steps: 256, n_threads: 1, cache_format: Format::F16 };
    while let Some(name) = arguments.next() {
        let value = arguments.next().ok_or_else(|| format!("{name} has no value\n{USAGE}"))?;
        let wrong = |error: &dyn Error| format!("{name} is {value}: {error}");
        match name.as_str() {
            "--prompt" => options.prompt = value,
            "--steps" => options.steps = value.parse().map_err(|e| wrong(&e))?,
            "--threads" => options.n_threads = value.parse().map_err(|e| wrong(&e))?,
            "--cache" => options.cache_format = value.parse().map_err(|e| wrong(&e))?,
            _ => return Err(format!("{name} is no option\n{USAGE}").into()),
        }
    }
    if options.n_threads == 0 {
        return Err("--threads is 0; it must be at least 1".into());
    }
    Ok(options)
}

/// The first token with the largest logit.
fn likeliest(logits: &[f32]) -> u32 {
    let mut best = 0;
    for (token, logit) in logits.iter().enumerate() {
        if *logit > logits[best] {
            best = token;
        }
    }
    best as u32
}

fn run(options: &Options) -> Result<(), Box<dyn Error>> {
    let directory = Path::new(&options.directory);
    let mut model = Model::load(directory, options.cache_format, options.n_threads)?;
    let tokenizer = Tokenizer::load(&directory.join("tokenizer.bin"), model.config().vocab_size)?;
    let mut text = tokenizer.encode(&options.prompt)?;
    let steps = options.steps.min(model.config().max_len);
    if text.len() > steps {
        return Err(
            format!("--prompt is {} tokens; it must be at most the steps, {steps}", text.len()).into()
        );
    }
    let mut cache = model.cache()?;
    let mut stdout = std::io::stdout();
    for pair in text.windows(2) {
        stdout.write_all(&tokenizer.decode(pair[0], pair[1]))?;
    }
    let start = Instant::now();
    while text.len() <= steps {
        let new = &text[cache.len()..]; // the prompt, or the newest token
        let next = likeliest(&model.forward(&mut cache, new)?);
        if next == Tokenizer::BOS || next == Tokenizer::EOS {
            break;
        }
        stdout.write_all(&tokenizer.decode(text[text.len() - 1], next))?;
        stdout.flush()?;
        text.push(next);
    }
    writeln!(stdout)?;
    eprintln!(
        "{} tokens, {:.1} tokens/s, isa {}, threads {}, cache {} of {} bytes",
        cache.len(),
        cache.len() as f64 / start.elapsed().as_secs_f64(),
        kvlane::isa_in_force()?,
        options.n_threads,
        options.cache_format,
        cache.bytes()
    );
    Ok(())
}

fn main() {
    if let Err(error) = parse(env::args().skip(1)).and_then(|options| run(&options)) {
        eprintln!("decoder: {error}");
        std::process::exit(1);
    }
}
