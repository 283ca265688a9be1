"""Trains the example's model, examples/llama2/kjv, on the text of text.py: a Llama of 1.8 million parameters.

    python3 tools/train/train.py WORK --model examples/llama2/kjv

WORK keeps the tokenizer and a checkpoint: the same command continues an interrupted run. The learning rate rises over the first
steps, is constant, and falls as a cosine over the last steps. Windows of text are short at first, and as long as the context while
the learning rate falls. A run that was interrupted before that may be continued with another --steps: the result is that of a run
with this --steps from the beginning.
"""

import argparse
import json
import math
import time
from pathlib import Path

import numpy
import torch
from safetensors.torch import save_file
from transformers import LlamaConfig, LlamaForCausalLM

import text
import tokenizer

CONTEXT = 1024
CONFIG = {  # config.json
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "torch_dtype": "float16",
    "vocab_size": 1024, "hidden_size": 160, "intermediate_size": 416, "num_hidden_layers": 4,
    "num_attention_heads": 8, "num_key_value_heads": 2, "head_dim": 64, "max_position_embeddings": CONTEXT,
    "rope_theta": 10000.0, "rms_norm_eps": 1e-5, "hidden_act": "silu", "tie_word_embeddings": True,
    "bos_token_id": tokenizer.BOS, "eos_token_id": tokenizer.EOS,
}
SHORT_WINDOW = 256
TOKENS_PER_STEP = 2048
LEARNING_RATE = 2e-3
WARM_UP_STEPS = 100
DECAY = 0.2  # the part of the steps in which the learning rate falls
WEIGHT_DECAY = 0.1
SEED = 1


def new_model():
    """Returns an untrained model."""
    torch.manual_seed(SEED)
    return LlamaForCausalLM(LlamaConfig(**CONFIG))


def new_optimizer(model):
    """Returns an AdamW that keeps only matrices small, not norms."""
    matrices = [weight for weight in model.parameters() if weight.dim() == 2]
    vectors = [weight for weight in model.parameters() if weight.dim() == 1]
    return torch.optim.AdamW([{"params": matrices, "weight_decay": WEIGHT_DECAY}, {"params": vectors, "weight_decay": 0.0}],
                             lr=LEARNING_RATE, betas=(0.9, 0.98))


def learning_rate(step, n_steps):
    """Returns the learning rate of a step."""
    decay_begin = decay_start(n_steps)
    if step >= decay_begin:
        return LEARNING_RATE * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * (step - decay_begin) / (n_steps - decay_begin))))
    return LEARNING_RATE * min(1, (step + 1) / WARM_UP_STEPS)


def decay_start(n_steps):
    """Returns the first step whose learning rate falls."""
    return round(n_steps * (1 - DECAY))


def windows(tokens, step, n_steps):
    """Draws a step's windows: (n, length) tokens, each row BOS and consecutive tokens. They depend on the step alone."""
    length = CONTEXT if step >= decay_start(n_steps) else SHORT_WINDOW
    begins = numpy.random.default_rng((SEED, step)).integers(0, len(tokens) - length, TOKENS_PER_STEP // length)
    return torch.tensor(numpy.stack([numpy.concatenate(([tokenizer.BOS], tokens[begin:begin + length - 1])) for begin in begins]))


def held_out_loss(model, tokens, length):
    """Returns the mean of -log(probability of the next token) over consecutive windows of length tokens, BOS first."""
    total, count = 0.0, 0
    with torch.no_grad():
        for begin in range(0, len(tokens), length - 1):
            window = torch.tensor([[tokenizer.BOS, *tokens[begin:begin + length - 1]]])
            total += model(input_ids=window, labels=window).loss.item() * (window.shape[1] - 1)
            count += window.shape[1] - 1
    return total / count


def save_model(model, directory):
    """Writes config.json, and the weights in f16. Both are in the form that transformers loads."""
    (directory / "config.json").write_text(json.dumps(CONFIG, indent=2) + "\n")
    weights = {name: weight.half() for name, weight in model.state_dict().items() if name != "lm_head.weight"}  # tied
    save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})


def tokens_of(processor, of_text):
    return numpy.array(processor.encode(of_text), dtype=numpy.int64)


class Run:
    """The state of a training run, which a checkpoint holds."""

    def __init__(self, path):
        self.path = path
        self.model = new_model()
        self.optimizer = new_optimizer(self.model)
        self.step, self.wall_seconds, self.cpu_seconds = 0, 0.0, 0.0
        if path.exists():
            state = torch.load(path)
            self.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.step, self.wall_seconds, self.cpu_seconds = state["step"], state["wall_seconds"], state["cpu_seconds"]
        self.wall_mark, self.cpu_mark = time.time(), time.process_time()

    def save(self):
        wall, cpu = time.time(), time.process_time()
        self.wall_seconds += wall - self.wall_mark
        self.cpu_seconds += cpu - self.cpu_mark
        self.wall_mark, self.cpu_mark = wall, cpu
        unfinished = self.path.with_suffix(".new")
        torch.save({"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict(), "step": self.step,
                    "wall_seconds": self.wall_seconds, "cpu_seconds": self.cpu_seconds}, unfinished)
        unfinished.replace(self.path)

    def learn(self, tokens, n_steps):
        """Takes one step; returns its loss."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.step, n_steps)
        window = windows(tokens, self.step, n_steps)
        loss = self.model(input_ids=window, labels=window).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.step += 1
        return loss.item()


def report(run, held_out, n_bytes, **more):
    """Prints a line of JSON about the run and its held-out loss."""
    loss = held_out_loss(run.model, held_out, CONTEXT)
    print(json.dumps({"step": run.step, **more, "held_out_loss": round(loss, 4), "held_out_perplexity": round(math.exp(loss), 3),
                      "held_out_bits_per_byte": round(loss / math.log(2) * len(held_out) / n_bytes, 4),
                      "wall_seconds": round(run.wall_seconds), "cpu_seconds": round(run.cpu_seconds)}), flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path, metavar="WORK", help="directory of the tokenizer and the checkpoint")
    parser.add_argument("--model", type=Path, required=True, help="directory to write the model to")
    parser.add_argument("--steps", type=int, default=3250, help="steps in all, of 2048 tokens each (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="threads of torch (default: %(default)s)")
    parser.add_argument("--save-every", type=int, default=100, help="steps between checkpoints (default: %(default)s)")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    options.work.mkdir(parents=True, exist_ok=True)
    options.model.mkdir(parents=True, exist_ok=True)

    training_text, held_out_text = text.split_text()
    processor = tokenizer.learn(training_text.splitlines(), CONFIG["vocab_size"])
    tokenizer.export(processor, options.model / "tokenizer.bin")
    tokens, held_out = tokens_of(processor, training_text), tokens_of(processor, held_out_text)
    n_bytes = len(held_out_text.encode())
    print(json.dumps({"training_tokens": len(tokens), "held_out_tokens": len(held_out), "held_out_bytes": n_bytes}), flush=True)

    run = Run(options.work / "checkpoint.pt")
    while run.step < options.steps:
        loss = run.learn(tokens, options.steps)
        if run.step % options.save_every == 0 or run.step == options.steps:
            run.save()
            report(run, held_out, n_bytes, training_loss=round(loss, 4))

    save_model(run.model, options.model)
    run.model = LlamaForCausalLM.from_pretrained(options.model, dtype=torch.float32)
    report(run, held_out, n_bytes, weights="float16")


if __name__ == "__main__":
    main()
