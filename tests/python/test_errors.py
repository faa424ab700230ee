"""Bad input: the right exception, a sentence that names tensor, found and expected, and outputs left as they were."""
import dlattn
import ml_dtypes
import numpy as np
import pytest
from dlattn import _errors, _raw

POISON = -7.0


def tensor(*shape, dtype=np.float32):
    return np.ones(shape, dtype)


Q, K, V = tensor(2, 5, 4, 8), tensor(2, 7, 2, 8), tensor(2, 7, 2, 6)

# name: (changed arguments, exception, words that its sentence must have)
BAD = {
    "rank": ({"k": tensor(2, 7, 8)}, dlattn.ShapeError, ["k", "3", "4"]),
    "batch": ({"k": tensor(3, 7, 2, 8)}, dlattn.ShapeError, ["k", "3", "2"]),
    "heads": ({"k": tensor(2, 7, 3, 8), "v": tensor(2, 7, 3, 6)}, dlattn.ShapeError, ["k", "3", "4"]),
    "head size": ({"k": tensor(2, 7, 2, 9)}, dlattn.ShapeError, ["k", "9", "8"]),
    "value length": ({"v": tensor(2, 6, 2, 6)}, dlattn.ShapeError, ["v", "6", "7"]),
    "head size 257": ({"q": tensor(2, 5, 4, 257), "k": tensor(2, 7, 2, 257)}, dlattn.Error, ["257", "256"]),
    "dtype": ({"k": tensor(2, 7, 2, 8, dtype=np.float16)}, dlattn.DtypeError, ["k", "float16", "float32"]),
    "integer q": ({"q": tensor(2, 5, 4, 8, dtype=np.int32)}, dlattn.DtypeError, ["q", "int32"]),
    "complex q": ({"q": tensor(2, 5, 4, 8, dtype=np.complex64)}, dlattn.DtypeError, ["q"]),
    "object q": ({"q": tensor(2, 5, 4, 8, dtype=object)}, dlattn.DtypeError, ["q", "object", "float"]),
    "byte order": ({"k": K.astype(">f4")}, dlattn.DtypeError, ["k", ">f4"]),
    "float8": ({"k": K.astype(ml_dtypes.float8_e4m3fn)}, dlattn.DtypeError, ["k", "float8_e4m3fn"]),
    "bias shape": ({"bias": tensor(2, 4, 5, 6)}, dlattn.ShapeError, ["bias", "6", "7"]),
    "bias dtype": ({"bias": tensor(5, 7, dtype=np.float64)}, dlattn.DtypeError, ["bias", "float64", "float32"]),
    "mask dtype": ({"mask": tensor(5, 7)}, dlattn.DtypeError, ["mask", "float32", "bool"]),
    "sinks shape": ({"sinks": tensor(2)}, dlattn.ShapeError, ["sinks", "2", "4"]),
    "slopes shape": ({"alibi_slopes": tensor(3, 4)}, dlattn.ShapeError, ["alibi_slopes", "3", "2"]),
    "segments shape": ({"segments": (np.zeros((2, 5), int), np.zeros((2, 6), int))}, dlattn.ShapeError,
                       ["kv_segments", "6", "7"]),
    "segments dtype": ({"segments": (tensor(2, 5), tensor(2, 7))}, dlattn.DtypeError, ["q_segments", "float32"]),
    "lengths too long": ({"seqlens_k": [7, 8]}, dlattn.Error, ["seqlens_k", "8", "7"]),
    "lengths negative": ({"seqlens_q": [-1, 5]}, dlattn.Error, ["seqlens_q", "-1"]),
    "starts of another batch": ({"positions": (np.zeros(3, int), 0)}, dlattn.ShapeError, ["q_starts", "3", "2"]),
    "dropout": ({"dropout": 1.5}, dlattn.ArgumentError, ["dropout", "1.5"]),
    "dropout nan": ({"dropout": float("nan")}, dlattn.ArgumentError, ["dropout", "nan"]),
    "softcap": ({"softcap": -1.0}, dlattn.ArgumentError, ["softcap", "-1"]),
    "scale": ({"scale": float("inf")}, dlattn.ArgumentError, ["scale", "inf"]),
    "block window": ({"block_window": (0, 1)}, dlattn.ArgumentError, ["block_size", "0"]),
    "threads": ({"num_threads": -3}, dlattn.ArgumentError, ["num_threads", "-3"]),
    "stride 0 out": ({"out": np.lib.stride_tricks.as_strided(np.full(1, POISON, np.float32), (2, 5, 4, 6), (0,) * 4)},
                     dlattn.ShapeError, ["out", "overlap|stride"]),
    "out shape": ({"out": np.full((2, 5, 4, 7), POISON, np.float32)}, dlattn.ShapeError, ["out", "7", "6"]),
    "out dtype": ({"out": np.full((2, 5, 4, 6), POISON, np.float64)}, dlattn.DtypeError, ["out", "float64", "float32"]),
    "lse dtype": ({"lse": np.full((2, 4, 5), POISON, np.float16)}, dlattn.DtypeError, ["lse", "float16", "float32"]),
    "lse shape": ({"lse": np.full((2, 5, 4), POISON, np.float32)}, dlattn.ShapeError, ["lse", "5", "4"]),
    "paged": ({"block_table": np.full((2, 1), 9, np.int32), "seqlens_k": np.ones(2, np.int32)},
              dlattn.ArgumentError, ["block_table[0,0]", "9", "page"]),
    # what only the binding can see
    "window text": ({"window": "wide"}, dlattn.ArgumentError, ["window", "wide"]),
    "window float": ({"window": (1.5, 0)}, dlattn.ArgumentError, ["window", "1.5", "integer"]),
    "window too large": ({"window": 2**63}, dlattn.ArgumentError, ["window", str(2**63)]),
    "seed negative": ({"seed": -1}, dlattn.ArgumentError, ["seed", "-1"]),
    "seed too large": ({"seed": 2**64}, dlattn.ArgumentError, ["seed", str(2**64)]),
    "layout": ({"layout": "sbhd"}, dlattn.ArgumentError, ["layout", "sbhd", "bshd"]),
    "softcap text": ({"softcap": "x"}, dlattn.ArgumentError, ["softcap", "'x'", "number"]),
    "out_dtype": ({"out_dtype": "int7"}, dlattn.ArgumentError, ["out_dtype", "int7", "float32"]),
    "segments triple": ({"segments": (1, 2, 3)}, dlattn.ArgumentError, ["segments", "pair"]),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_of_the_forward(name):
    changes, kind, words = BAD[name]
    arguments = {"q": Q, "k": K, "v": V, "out": np.full((2, 5, 4, 6), POISON, np.float32),
                 "lse": np.full((2, 4, 5), POISON, np.float32), **changes}
    out, lse = arguments["out"], arguments["lse"]
    if name == "out_dtype":
        del arguments["out"]
    with pytest.raises(kind) as caught:
        dlattn.attention(**arguments)
    assert (out == POISON).all() and (lse == POISON).all()
    sentence = str(caught.value)
    for word in words:
        assert any(choice in sentence for choice in word.split("|")), f"{sentence!r} lacks {word!r}"
    assert caught.value.code == {value: key for key, value in _errors.CLASSES.items()}[type(caught.value)]


def gradients(**changes):
    out, lse = dlattn.attention(Q, K, V, return_lse=True)
    poisoned = {name: np.full(x.shape, POISON, np.float32) for name, x in (("dq", Q), ("dk", K), ("dv", V))}
    arguments = {"dout": np.ones_like(out), "q": Q, "k": K, "v": V, "out": out, "lse": lse, **poisoned, **changes}
    return arguments, [arguments[name] for name in poisoned if arguments[name] is not None]


@pytest.mark.parametrize("changes, kind, words", [
    ({"dout": tensor(2, 5, 4, 7)}, dlattn.ShapeError, ["dout", "7", "6"]),
    ({"dout": tensor(2, 5, 4, 6, dtype=np.float64)}, dlattn.DtypeError, ["dout", "float64"]),
    ({"lse": tensor(2, 4, 6)}, dlattn.ShapeError, ["lse", "6", "5"]),
    ({"dlse": tensor(2, 4, 5, dtype=np.float16)}, dlattn.DtypeError, ["dlse", "float16"]),
    ({"grads": ("dq", "dbias")}, dlattn.ArgumentError, ["dbias", "bias"]),
    ({"grads": ("dsinks",)}, dlattn.ArgumentError, ["dsinks", "sinks"]),
    ({"dk": np.full((2, 7, 2, 8), POISON, np.float16)}, dlattn.DtypeError, ["dk", "float16"]),
    ({"dv": np.full((2, 7, 2, 5), POISON, np.float32)}, dlattn.ShapeError, ["dv", "5", "6"]),
], ids=lambda x: next(iter(x)) if isinstance(x, dict) else "")
def test_bad_input_of_the_backward(changes, kind, words):
    arguments, poisoned = gradients(**changes)
    with pytest.raises(kind) as caught:
        dlattn.attention_backward(**arguments)
    assert all((x == POISON).all() for x in poisoned)
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_one_array_for_two_outputs_is_refused():
    arguments, _ = gradients()
    arguments["dk"] = arguments["dq"] = np.full((2, 5, 4, 8), POISON, np.float32)
    arguments["k"] = arguments["q"]
    arguments["v"] = tensor(2, 5, 4, 6)
    arguments["dv"] = None
    with pytest.raises(dlattn.ShapeError, match="d[qk]"):
        dlattn.attention_backward(**arguments)
    assert (arguments["dq"] == POISON).all()


def test_bad_input_of_merge():
    out, lse = dlattn.attention(Q, K, V, return_lse=True)
    with pytest.raises(dlattn.ArgumentError, match="2 outs and 1 lses"):
        dlattn.merge([out, out], [lse])
    with pytest.raises(dlattn.ArgumentError, match="0 outs"):
        dlattn.merge([], [])
    with pytest.raises(dlattn.ShapeError):
        dlattn.merge([out, out[:1]], [lse, lse])


def test_unknown_options_and_gradients_are_type_errors():
    with pytest.raises(TypeError, match="unknown option 'is_causal'.*causal"):
        dlattn.attention(Q, K, V, is_causal=True)
    out, lse = dlattn.attention(Q, K, V, return_lse=True)
    with pytest.raises(TypeError, match="unknown gradient 'dx'"):
        dlattn.attention_backward(out, Q, K, V, out, lse, grads=("dx",))


def test_exceptions_are_also_the_builtin_ones():
    assert issubclass(dlattn.ShapeError, ValueError) and issubclass(dlattn.ArgumentError, ValueError)
    assert issubclass(dlattn.DtypeError, TypeError) and issubclass(dlattn.OutOfMemoryError, MemoryError)
    assert issubclass(dlattn.UnsupportedError, NotImplementedError)
    assert all(issubclass(kind, dlattn.Error) for kind in _errors.CLASSES.values())


def test_every_code_has_its_class_and_an_unknown_one_is_plain():
    codes = {value for name, value in vars(_raw).items() if name.startswith("DLATTN_ERR_")}
    assert set(_errors.CLASSES) == codes
    unknown = _errors.error(12345, "a code from the future")
    assert type(unknown) is dlattn.Error and unknown.code == 12345 and str(unknown) == "a code from the future"


def test_options_of_the_process():
    dlattn.set_option("num_threads", 1)
    dlattn.set_option("num_threads", None)
    with pytest.raises(dlattn.ArgumentError, match="colour"):
        dlattn.set_option("colour", "red")
    with pytest.raises(dlattn.ArgumentError, match="many"):
        dlattn.set_option("num_threads", "many")


def test_explain_says_what_would_happen_and_why_not():
    assert dlattn.version() in dlattn.explain()
    assert "cpu" in dlattn.explain(Q, K, V, causal=True).lower()
    assert "cpu" in dlattn.explain(Q, K, V, backward=True, bias=tensor(5, 7), grads=("dq", "dbias")).lower()
    assert "3" in dlattn.explain(Q, tensor(3, 7, 2, 8), V)


def test_prepare_computes_nothing_and_refuses_what_a_call_would():
    read_only = Q.view()
    read_only.flags.writeable = False
    assert dlattn.prepare(read_only, K, V, causal=True) is None
    assert dlattn.prepare(Q, K, V, backward=True, bias=tensor(5, 7), grads=("dq", "dbias")) is None
    with pytest.raises(dlattn.ShapeError, match="k has"):
        dlattn.prepare(Q, tensor(3, 7, 2, 8), V)
    with pytest.raises(dlattn.ArgumentError, match="dbias is wanted but bias is NULL"):
        dlattn.prepare(Q, K, V, backward=True, grads=("dbias",))
    with pytest.raises(TypeError, match="unknown gradient 'dx'"):
        dlattn.prepare(Q, K, V, backward=True, grads=("dx",))
