"""Small models of transformers with random weights: dlattn beside their own sdpa and eager attention."""
import dlattn
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed (make test-torch)")
transformers = pytest.importorskip("transformers", reason="transformers is not installed (make test-torch)")
import dlattn.huggingface  # noqa: E402

NAME = dlattn.huggingface.register()
SIZES = dict(vocab_size=80, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
             num_key_value_heads=2, max_position_embeddings=128, attention_dropout=0.0)
MODELS = {  # name: (class, configuration, what to compare with)
    "llama": ("Llama", {}, ("sdpa", "eager")),
    "mistral": ("Mistral", dict(sliding_window=7), ("sdpa", "eager")),
    "gemma2": ("Gemma2", dict(sliding_window=6, head_dim=16, attn_logit_softcapping=2.0, query_pre_attn_scalar=16),
               ("eager",)),
    "gpt_oss": ("GptOss", dict(sliding_window=6, head_dim=16, num_local_experts=2, num_experts_per_tok=1), ("eager",)),
    "bert": ("Bert", dict(attention_probs_dropout_prob=0.0, hidden_dropout_prob=0.0), ("sdpa", "eager")),
}


def model_of(name, attention=NAME):
    family, options, _ = MODELS[name]
    sizes = {**SIZES, **options}
    if family == "Bert":
        sizes.pop("num_key_value_heads")
        sizes.pop("attention_dropout")
    config = getattr(transformers, f"{family}Config")(**sizes)
    config._attn_implementation = attention
    torch.manual_seed(0)
    kind = f"{family}{'ForMaskedLM' if family == 'Bert' else 'ForCausalLM'}"
    model = getattr(transformers, kind)._from_config(config, attn_implementation=attention).eval()
    if family == "GptOss":
        for layer in model.model.layers:
            torch.nn.init.normal_(layer.self_attn.sinks)
    return model


def tokens(batch=2, length=19):
    return torch.randint(3, 80, (batch, length), generator=torch.Generator().manual_seed(1))


def padded(side, batch=2, length=19, count=5):
    mask = torch.ones(batch, length, dtype=torch.long)
    mask[1, :count if side == "left" else None] = 0
    if side == "right":
        mask[1] = 1
        mask[1, -count:] = 0
    return mask


@pytest.fixture
def problems(monkeypatch):
    """The options of each call of dlattn."""
    seen, original = [], dlattn.huggingface.attention
    monkeypatch.setattr(dlattn.huggingface, "attention", lambda *a, **o: seen.append(o) or original(*a, **o))
    return seen


def logits_and_gradients(model, ids, mask=None):
    logits = model(ids, attention_mask=mask).logits
    kept = logits if mask is None else logits[mask.bool()]
    weights = torch.linspace(-1, 1, kept.numel(), dtype=kept.dtype).reshape(kept.shape)
    grads = torch.autograd.grad((kept * weights).sum(), list(model.parameters()), allow_unused=True)
    return [kept.detach(), *(x for x in grads if x is not None)]


def assert_same(found, expected):
    for one, other in zip(found, expected, strict=True):
        assert (one - other).abs().max() <= 3e-5 * max(1.0, float(other.detach().abs().max()))


@pytest.mark.parametrize("padding", [None, "left", "right"])
@pytest.mark.parametrize("name", MODELS)
def test_logits_and_gradients_are_those_of_the_peers(name, padding, problems):
    mask = None if padding is None else padded(padding)
    found = logits_and_gradients(model_of(name), tokens(), mask)
    assert len(problems) == 2 and not any(options.get("dropout") for options in problems)
    for options in problems:
        stored = options.get("mask")
        assert stored is None or name == "bert" or stored.shape == (2, 1, 1, 19), "no mask of M x N"
        assert name == "bert" or options["causal"]
        assert padding or stored is None
    if name in ("mistral", "gpt_oss", "gemma2"):
        assert problems[0]["window"] == (MODELS[name][1]["sliding_window"] - 1, 0)
    for peer in MODELS[name][2]:
        assert_same(found, logits_and_gradients(model_of(name, peer), tokens(), mask))


@pytest.mark.parametrize("name", ["llama", "mistral", "gemma2"])
def test_generation_with_a_cache(name, problems):
    options = dict(max_new_tokens=9, do_sample=False, pad_token_id=0, attention_mask=padded("left"))
    found = model_of(name).generate(tokens(), **options)
    assert problems, "dlattn was called"
    assert torch.equal(found, model_of(name, "eager").generate(tokens(), **options))


def test_prefill_in_chunks(problems):
    """A chunk of queries behind cached keys: the last query sees the last key."""
    model, ids = model_of("llama"), tokens()
    whole = model(ids).logits
    cache = transformers.DynamicCache()
    parts = [model(ids[:, cut], past_key_values=cache).logits for cut in (slice(0, 8), slice(8, 19))]
    assert_same([torch.cat(parts, 1)], [whole])
    assert all(options.get("mask") is None for options in problems)


def test_static_cache_and_packed_sequences_have_dense_masks(problems):
    model, ids = model_of("llama"), tokens()
    peer = model_of("llama", "sdpa")
    options = dict(max_new_tokens=5, do_sample=False, pad_token_id=0, cache_implementation="static", disable_compile=True)
    assert torch.equal(model.generate(ids, **options), peer.generate(ids, **options))
    problems.clear()
    positions = torch.cat([torch.arange(11), torch.arange(8)])[None].expand(2, -1)
    found, expected = (one(ids, position_ids=positions, use_cache=False).logits for one in (model, peer))
    assert_same([found], [expected])
    assert problems[0]["mask"].shape[-2:] == (19, 19)


def test_a_compiled_model():
    torch._dynamo.reset()
    model, ids = model_of("mistral"), tokens()
    expected = model(ids, use_cache=False).logits
    assert_same([torch.compile(model, backend="aot_eager", fullgraph=True)(ids, use_cache=False).logits], [expected])


def test_dropout_in_training(problems):
    model = model_of("llama").train()
    for layer in model.model.layers:
        layer.self_attn.attention_dropout = 0.5
    torch.manual_seed(1)
    first, second = model(tokens()).logits, model(tokens()).logits
    torch.manual_seed(1)
    assert torch.equal(model(tokens()).logits, first) and not torch.equal(first, second)
    assert problems[0]["dropout"] == 0.5


def test_a_paged_cache_is_refused_in_words():
    with pytest.raises(dlattn.UnsupportedError, match="continuous batching"):
        dlattn.huggingface.attention_forward(None, None, None, None, None, cache=object())
