"""Arrays of all kinds: NumPy's corners, foreign DLPack objects (good, old and malformed), jax and torch if present."""
import ctypes
import gc
import threading
import time
import weakref

import dlattn
import ml_dtypes
import numpy as np
import pytest
from dlattn import _raw

RNG = np.random.default_rng(1)
Q = RNG.standard_normal((2, 6, 2, 8)).astype(np.float32)
OUT, LSE = None, None


@pytest.fixture(autouse=True, scope="module")
def expected():
    global OUT, LSE
    OUT, LSE = dlattn.attention(Q, Q, Q, return_lse=True)


class Foreign:
    """A DLPack object of a package that has no from_dlpack; it exports what a NumPy array exports."""

    def __init__(self, array, accepts_version=True):
        self.array, self.accepts_version, self.exports = array, accepts_version, []

    def __dlpack_device__(self):
        return 1, 0

    def __dlpack__(self, *, stream=None, **options):
        if options and not self.accepts_version:
            raise TypeError("unexpected keyword max_version")
        self.exports.append(options)
        return self.array.__dlpack__(**options)


class Capsule:
    """A DLPack object with a capsule made by hand, so that every field can be wrong. Counts calls of the deleter."""

    NAMES = {True: b"dltensor_versioned", False: b"dltensor"}
    new = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)(("PyCapsule_New", ctypes.pythonapi))
    Destructor = ctypes.CFUNCTYPE(None, ctypes.c_void_p)

    def __init__(self, array, versioned=True, name=None, **fields):
        self.array, self.deleted, self.name = array, 0, name or self.NAMES[versioned]
        self.shape = (ctypes.c_int64 * max(array.ndim, 1))(*array.shape)
        code = {"f": _raw.kDLFloat, "i": _raw.kDLInt}[array.dtype.kind]
        tensor = dict(data=array.ctypes.data, device=_raw.DLDevice(1, 0), ndim=array.ndim,
                      dtype=_raw.DLDataType(code, 8 * array.itemsize, 1), shape=ctypes.addressof(self.shape))
        tensor.update({key: value for key, value in fields.items() if key not in ("major", "flags")})
        if versioned:
            self.managed = _raw.DLManagedTensorVersioned(
                version=_raw.DLPackVersion(fields.get("major", 1), 0), flags=fields.get("flags", 0),
                dl_tensor=_raw.DLTensor(**tensor))
        else:
            self.managed = _raw.DLManagedTensor(dl_tensor=_raw.DLTensor(**tensor))
        self.destructor = self.Destructor(self.destroy)

    def destroy(self, capsule):
        self.deleted += 1  # a producer's destructor calls the deleter of a capsule that nobody consumed

    def __dlpack_device__(self):
        return 1, 0

    def __dlpack__(self, **options):
        return self.new(ctypes.addressof(self.managed), self.name, ctypes.cast(self.destructor, ctypes.c_void_p))


def test_read_only_arrays_are_inputs_but_never_outputs():
    q = Q.copy()
    q.flags.writeable = False
    assert (dlattn.attention(q, q, q) == OUT).all()
    with pytest.raises(dlattn.ArgumentError, match="out: .*read-only"):
        dlattn.attention(Q, Q, Q, out=q)
    assert (q == Q).all()


def test_arrays_of_a_numpy_that_cannot_export_them():
    """NumPy before 2.1 knows no max_version and does not export read-only arrays."""

    class Old(np.ndarray):
        def __dlpack__(self, *, stream=None):
            if not self.flags.writeable:
                raise BufferError("Cannot export readonly array")
            return super().__dlpack__()

    q = Q.view(Old)
    q.flags.writeable = False
    assert (dlattn.attention(q, q[:, ::1], q) == OUT).all()
    reverse = Q[:, ::-1].copy()[:, ::-1].view(Old)
    assert (dlattn.attention(q, reverse, reverse) == OUT).all()


def test_bfloat16_stays_bfloat16():
    q = Q.astype(ml_dtypes.bfloat16)
    out, lse = dlattn.attention(q, q, q, return_lse=True)
    assert out.dtype == q.dtype and lse.dtype == np.float32
    given = np.zeros_like(out)
    assert dlattn.attention(q, q, q, out=given) is given
    assert (given == out).all()
    grads = dlattn.attention_backward(out, q, q, q, out, lse)
    assert all(grad.dtype == q.dtype for grad in grads[:3]) and grads.dbias is None


@pytest.mark.parametrize("shape", [(1, 0, 2, 8), (0, 6, 2, 8), (2, 6, 0, 8)])
def test_empty_arrays(shape):
    q = np.zeros(shape, np.float32)
    out, lse = dlattn.attention(q, q, q, return_lse=True)
    assert out.shape == shape and lse.shape == (shape[0], shape[2], shape[1])


def test_broadcast_inputs_are_not_copied():
    k = np.broadcast_to(Q[:1, :, :1], Q.shape)
    assert (dlattn.attention(Q, k, k) == dlattn.attention(Q, k.copy(), k.copy())).all()


@pytest.mark.parametrize("accepts_version", [True, False])
def test_foreign_objects_without_from_dlpack_give_numpy_arrays(accepts_version):
    q = Foreign(Q, accepts_version)
    out, lse = dlattn.attention(q, q, q, return_lse=True)
    assert type(out) is np.ndarray and (out == OUT).all() and (lse == LSE).all()
    assert len(q.exports) == 3


def test_a_type_with_a_namespace_gets_its_own_type_back():
    class Namespace:
        @staticmethod
        def from_dlpack(source):
            return Mine(np.from_dlpack(source))

    class Mine(Foreign):
        def __array_namespace__(self):
            return Namespace

    out = dlattn.attention(Mine(Q), Q, Q)
    assert type(out) is Mine and (out.array == OUT).all()


@pytest.mark.parametrize("versioned", [True, False])
def test_capsules_are_borrowed_and_their_producer_frees_them(versioned):
    q = Capsule(Q, versioned)
    for call in (1, 2):
        assert (dlattn.attention(q, q, q) == OUT).all()
        gc.collect()
        assert q.deleted == 3 * call
    with pytest.raises(dlattn.ShapeError):
        dlattn.attention(q, np.zeros((1, 1), np.float32), q)
    gc.collect()
    assert q.deleted == 8


def test_no_reference_to_an_array_stays_behind():
    q = Q.copy()
    alive = weakref.ref(q)
    dlattn.attention(q, q, q, causal=True)
    del q
    gc.collect()
    assert alive() is None


def test_byte_offset_is_honoured():
    padded = np.concatenate([np.full(5, np.nan, np.float32), Q.ravel()])
    q = Capsule(Q, data=padded.ctypes.data, byte_offset=20)
    assert (dlattn.attention(q, q, q) == OUT).all()


@pytest.mark.parametrize("fields, kind, sentence", [
    ({"major": 2}, dlattn.ArgumentError, "DLPack version 2"),
    ({"name": b"used_dltensor_versioned"}, dlattn.ArgumentError, "expected an unused capsule"),
    ({"data": None}, dlattn.Error, "k"),
    ({"shape": None}, dlattn.Error, "k"),
    ({"ndim": 3}, dlattn.ShapeError, "k"),
    ({"ndim": -1}, dlattn.Error, "k"),
    ({"ndim": 1000}, dlattn.Error, "k"),
    ({"dtype": _raw.DLDataType(_raw.kDLFloat, 32, 2)}, dlattn.DtypeError, "k"),
    ({"dtype": _raw.DLDataType(99, 32, 1)}, dlattn.DtypeError, "k"),
    ({"device": _raw.DLDevice(_raw.kDLCUDA, 0)}, dlattn.DeviceError, "k"),
    ({"device": _raw.DLDevice(99, 0)}, dlattn.DeviceError, "k"),
], ids=lambda x: str(x) if isinstance(x, str) else None)
def test_malformed_tensors_are_refused(fields, kind, sentence):
    poisoned = np.full_like(OUT, -7)
    with pytest.raises(kind, match=sentence):
        dlattn.attention(Q, Capsule(Q, **fields), Q, out=poisoned)
    assert (poisoned == -7).all()


@pytest.mark.parametrize("field", [{"shape": None}, {"ndim": 0}, {"ndim": 1000}, {"data": None}])
def test_a_malformed_q_is_refused(field):
    with pytest.raises(dlattn.Error, match="q"):
        dlattn.attention(Capsule(Q, **field), Q, Q, return_lse=True)


def test_negative_extents_are_refused():
    q = Capsule(Q)
    q.shape[1] = -6
    with pytest.raises(dlattn.ShapeError, match="q"):
        dlattn.attention(q, Q, Q, return_lse=True)


@pytest.mark.parametrize("thing", [None, 3.0, "q", object(), {}])
def test_things_that_are_no_arrays(thing):
    with pytest.raises(dlattn.ArgumentError, match="k: .* has no __dlpack__"):
        dlattn.attention(Q, thing, Q)


def test_an_object_that_fails_to_export():
    class Broken:
        def __dlpack__(self, **options):
            raise BufferError("it requires a gradient")

    with pytest.raises(dlattn.ArgumentError, match="v: Broken gives no DLPack tensor: it requires a gradient"):
        dlattn.attention(Q, Q, Broken())


def test_an_object_that_gives_no_capsule():
    class Broken:
        def __dlpack__(self, **options):
            return 42

    with pytest.raises(dlattn.ArgumentError, match="v: __dlpack__ of Broken gave 42"):
        dlattn.attention(Q, Q, Broken())


@pytest.mark.parametrize("capsule", [Capsule(Q.copy(), versioned=False), Capsule(Q.copy(), flags=1)])
def test_outputs_must_say_that_they_may_be_written(capsule):
    before = capsule.array.copy()
    with pytest.raises(dlattn.ArgumentError, match="out: "):
        dlattn.attention(Q, Q, Q, out=capsule)
    assert (capsule.array == before).all()
    writable = Capsule(np.zeros_like(Q))
    assert dlattn.attention(Q, Q, Q, out=writable) is writable
    assert (writable.array == OUT).all()


def test_the_gil_is_released_during_a_call():
    """A thread that only counts makes progress while the main thread is inside one long call."""
    q = RNG.standard_normal((1, 3000, 4, 64)).astype(np.float32)
    started, stop, ticks = threading.Event(), threading.Event(), [0]

    def count():
        started.set()
        while not stop.is_set():
            ticks[0] += 1
            time.sleep(0.0005)

    counter = threading.Thread(target=count)
    counter.start()
    started.wait()
    before = ticks[0]
    dlattn.attention(q, q, q, num_threads=1)
    during = ticks[0] - before
    stop.set()
    counter.join()
    assert during > 2


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_jax_arrays(dtype):
    jax = pytest.importorskip("jax", reason="jax is not installed")
    q = jax.numpy.asarray(Q, dtype)
    out, lse = dlattn.attention(q, q, q, causal=True, return_lse=True)
    assert isinstance(out, jax.Array) and out.dtype == q.dtype and isinstance(lse, jax.Array)
    plain = np.asarray(Q, out.dtype)
    expected, expected_lse = dlattn.attention(plain, plain, plain, causal=True, return_lse=True)
    assert (np.asarray(out) == expected).all() and (np.asarray(lse) == expected_lse).all()
    grads = dlattn.attention_backward(out, q, q, q, out, lse, causal=True)
    numpy_grads = dlattn.attention_backward(expected, plain, plain, plain, expected, expected_lse, causal=True)
    for found, known in zip(grads[:3], numpy_grads):
        assert isinstance(found, jax.Array) and (np.asarray(found) == known).all()
    with pytest.raises(dlattn.ArgumentError, match="out: "):
        dlattn.attention(q, q, q, out=q)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_torch_tensors(dtype):
    torch = pytest.importorskip("torch", reason="torch is not installed")
    q = torch.from_numpy(Q).to(getattr(torch, dtype))
    out, lse = dlattn.attention(q, q, q, causal=True, return_lse=True)
    assert isinstance(out, torch.Tensor) and out.dtype == q.dtype and lse.dtype == torch.float32
    expected = torch.nn.functional.scaled_dot_product_attention(
        *[q.double().transpose(1, 2)] * 3, is_causal=True).transpose(1, 2)
    assert (out.double() - expected).abs().max() <= 2.0**-7 * expected.abs().max()
    with pytest.raises(dlattn.ArgumentError, match="grad"):
        dlattn.attention(q.clone().requires_grad_(), q, q)
