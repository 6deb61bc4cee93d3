"""What passes the wire comes out as it went in; what is no plain data does not pass."""

import array
import enum
import json
import math

import numpy as np
import pytest

import spiral
from spiral.plugin.sandbox.protocol import Array, Failure, Request, Response, WireError, decode, encode

LIMITS = {"message_bytes": 1 << 20, "depth": 32}


def passed(value):
    return decode(encode(Response(1, value), **LIMITS), depth=32).result


@pytest.mark.parametrize(
    "value",
    [
        None, True, False, 0, -(2**63), 2**63 - 1, 0.1, -0.0, 1e308, 5e-324, math.inf, -math.inf, "", "é\n\u2028\0😀",
        b"", bytes(range(256)), [], {}, [[]], {"a": [1, {"b": None}]}, {"": 1},
    ],
    ids=repr,
)  # fmt: skip
def test_plain_data_comes_out_as_it_went_in(value):
    back = passed(value)
    assert back == value and type(back) is type(value)


def test_nan_passes_as_an_object():
    line = encode(Response(1, math.nan), **LIMITS)
    assert json.loads(line)["result"] == {"$float": "nan"} and math.isnan(decode(line, depth=32).result)


@pytest.mark.parametrize("dtype", ["bool", "int8", "uint16", "int64", "uint64", "float32", "float64"])
@pytest.mark.parametrize("shape", [(), (3,), (2, 3), (0, 2), (2, 0)])
def test_arrays_keep_dtype_shape_and_bits(dtype, shape):
    sent = np.arange(math.prod(shape) + 1)[: math.prod(shape)].reshape(shape).astype(dtype)
    got = passed({"x": sent})["x"] if shape else passed({"x": Array(dtype, (), sent.tobytes())})["x"]
    assert got.tolist() == sent.tolist()
    np.testing.assert_array_equal(got.numpy(), sent, strict=True)


def test_arrays_that_are_not_contiguous_pass_in_their_order():
    sent = np.arange(12, dtype=np.float32).reshape(3, 4).T[::2]
    np.testing.assert_array_equal(passed(sent).numpy(), sent)
    assert passed(array.array("d", [1.5])).tolist() == [1.5]


def test_scalars_of_numpy_and_enumerations_become_plain():
    class Colour(enum.IntEnum):
        RED = 3

    assert passed([np.float32(0.5), np.int64(3), np.float64(0.25), np.bool_(True), Colour.RED]) == [
        0.5,
        3,
        0.25,
        True,
        3,
    ]
    assert type(passed(np.float32(0.5))) is float and passed((1, 2)) == [1, 2]


@pytest.mark.parametrize(
    "value",
    [
        object(), {1: 2}, {"$x": 1}, 2**63, {1, 2}, lambda: 0, 1j, "\ud800", {"\ud800": 1},
        np.zeros(2, "complex64"), np.zeros(2, "datetime64[s]"), np.zeros(2, "O"), np.zeros(2, ">f4"),
    ],
    ids=lambda v: type(v).__name__,
)  # fmt: skip
def test_what_is_no_plain_data_is_refused(value):
    with pytest.raises(WireError, match="wire|array"):
        encode(Response(1, value), **LIMITS)


def test_tensors_pass_as_arrays_only_when_asked_to():
    x = spiral.asarray([1.0, 2.0])
    assert passed(x.numpy()).tolist() == [1.0, 2.0]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b'{"jsonrpc":"2.0","id":1,"result":NaN}', "NaN"),
        (b'{"jsonrpc":"2.0","id":1,"result":-Infinity}', "Infinity"),
        (b'{"jsonrpc":"2.0","id":1,"result":1e999}', "too large"),
        (b'{"jsonrpc":"2.0","id":1,"result":' + b"1" * 5000 + b"}", "JSON"),
        (b'{"jsonrpc":"2.0","id":1,"result":9223372036854775808}', "64 bits"),
        (b'{"jsonrpc":"2.0","id":1,"result":"\\ud800"}', "surrogate"),
        (b'{"jsonrpc":"2.0","id":1,"result":{"a":1,"a":2}}', "twice"),
        (b'{"jsonrpc":"2.0","id":1,"result":{"$float":"1"}}', "begins with"),
        (b'{"jsonrpc":"2.0","id":1,"result":{"$float":[]}}', "wrong"),
        (b'{"jsonrpc":"2.0","id":1,"result":{"$bytes":"?"}}', "wrong"),
        (b'{"jsonrpc":"2.0","id":1,"result":{"$bytes":"","x":1}}', "begins with"),
        (b'{"jsonrpc":"2.0","id":1,"result":{"$array":{"dtype":"object","shape":[],"data":""}}}', "dtype"),
        (b'{"jsonrpc":"2.0","id":1,"result":{"$array":{"dtype":"int8","shape":[2],"data":"AA=="}}}', "2 bytes"),
        (b'{"jsonrpc":"2.0","id":1,"result":{"$array":{"dtype":"int8","shape":[-1],"data":""}}}', "shape"),
        (b'{"jsonrpc":"2.0","id":1,"result":{"$array":{"dtype":[],"shape":[],"data":""}}}', "wrong|dtype"),
        (b'{"jsonrpc":"2.0","id":1,"result":{"$array":3}}', "wrong"),
        (b'{"jsonrpc":"2.0","method":"x","params":[1]}', "params"),
        (b'{"jsonrpc":"2.0","method":"x","params":{"$bytes":""}}', "params"),
        (b'{"jsonrpc":"2.0","method":3}', "neither"),
        (b'{"jsonrpc":"1.0","method":"x"}', "jsonrpc"),
        (b'\xef\xbb\xbf{"jsonrpc":"2.0","method":"x"}', "JSON"),
        (b'{"jsonrpc":"2.0","method":"x"} {}', "JSON"),
        (b"\xff\xfe", "UTF-8"),
    ],
)  # fmt: skip
def test_what_is_no_message_is_refused(text, says):
    with pytest.raises(WireError, match=says):
        decode(text, depth=32)


@pytest.mark.parametrize(
    "message",
    [
        Request("log", {"a": 1}), Request("call", {}, 3), Request("x", {"y": b"z"}, "id"), Response(2, None),
        Response("x", [1]), Response(3, error=Failure(-32000, "no", {"type": "KeyError"})),
    ],
    ids=repr,
)  # fmt: skip
def test_messages_come_out_as_they_went_in(message):
    line = encode(message, **LIMITS)
    assert line.count(b"\n") == 1 and line.endswith(b"\n")
    assert decode(line, depth=32) == message


def test_depth_counts_from_the_message_in_both_directions():
    value = 0
    for _ in range(5):
        value = [value]
    line = encode(Response(1, value), message_bytes=1000, depth=6)
    assert decode(line, depth=6).result == value
    with pytest.raises(WireError, match="nested") as caught:
        encode(Response(1, value), message_bytes=1000, depth=5)
    assert caught.value.limit == "depth"
    with pytest.raises(WireError, match="nested"):
        decode(line, depth=5)


def test_a_value_that_contains_itself_is_refused():
    loop = []
    loop.append(loop)
    with pytest.raises(WireError, match="nested"):
        encode(Response(1, loop), **LIMITS)
