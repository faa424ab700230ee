"""What the binding does for CUDA arrays, seen without a GPU: arrays, frameworks and the library's calls are stand-ins.

Streams, workspace, order between frameworks, the exchange table, where NVRTC is looked for. Values are checked on a GPU
by the other test_cuda_*.py.
"""
import ctypes
import threading

import dlattn
import numpy as np
import pytest
from dlattn import _attention, _exchange, _frameworks, _nvrtc, _raw, _tensor
from dlattn._run import PROMISED

STREAM, WORKSPACE = 0x7F00, 0xABC0


class Array:
    """A DLPack object that says it lies on CUDA device `device`. Its memory is NumPy's."""

    new = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)(("PyCapsule_New", ctypes.pythonapi))

    def __init__(self, shape=(1, 4, 2, 8), device=3, versioned=True):
        self.numpy, self.device, self.versioned, self.asked = np.zeros(shape, np.float32), device, versioned, []

    @property
    def shape(self):
        return self.numpy.shape

    def __dlpack_device__(self):
        return _raw.kDLCUDA, self.device

    def __dlpack__(self, *, stream=None, max_version=None):
        self.asked.append(stream)
        ndim = self.numpy.ndim
        self.sizes = (ctypes.c_int64 * ndim)(*self.numpy.shape)
        tensor = _raw.DLTensor(self.numpy.ctypes.data, (_raw.kDLCUDA, self.device), ndim, (_raw.kDLFloat, 32, 1),
                               ctypes.addressof(self.sizes))
        if self.versioned:
            self.managed = _raw.DLManagedTensorVersioned(version=(1, 0), dl_tensor=tensor)
            return self.new(ctypes.addressof(self.managed), b"dltensor_versioned", None)
        self.managed = _raw.DLManagedTensor(dl_tensor=tensor)
        return self.new(ctypes.addressof(self.managed), b"dltensor", None)


class Other(Array):
    """An array of a second framework."""


class Stranger(Array):
    """An array of a package that the binding does not know."""


class Framework:
    waits = False

    def __init__(self, kind, log, stream=STREAM):
        self.kind, self.log, self.number = kind, log, stream

    def device_of(self, array):
        return array.device

    def stream(self, device):
        return self.number

    def empty(self, shape, word, device):
        self.log.append(("empty", tuple(shape), device))
        return self.kind(shape, device)

    def empty_like(self, like):
        return self.empty(like.shape, 0, like.device)

    def workspace(self, size, device, stream):
        self.log.append(("workspace", size, device, stream))
        return object(), WORKSPACE

    def fork(self, device, stream):
        self.log.append(("fork", self.kind.__name__, device, stream))

    def join(self, device, stream):
        self.log.append(("join", self.kind.__name__, device, stream))


class Library:
    """Records the calls; a workspace query answers `needed` bytes, and a call that has only been promised them is refused."""

    def __init__(self, log, needed):
        self.log, self.needed = log, needed

    def _query(self, problem, result, exec_, bytes_, minimum):
        bytes_.value = self.needed
        return 0

    def _call(self, problem, result, exec_):
        if self.needed and not exec_.workspace:
            assert exec_.workspace_bytes == PROMISED
            self.log.append(("refused",))
            return _raw.DLATTN_ERR_WORKSPACE
        self.log.append(("call", exec_.stream, exec_.workspace, exec_.workspace_bytes))
        return 0

    dlattn_forward = dlattn_backward = dlattn_merge = dlattn_dropout_mask = _call
    dlattn_forward_workspace = dlattn_backward_workspace = _query


@pytest.fixture
def cuda(monkeypatch):
    """The log of a world with two frameworks, whose arrays say that they lie on CUDA device 3."""
    log = []
    monkeypatch.setattr(_nvrtc, "announce", lambda: None)
    monkeypatch.setattr(_attention, "library", Library(log, 0))
    monkeypatch.setattr(_frameworks, "wait", lambda stream: log.append(("wait", stream)))
    kinds = {kind: _tensor.Kind(_tensor._borrow_dlpack, Framework(kind, log)) for kind in (Array, Other)}
    monkeypatch.setattr(_tensor, "_kinds", {**_tensor._kinds, **kinds})
    return log


def test_a_call_runs_on_the_current_stream_and_gives_arrays_of_the_same_type(cuda):
    q = Array()
    out, lse = dlattn.attention(q, Array(), Array((1, 4, 2, 5)), return_lse=True)
    assert type(out) is Array and type(lse) is Array
    assert cuda == [("empty", (1, 4, 2, 5), 3), ("empty", (1, 2, 4), 3), ("call", STREAM, None, PROMISED)]


def test_workspace_comes_from_the_framework(cuda, monkeypatch):
    monkeypatch.setattr(_attention, "library", Library(cuda, 4096))
    q = Array()
    dlattn.attention_backward(q, q, q, q, q, Array((1, 2, 4)))
    assert cuda[-3:] == [("refused",), ("workspace", 4096, 3, STREAM), ("call", STREAM, WORKSPACE, 4096)]
    assert [entry[0] for entry in cuda[:-3]] == ["empty"] * 3


@pytest.mark.parametrize("versioned", [True, False])
@pytest.mark.parametrize("stream, asked", [(STREAM, STREAM), (0, 1), (1, 1), (2, 2)])
def test_the_stream_that_a_producer_is_given(cuda, monkeypatch, stream, asked, versioned):
    """0 is not allowed in the protocol: 1 is the legacy default stream, 2 the per-thread one."""
    monkeypatch.setitem(_tensor._kinds, Array, _tensor.Kind(_tensor._borrow_dlpack, Framework(Array, cuda, stream)))
    k = Array(versioned=versioned)
    dlattn.attention(Array(), k, k)
    assert k.asked == [asked, asked] and cuda[-1][:2] == ("call", stream or None)


def test_other_frameworks_are_ordered_before_and_after(cuda):
    dlattn.attention(Array(), Other(), Other())
    assert cuda == [("fork", "Other", 3, STREAM), ("empty", (1, 4, 2, 8), 3), ("call", STREAM, None, PROMISED),
                    ("join", "Other", 3, STREAM)]


def test_an_unknown_producer_gets_the_stream_and_the_host_waits_for_the_end(cuda):
    k = Stranger()
    dlattn.attention(Array(), k, k)
    assert k.asked == [STREAM, STREAM]
    assert cuda == [("empty", (1, 4, 2, 8), 3), ("call", STREAM, None, PROMISED), ("wait", STREAM)]


def test_an_unknown_array_cannot_lead(cuda):
    with pytest.raises(dlattn.ArgumentError, match="q: this Stranger lies on CUDA.*PyTorch, CuPy and JAX"):
        dlattn.attention(Stranger(), Array(), Array())
    assert cuda == []


def test_an_array_of_another_device_is_handed_over_unordered(cuda):
    """The library refuses it; a producer may not be given a stream of another device."""
    k = Array(device=1)
    dlattn.attention(Array(), k, k)
    assert k.asked == [None, None]


def test_nothing_of_one_call_is_left_in_the_next():
    """The C structs serve call after call, from any thread, failed ones between."""
    q = np.random.default_rng(1).standard_normal((1, 9, 2, 8)).astype(np.float32)
    plain, causal = dlattn.attention(q, q, q), dlattn.attention(q, q, q, causal=True, softcap=2.0, seqlens_k=[5])
    wrong = []

    def work():
        for _ in range(100):
            if not (dlattn.attention(q, q, q, causal=True, softcap=2.0, seqlens_k=[5]) == causal).all():
                wrong.append("causal")
            with pytest.raises(dlattn.ShapeError):
                dlattn.attention(q, q, q[:, :3], window=(1, 1))
            if not (dlattn.attention(q, q, q) == plain).all():
                wrong.append("plain")

    threads = [threading.Thread(target=work) for _ in range(3)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert not wrong and (plain != causal).any()


def test_more_tensors_than_a_call_has_room_for():
    q = np.random.default_rng(2).standard_normal((1, 3, 2, 8)).astype(np.float32)
    out, lse = dlattn.attention(q, q, q, return_lse=True)
    merged, _ = dlattn.merge([out] * 20, [lse] * 20)
    assert np.allclose(merged, out, rtol=2.0**-20, atol=0)


def test_merge_and_dropout_mask_run_there_too(cuda, monkeypatch):
    from dlattn import _inspect

    monkeypatch.setattr(_inspect, "library", Library(cuda, 0))
    out, lse = dlattn.merge([Array(), Array()], [Array((1, 2, 4)), Array((1, 2, 4))])
    assert type(out) is Array and type(lse) is Array and cuda[-1] == ("call", STREAM, None, 0)
    keep = dlattn.dropout_mask(Array(), Other(), dropout=0.5)
    assert type(keep) is Array and cuda[-1] == ("join", "Other", 3, STREAM)


def test_tensors_on_two_kinds_of_device_are_refused_by_the_library():
    host = np.zeros((1, 4, 2, 8), np.float32)
    with pytest.raises(dlattn.DeviceError, match="k"):
        dlattn.attention(host, Array(), host)


def test_the_host_waits_with_the_driver(monkeypatch):
    class Driver:
        status = 0

        def cuStreamSynchronize(self, stream):
            assert stream.value == STREAM
            return self.status

    monkeypatch.setitem(_frameworks._loaded, "driver", Driver())
    _frameworks.wait(STREAM)
    Driver.status = 700
    with pytest.raises(dlattn.CudaError, match="700"):
        _frameworks.wait(STREAM)


class Tables:
    """Types with exchange tables made by hand: of our major version, of the next one, and of the next before ours."""

    name = b"dlpack_exchange_api"

    def __init__(self):
        self.filled = []
        self.function = _exchange.Export(self.fill)
        address = ctypes.cast(self.function, ctypes.c_void_p)
        self.ours = _exchange.Table(version=(1, 3), tensor_from_object=address)
        self.next = _exchange.Table(version=(2, 0), tensor_from_object=1)
        self.chain = _exchange.Table(version=(2, 0), previous=ctypes.addressof(self.ours), tensor_from_object=1)
        self.empty = _exchange.Table(version=(1, 2))

    def fill(self, array, tensor):
        self.filled.append(array)
        tensor.contents.data = 77
        return 0

    def type_with(self, table):
        return type("Tensor", (), {_exchange.ATTRIBUTE: Array.new(ctypes.addressof(table), self.name, None)})


def test_the_exchange_table_is_used_when_its_version_is_ours():
    tables = Tables()
    for table in (tables.ours, tables.chain):
        kind = tables.type_with(table)
        tensor, array = _raw.DLTensor(), kind()
        assert _exchange.exporter(kind)(array, tensor) == 0
        assert tensor.data == 77 and tables.filled.pop() is array
    assert _exchange.exporter(tables.type_with(tables.next)) is None
    assert _exchange.exporter(tables.type_with(tables.empty)) is None
    assert _exchange.exporter(type("Plain", (), {})) is None
    assert _exchange.exporter(type("Old", (), {_exchange.ATTRIBUTE: 1234})) is None


def test_nvrtc_of_wheels_is_found_on_the_path(tmp_path):
    assert _nvrtc.wheel_folder([str(tmp_path), ""]) is None
    for wheel, name in (("nvidia/cuda_nvrtc/lib", "libnvrtc.so.12"), ("nvidia/cu13/lib", "libnvrtc.so.13")):
        folder = tmp_path / wheel
        folder.mkdir(parents=True)
        assert _nvrtc.wheel_folder([str(tmp_path)]) != str(folder)
        (folder / name).touch()
        assert _nvrtc.wheel_folder([str(tmp_path / "nothing"), str(tmp_path)]) == str(folder)


@pytest.mark.parametrize("environment, by_user, told", [(None, False, 1), ("/opt", False, 0), (None, True, 0)])
def test_nvrtc_is_told_once_unless_the_user_chose(monkeypatch, environment, by_user, told):
    calls = []

    class Options:
        @staticmethod
        def dlattn_set_option(name, value):
            calls.append((name, value))
            return 0

    monkeypatch.setattr(_nvrtc, "library", Options)
    monkeypatch.setattr(_nvrtc, "decided", False)
    monkeypatch.setattr(_nvrtc, "wheel_folder", lambda: "/wheels")
    monkeypatch.delenv("DLATTN_NVRTC", raising=False)
    if environment:
        monkeypatch.setenv("DLATTN_NVRTC", environment)
    if by_user:
        _nvrtc.chosen_by_user()
    _nvrtc.announce()
    _nvrtc.announce()
    assert calls == [(b"nvrtc", b"/wheels")] * told
