"""A pytest plugin that points tests of FlashAttention and JAX at dlattn; see run.sh beside it.

SAMPLE: how many cases of each test run, drawn by SEED; COST: the largest one, as seqlen_q * seqlen_k * head size.
"""
import os
import random
import sys
import types
import zlib

NOT_ASKED = {
    "test_compilation_count",  # of Triton's kernels
    "testDotProductAttentionBiasGradient2", "testDotProductAttentionBiasGradient3",  # that cuDNN refuses these gradients
}


def serve_flash_attn():
    """`import flash_attn` finds dlattn.flash_attn. Without a GPU the tests' questions about it are answered as by an H100."""
    import dlattn.flash_attn.bert_padding
    import dlattn.flash_attn.flash_attn_interface
    import dlattn.flash_attn.layers.rotary
    import torch

    for name in [name for name in sys.modules if name.startswith("dlattn.flash_attn")]:
        sys.modules[name.partition(".")[2]] = sys.modules[name]
    if not torch.cuda.is_available():
        torch.cuda.get_device_capability = lambda *_: (9, 0)
        torch.cuda.get_device_properties = lambda *_: types.SimpleNamespace(multi_processor_count=2, total_memory=2**40)
        torch.cuda.synchronize = lambda *_: None
        sys.modules.setdefault("triton", types.ModuleType("triton"))  # imported, not used


def serve_jax_nn():
    """jax.nn.dot_product_attention is dlattn's where the tests name an implementation, JAX's own where they do not."""
    import dlattn.jax
    import jax

    reference = jax.nn.dot_product_attention

    def call(*args, implementation=None, **options):
        if implementation is None:
            return reference(*args, implementation="xla", **options)
        return dlattn.jax.dot_product_attention(*args, implementation=implementation, **options)

    jax.nn.dot_product_attention = call


def uses_dlattn(function, *args, **options):
    """In place of the JAX tests' question whether a program calls cuDNN."""
    import jax

    return "dlattn_" in jax.jit(function).lower(*args, **options).as_text("stablehlo", debug_info=True)


def pytest_configure(config):
    (serve_jax_nn if "jax" in os.environ.get("POINTED", "") else serve_flash_attn)()


def cost(parameters):
    longest = parameters.get("seqlen", 128)
    return parameters.get("seqlen_q", longest) * parameters.get("seqlen_k", longest) * parameters.get("d", 64)


def pytest_collection_modifyitems(config, items):
    sample, limit = int(os.environ.get("SAMPLE", "20")), float(os.environ.get("COST", "inf"))
    tests: dict = {}
    for item in items:
        if hasattr(item.module, "_check_cudnn_backend"):
            item.module._check_cudnn_backend = uses_dlattn
            item.module._is_required_cudnn_version_satisfied = lambda *_: True
        if item.name in NOT_ASKED:
            continue
        if not hasattr(item, "callspec") or cost(item.callspec.params) <= limit:
            tests.setdefault(item.originalname if hasattr(item, "callspec") else item.name, []).append(item)
    chosen = set()
    for name, group in tests.items():
        rng = random.Random(zlib.crc32(name.encode()) + int(os.environ.get("SEED", "0")))
        chosen.update(rng.sample(group, min(sample, len(group))))
    config.hook.pytest_deselected(items=[item for item in items if item not in chosen])
    items[:] = [item for item in items if item in chosen]
