"""Small random models of many families of transformers: dlattn beside their own eager attention; see run.sh.

    models.py [family ...]

Padded batches: outputs, gradients of all parameters, greedily generated tokens. Exit code 0 when all agree to 1e-5 of
the largest, else 1.
"""
import sys
import warnings

import torch
import transformers
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM

import dlattn.huggingface

DECODERS = """arcee cohere cohere2 deepseek_v3 ernie4_5 exaone4 gemma gemma2 gemma3_text glm glm4 gpt2 gpt_bigcode gpt_neox
    gpt_oss granite helium hunyuan_v1_dense llama ministral mistral mixtral nemotron olmo olmo2 opt persimmon phi phi3 qwen2
    qwen2_moe qwen3 qwen3_moe smollm3 stablelm starcoder2""".split()
ENCODERS = "albert bert camembert clip_text_model distilbert electra esm modernbert roberta vit xlm-roberta".split()
SIZES = dict(hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, head_dim=16,
             vocab_size=99, max_position_embeddings=64, pad_token_id=0, bos_token_id=1, eos_token_id=2)
OLD = dict(n_embd=64, n_layer=2, n_head=4, vocab_size=99, n_positions=64, bos_token_id=1, eos_token_id=2)
LATENT = dict(SIZES, num_key_value_heads=4, q_lora_rank=16, kv_lora_rank=16, qk_rope_head_dim=8, qk_nope_head_dim=8,
              v_head_dim=16, n_routed_experts=4, num_experts_per_tok=2, n_group=1, topk_group=1, moe_intermediate_size=16)
WHOLE = {"gpt2": OLD, "gpt_bigcode": OLD, "deepseek_v3": {name: x for name, x in LATENT.items() if name != "head_dim"},
         "distilbert": dict(dim=64, hidden_dim=96, n_layers=2, n_heads=4, vocab_size=99, max_position_embeddings=64),
         "vit": dict(hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4, image_size=32,
                     patch_size=8)}
EXTRA = {"albert": dict(embedding_size=32), "opt": dict(ffn_dim=96, word_embed_proj_dim=64)}
WINDOWED = "cohere2 exaone4 gemma2 gemma3_text gpt_oss ministral mistral phi3 starcoder2".split()
BOUND = 1e-5
TOKENS, PADDED, NEW = 12, 4, 8


def inputs(family):
    """(arguments of the model, the part of its result that has a meaning)."""
    rng = torch.Generator().manual_seed(1)
    if family == "vit":
        return {"pixel_values": torch.randn(2, 3, 32, 32, generator=rng)}, slice(None)
    ids = torch.randint(3, 99, (2, TOKENS), generator=rng)
    mask = torch.ones_like(ids)
    mask[0, :PADDED] = 0
    return {"input_ids": ids, "attention_mask": mask}, slice(PADDED, None)


def results(family, attention):
    """[result, gradients of the parameters ...] and generated tokens."""
    config = AutoConfig.for_model(family, **WHOLE.get(family, SIZES), **EXTRA.get(family, {}),
                                  **({"sliding_window": 5} if family in WINDOWED else {}))
    torch.manual_seed(0)
    kind = AutoModelForCausalLM if family in DECODERS else AutoModel
    model = kind.from_config(config, attn_implementation=attention).eval()
    arguments, there = inputs(family)
    found = model(**arguments)
    found = (found.logits if family in DECODERS else found.last_hidden_state)[:, there]
    found.square().mean().backward()
    tokens = model.generate(**arguments, max_new_tokens=NEW, do_sample=False).tolist() if family in DECODERS else None
    return [found.detach()], [x.grad for x in model.parameters() if x.grad is not None], tokens


def difference(left, right):
    """The largest one, beside the largest value of all."""
    if len(left) != len(right):
        return float("inf")
    return float(max((x - y).abs().max() for x, y in zip(left, right)) / max(x.abs().max() for x in left))


def main(families):
    dlattn.huggingface.register()
    transformers.logging.set_verbosity_error()
    warnings.filterwarnings("ignore")
    wrong, attention, calls = [], dlattn.huggingface.attention, []
    dlattn.huggingface.attention = lambda *tensors, **options: calls.append(1) or attention(*tensors, **options)
    for family in families or [*DECODERS, *ENCODERS]:
        calls.clear()
        expected, found = (results(family, attention) for attention in ("eager", "dlattn"))
        out, grads = (difference(*pair) for pair in zip(expected[:2], found[:2]))
        same = expected[2] == found[2]
        print(f"{family:20} result {out:.1e}  gradients {grads:.1e}  {'' if same else 'other tokens'}", flush=True)
        if not (calls and out <= BOUND and grads <= BOUND and same):
            wrong.append(family)
    print(f"differ: {', '.join(wrong)}" if wrong else "all agree")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
