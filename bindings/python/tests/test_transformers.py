"""Tiny models of transformers with random weights: "kvlane" against eager attention."""

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

import kvlane.transformers  # noqa: E402
from kvlane.transformers import KvlaneCache  # noqa: E402

SIZES = {
    "vocab_size": 100,
    "hidden_size": 96,
    "intermediate_size": 128,
    "num_hidden_layers": 4,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "bos_token_id": 1,
    "eos_token_id": None,
    "pad_token_id": 0,
    "initializer_range": 0.2,
}
MODELS = {
    "llama": lambda: transformers.LlamaForCausalLM(transformers.LlamaConfig(**SIZES)),
    "qwen2": lambda: transformers.Qwen2ForCausalLM(transformers.Qwen2Config(**SIZES)),
    "gemma2": lambda: transformers.Gemma2ForCausalLM(
        transformers.Gemma2Config(**SIZES, head_dim=32, query_pre_attn_scalar=20, sliding_window=16, attn_logit_softcapping=5.0)
    ),
    "gpt-oss": lambda: transformers.GptOssForCausalLM(
        transformers.GptOssConfig(**{**SIZES, "initializer_range": 0.1}, head_dim=32, sliding_window=16, num_local_experts=2, num_experts_per_tok=1)
    ),
}
PROMPT = torch.tensor([[5, 17, 42, 8, 99, 23, 61, 7, 12, 33]])
BATCH = {  # prompts of 10, 6 and 3 tokens, padded to the left
    "input_ids": torch.tensor([[5, 17, 42, 8, 99, 23, 61, 7, 12, 33], [0] * 4 + [9, 8, 7, 6, 5, 4], [0] * 7 + [70, 71, 72]]),
    "attention_mask": torch.tensor([[1] * 10, [0] * 4 + [1] * 6, [0] * 7 + [1] * 3]),
}


@pytest.fixture(scope="module", autouse=True)
def registered():
    torch.set_num_threads(1)  # for models as small as these; libgomp's threads would spin
    kvlane.transformers.register(kvlane.Threads(2))


@pytest.fixture(params=MODELS, scope="module")
def model(request):
    torch.manual_seed(0)
    model = MODELS[request.param]().eval()
    for name, parameter in model.named_parameters():  # biases, and gpt-oss's sinks, are 0 at first
        if name.endswith((".bias", ".sinks")):
            torch.nn.init.normal_(parameter)
    return model


def generate(model, implementation, cache=None, **arguments):
    model.set_attn_implementation(implementation)
    inputs = {"input_ids": PROMPT, **arguments} if "input_ids" not in arguments else arguments
    options = {"max_new_tokens": 80, "do_sample": False, "return_dict_in_generate": True, "output_logits": True, **inputs}
    return model.generate(cache=cache, **options)


@pytest.mark.parametrize("inputs", [{"input_ids": PROMPT}, BATCH], ids=["one prompt", "padded batch"])
@pytest.mark.parametrize("with_cache", [True, False], ids=["KvlaneCache", "DynamicCache"])
def test_greedy_decoding_is_that_of_eager_attention(model, with_cache, inputs):
    expected = generate(model, "eager", **inputs)
    cache = KvlaneCache(model.config, format="f32") if with_cache else None
    actual = generate(model, "kvlane", cache, **inputs)
    assert torch.equal(actual.sequences, expected.sequences)
    logits, expected_logits = torch.stack(actual.logits), torch.stack(expected.logits)
    assert logits.shape[0] == 80
    # Relative to the largest logit: with these weights logits are large.
    assert (logits - expected_logits).abs().max() <= 1e-5 * expected_logits.abs().max()
    if with_cache:
        assert cache.get_seq_length() == inputs["input_ids"].shape[1] + 79
        assert all(len(layer.caches) == len(inputs["input_ids"]) for layer in cache.layers)


def logits_of(model, implementation, ids=PROMPT.repeat(1, 8), **arguments):
    model.set_attn_implementation(implementation)
    with torch.no_grad():
        return model(ids, **arguments).logits


@pytest.mark.parametrize("format, bound", [("f16", 0.005), ("bf16", 0.04), ("q8", 0.08), ("q4", 0.6)])
def test_formats_stay_close(model, format, bound):
    expected = logits_of(model, "eager")
    actual = logits_of(model, "kvlane", cache=KvlaneCache(model.config, format=format))
    assert 0 < (actual - expected).norm() / expected.norm() < bound


def test_prompt_in_pieces_crop_and_reset(model):
    ids = PROMPT.repeat(1, 8)
    expected = logits_of(model, "eager", ids)
    cache = KvlaneCache(model.config, format="f32")
    for first, end in ((0, 30), (30, 33), (33, 80)):
        piece = logits_of(model, "kvlane", ids[:, first:end], cache=cache)
        assert (piece - expected[:, first:end]).abs().max() <= 1e-5 * expected.abs().max()
    cache.crop(-20)
    assert cache.get_seq_length() == 60
    piece = logits_of(model, "kvlane", ids[:, 60:], cache=cache)
    assert (piece - expected[:, 60:]).abs().max() <= 1e-5 * expected.abs().max()
    assert cache.bytes == 80 * sum(layer.caches[0].info(0).bytes_per_token for layer in cache.layers)
    cache.reset()
    assert cache.get_seq_length() == 0 and cache.bytes == 0
    assert (logits_of(model, "kvlane", ids, cache=cache) - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_static_cache(model):
    expected = logits_of(model, "eager")
    cache = transformers.StaticCache(model.config, max_cache_len=100)
    for first, end in ((0, 60), (60, 79), (79, 80)):
        piece = logits_of(model, "kvlane", PROMPT.repeat(1, 8)[:, first:end], cache=cache)
        assert (piece - expected[:, first:end]).abs().max() <= 1e-5 * expected.abs().max()


def test_additive_mask(model):
    """A mask that the caller has made: a query sees itself and every other token before."""
    distance = torch.arange(80)[:, None] - torch.arange(80)
    visible = (distance >= 0) & (distance % 2 == 0)
    mask = torch.zeros(1, 1, 80, 80).masked_fill(~visible, torch.finfo(torch.float32).min)
    expected = logits_of(model, "eager", attention_mask=mask)
    actual = logits_of(model, "kvlane", attention_mask=mask, cache=KvlaneCache(model.config, format="f32"))
    assert (actual - expected).abs().max() <= 1e-5 * expected.abs().max()
    actual = logits_of(model, "kvlane", attention_mask=visible[None, None])
    assert (actual - expected).abs().max() <= 1e-5 * expected.abs().max()


@pytest.mark.parametrize("options", [{"num_beams": 3}, {"num_beams": 4, "num_return_sequences": 2}], ids=str)
def test_beam_search(model, options):
    expected = generate(model, "eager", max_new_tokens=30, **options)
    actual = generate(model, "kvlane", KvlaneCache(model.config, format="f32"), max_new_tokens=30, **options)
    assert torch.equal(actual.sequences, expected.sequences)


def test_bf16_model():
    torch.manual_seed(0)
    model = MODELS["llama"]().eval().bfloat16()
    expected = logits_of(model, "eager")
    actual = logits_of(model, "kvlane", cache=KvlaneCache(model.config, format="bf16"))
    assert actual.dtype == torch.bfloat16
    assert (actual - expected).norm() / expected.norm() < 0.05


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_the_cache_needs_its_attention(implementation):
    model = MODELS["llama"]()
    with pytest.raises(ValueError, match="a KvlaneCache is read by the attention implementation"):
        logits_of(model, implementation, cache=KvlaneCache(model.config))


def test_no_training():
    model = MODELS["llama"]()
    model.set_attn_implementation("kvlane")
    with pytest.raises(ValueError, match="for inference"):
        model(PROMPT)


def test_errors_of_the_cache():
    model = MODELS["llama"]()
    with pytest.raises(kvlane.Error, match="format is"):
        logits_of(model, "kvlane", cache=KvlaneCache(model.config, format="f8"))
    cache = KvlaneCache(model.config, max_tokens=20)
    with pytest.raises(kvlane.Error) as error:
        logits_of(model, "kvlane", cache=cache)
    assert error.value.status == "KVL_ERROR_CAPACITY"
    cache = KvlaneCache(model.config)
    logits_of(model, "kvlane", PROMPT, cache=cache)
    with pytest.raises(ValueError, match="2 sequences; it must have the cache's, 1"):
        logits_of(model, "kvlane", PROMPT.repeat(2, 1), cache=cache)


def test_an_update_that_fails_leaves_the_cache_as_it_was():
    layer = KvlaneCache(MODELS["llama"]().config, format="f32").layers[0]
    states = torch.randn(2, 2, 3, 16)
    layer.update(states, states)
    with pytest.raises(kvlane.Error):
        layer.update(states, states.int())
    assert layer.get_seq_length() == 3
    layer.update(states, states)
    assert layer.get_seq_length() == 6


def test_a_mask_that_is_shorter_than_the_cache_hides_the_rest(model):
    """As transformers pads it."""

    def logits(implementation):
        model.set_attn_implementation(implementation)
        cache = KvlaneCache(model.config, format="f32") if implementation == "kvlane" else transformers.DynamicCache(config=model.config)
        with torch.no_grad():
            model(input_ids=PROMPT, past_key_values=cache)
            mask = torch.ones(1, 8, dtype=torch.long)
            return model(input_ids=PROMPT[:, :1], past_key_values=cache, attention_mask=mask).logits

    assert torch.allclose(logits("kvlane"), logits("eager"), atol=1e-4)
