"""A call on CUDA from Python tries without a workspace, and asks for one where the library wants it: without a device, with
functions that play the library's."""
import ctypes
import types

import pytest
from dlattn import _raw
from dlattn._errors import WorkspaceError
from dlattn._run import EXEC, Loans

BYTES, STREAM = 4096, 0x5000


class Function:
    """Called as ctypes' functions are, and like them not to be hashed."""

    __hash__ = None

    def __init__(self, call):
        self.call = call

    def __call__(self, *arguments):
        return self.call(*arguments)


class Library:
    """A forward that uses a workspace while `needs` is set, and its query. `calls` tells what they saw."""

    def __init__(self):
        self.needs, self.calls = True, []

    def forward(self, attention, outputs, exec_):
        there = exec_.workspace is not None and exec_.workspace_bytes >= BYTES
        assert exec_.stream == STREAM and (there or exec_.workspace is None)
        assert there or exec_.workspace_bytes or self.calls == ["asks"], "without a workspace, one is promised"
        self.calls.append("with" if there else "without")
        return _raw.DLATTN_OK if there or not self.needs else _raw.DLATTN_ERR_WORKSPACE

    def query(self, attention, outputs, exec_, needed, least):
        needed.value = BYTES if self.needs else 0
        self.calls.append("asks")
        return _raw.DLATTN_OK

    def take(self):
        found, self.calls = self.calls, []
        return found


def play(library, launch):
    assert (launch(), library.take()) == (None, ["without", "asks", "with"])
    assert (launch(), library.take()) == (None, ["asks", "with"]), "it remembers"
    library.needs = False
    assert (launch(), library.take()) == (None, ["asks", "without"])
    assert [(launch(), library.take()) for _ in range(2)] == [(None, ["without"])] * 2
    library.needs = True
    assert (launch(), library.take()) == (None, ["without", "asks", "with"])


def test_any_framework():
    library, loans, memory = Library(), Loans(), (ctypes.c_char * BYTES)()
    framework = types.SimpleNamespace(workspace=lambda size, device, stream: (memory, ctypes.addressof(memory)))
    function = Function(library.forward)

    def launch():
        loans.run = types.SimpleNamespace(framework=framework, device=0, stream=STREAM, others=(), waits=False)
        EXEC.pack_into(loans.exec, 0, EXEC.size, STREAM, 0, 0)  # as Run does
        return loans.launch(function, None, None, None, library.query)

    play(library, launch)
    library.query = lambda *_: _raw.DLATTN_ERR_WORKSPACE
    with pytest.raises(WorkspaceError):
        launch()


def test_torch(monkeypatch):
    torch = pytest.importorskip("torch", reason="torch is not installed (make test-torch)")
    from dlattn.torch import _native

    library, frame = Library(), _native.Frame()
    function = Function(library.forward)
    q = types.SimpleNamespace(is_cuda=True, get_device=lambda: 0, device=torch.device("cpu"))
    monkeypatch.setattr(_native, "_stream", lambda device: STREAM)
    monkeypatch.setattr(_native._nvrtc, "decided", True)
    play(library, lambda: frame.launch(function, None, library.query, q, 0))
    library.query = lambda *_: _raw.DLATTN_ERR_WORKSPACE
    with pytest.raises(WorkspaceError):
        frame.launch(function, None, library.query, q, 0)
    library.needs = False
    monkeypatch.setattr(_native, "_stream", lambda device: STREAM + 1)
    with pytest.raises(AssertionError):  # another stream, which the play does not expect
        frame.asks.clear()
        frame.launch(function, None, library.query, q, 0)
