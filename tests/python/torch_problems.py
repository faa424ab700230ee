"""What the tests of dlattn.torch share: tensors, devices, a call with all its gradients."""
import dlattn
import numpy as np
import pytest
from gpu import to_torch

torch = pytest.importorskip("torch", reason="torch is not installed (make test-torch)")
from dlattn.torch import attention  # noqa: E402

CUDA = torch.cuda.is_available() and "backend: cuda" in dlattn.explain()
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not CUDA, reason="no CUDA device for torch and dlattn"))]


def leaves(case, device):
    """The problem's tensors as leaves that require grad, and the other options."""
    def make(x):
        return to_torch(x, device)

    options = {name: make(value) if isinstance(value, np.ndarray) else value for name, value in case.options.items()}
    tensors = {name: make(getattr(case, name)) for name in "qkv"}
    tensors.update((name, options[name]) for name in ("bias", "sinks") if name in options)
    options = {name: value for name, value in options.items() if name not in tensors}
    return {name: x.requires_grad_() for name, x in tensors.items()}, options


def run(case, device, function=attention):
    """{name: tensor} of out, lse and all gradients."""
    tensors, options = leaves(case, device)
    out, lse = function(*(tensors[name] for name in "qkv"), return_lse=True, **options,
                        **{name: tensors[name] for name in tensors if name not in "qkv"})
    torch.autograd.backward((out, lse), (to_torch(case.dout, device), to_torch(case.dlse, device)))
    return {"out": out.detach(), "lse": lse.detach(), **{f"d{name}": x.grad for name, x in tensors.items()}}


def normal(*shape, dtype=torch.float64, device="cpu"):
    return torch.randn(shape, dtype=dtype, device=device)


def small(requires_grad=True, batch=2):
    """q, k, v, bias and sinks in float64."""
    torch.manual_seed(3)
    tensors = (normal(batch, 5, 4, 3), normal(batch, 6, 2, 3), normal(batch, 6, 2, 4), normal(1, 4, 5, 6), normal(4))
    return [x.requires_grad_(requires_grad) for x in tensors]


def same(left, right):
    return all(torch.equal(a, b) for a, b in zip(left, right, strict=True))


def compiled(function, backend="aot_eager", **options):
    torch._dynamo.reset()
    return torch.compile(function, fullgraph=True, backend=backend, **options)
