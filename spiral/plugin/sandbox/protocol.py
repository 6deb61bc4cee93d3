"""The wire protocol between host and plugin: what a line may hold. ``docs/plugin-protocol.md`` is its description.

One JSON-RPC 2.0 message a line, UTF-8. Only plain data passes: nothing that is read can make code run. This file needs
the standard library alone, as both ends use it.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any, NoReturn

from spiral.errors import SpiralError, received

VERSION = 1

PARSE_ERROR = -32700
INVALID_REQUEST = -32600
METHOD_NOT_FOUND = -32601
INVALID_PARAMS = -32602
INTERNAL_ERROR = -32603
PLUGIN_RAISED = -32000
OUT_OF_MEMORY = -32001
NO_STATE = -32002
REFUSED = -32010

INT_MIN, INT_MAX = -(1 << 63), (1 << 63) - 1
_FLOATS = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}
_DTYPES = {
    "bool": ("?", 1), "int8": ("b", 1), "uint8": ("B", 1), "int16": ("h", 2), "uint16": ("H", 2), "int32": ("i", 4),
    "uint32": ("I", 4), "int64": ("q", 8), "uint64": ("Q", 8), "float32": ("f", 4), "float64": ("d", 8),
}  # fmt: skip
"""dtype → the buffer protocol's letter, bytes of an element."""
_DTYPE_OF = {letter: name for name, (letter, _) in _DTYPES.items()} | {"l": "int64", "L": "uint64"}


class WireError(SpiralError, ValueError):
    """A value or a message cannot go over the wire, or what came is not the protocol.

    Attributes:
        code: the JSON-RPC error code.
        limit: ``message_bytes`` or ``depth`` where the message is right but too large.
    """

    def __init__(self, message: str, code: int = INVALID_REQUEST, limit: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.limit = limit


@dataclass(frozen=True)
class Array:
    """Numbers with a shape, as they pass the wire; made of anything with a buffer, such as a NumPy array.

    Attributes:
        dtype: its NumPy name: bool, int8 … uint64, float32, float64.
        shape: as NumPy's.
        data: its elements in C order, little-endian.

    Example:
        >>> import array
        >>> a = Array.of(array.array("f", [1, 2, 3]))
        >>> a.dtype, a.shape, a.tolist()
        ('float32', (3,), [1.0, 2.0, 3.0])
    """

    dtype: str
    shape: tuple[int, ...]
    data: bytes

    def __post_init__(self) -> None:
        if self.dtype not in _DTYPES:
            raise WireError(f"array: dtype must be one of {', '.join(_DTYPES)}; received {received(self.dtype)}.")
        if any(not isinstance(n, int) or isinstance(n, bool) or n < 0 for n in self.shape):
            raise WireError(f"array: shape must be integers ≥ 0; received {received(self.shape)}.")
        expected = prod(self.shape) * _DTYPES[self.dtype][1]
        if len(self.data) != expected:
            raise WireError(
                f"array: {self.dtype} of shape {self.shape} has {expected} bytes; received {len(self.data)}."
            )

    @classmethod
    def of(cls, value: Any) -> Array:
        """A copy of something that has a buffer.

        Raises:
            WireError: it has none, or its elements cannot be sent.
        """
        try:
            view = memoryview(value)
            letter = view.format
            data = view.tobytes()
        except (TypeError, ValueError, BufferError) as error:
            raise WireError(f"array: has no buffer of numbers: {received(value)}.") from error
        name = _DTYPE_OF.get(letter.lstrip("@=<"))
        if name is None or _DTYPES[name][1] != view.itemsize:
            raise WireError(f"array: dtype must be one of {', '.join(_DTYPES)}; received {received(value)}.")
        return cls(name, tuple(view.shape or ()), data)

    def tolist(self) -> Any:
        """Nested lists of Python numbers."""
        letter: Any = _DTYPES[self.dtype][0]
        flat: Any = memoryview(self.data).cast(letter).tolist() if self.data else []
        if not self.shape:
            return flat[0]
        for length in reversed(self.shape[1:]):
            rows = len(flat) // length if length else 0
            flat = [flat[i * length : (i + 1) * length] for i in range(rows)]
        return flat if flat or not self.shape[0] else [[] for _ in range(self.shape[0])]

    def numpy(self) -> Any:
        """A read-only NumPy array of the same memory."""
        import numpy as np

        return np.frombuffer(self.data, dtype=np.dtype(self.dtype).newbyteorder("<")).reshape(self.shape)


def to_wire(value: Any, depth: int) -> Any:
    """What JSON can say of a value.

    Args:
        value: None, bool, int, float, str, bytes, `Array` or an object with a buffer; lists, tuples and string-keyed
            mappings of these.
        depth: how deep it may be nested.

    Raises:
        WireError: it is something else, or deeper.
    """
    if value is None or value is True or value is False:
        return value
    kind = type(value)
    if kind is str:
        return value
    if kind is int:
        if not INT_MIN <= value <= INT_MAX:
            raise WireError(f"wire: integers have 64 bits; received {received(value)}.")
        return value
    if kind is float:
        return value if math.isfinite(value) else {"$float": str(value)}
    if depth <= 0:
        raise WireError("wire: the value is nested too deeply.", limit="depth")
    if isinstance(value, Mapping):
        filled = {}
        for key, item in value.items():
            if not isinstance(key, str) or key.startswith("$"):
                raise WireError(f"wire: a key is a string that does not begin with $; received {received(key)}.")
            filled[key] = to_wire(item, depth - 1)
        return filled
    if isinstance(value, (list, tuple)):
        return [to_wire(item, depth - 1) for item in value]
    if isinstance(value, (bytes, bytearray)):
        return {"$bytes": base64.b64encode(value).decode("ascii")}
    if isinstance(value, (str, int, float)):  # subclasses: enumerations, numpy.float64
        base = str if isinstance(value, str) else int if isinstance(value, int) else float
        return to_wire(base(value), depth)
    if getattr(value, "shape", None) == () and hasattr(value, "item"):  # NumPy's scalars
        return to_wire(value.item(), depth)
    array = value if isinstance(value, Array) else Array.of(_contiguous(value))
    data = base64.b64encode(array.data).decode("ascii")
    return {"$array": {"dtype": array.dtype, "shape": list(array.shape), "data": data}}


def _contiguous(value: Any) -> Any:
    try:
        memoryview(value)
    except (TypeError, ValueError, BufferError) as error:
        raise WireError(
            "wire: only None, bool, int, float, str, bytes, arrays, lists and dicts can be sent; "
            f"received {received(value)}."
        ) from error
    return value


def from_wire(value: Any, depth: int) -> Any:
    """The value that JSON described.

    Raises:
        WireError: it is not what `to_wire` may give, or is nested deeper.
    """
    if value is None or value is True or value is False:
        return value
    if isinstance(value, str):
        return _checked_text(value)
    if isinstance(value, int):
        if not INT_MIN <= value <= INT_MAX:
            raise WireError(f"wire: integers have 64 bits; received {received(value)}.")
        return value
    if isinstance(value, float):
        if math.isinf(value):
            raise WireError('wire: a number is too large for float64; infinity is written {"$float": "inf"}.')
        return value
    if depth <= 0:
        raise WireError("wire: the message is nested too deeply.", limit="depth")
    if isinstance(value, list):
        return [from_wire(item, depth - 1) for item in value]
    for key in value:
        if key.startswith("$"):
            return _special(value)
        _checked_text(key)
    return {key: from_wire(item, depth - 1) for key, item in value.items()}


def _checked_text(text: str) -> str:
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise WireError("wire: a string has half of a surrogate pair, which is no character.") from error
    return text


def _special(value: dict[str, Any]) -> Any:
    """The value of an object whose one key begins with a dollar sign."""
    (kind, body), *rest = value.items()
    try:
        if not rest and kind == "$float" and body in _FLOATS:
            return _FLOATS[body]
        if not rest and kind == "$bytes":
            return base64.b64decode(body, validate=True)
        if not rest and kind == "$array" and set(body) == {"dtype", "shape", "data"}:
            return Array(body["dtype"], tuple(body["shape"]), base64.b64decode(body["data"], validate=True))
    except (TypeError, ValueError, binascii.Error) as error:
        raise WireError(f"wire: a wrong {kind}: {error}") from error
    raise WireError(
        f"wire: an object with a key that begins with $ is a $float, $bytes or $array; received {received(kind)}."
    )


@dataclass(frozen=True)
class Request:
    """Something asked of the other side. Without an id it is a notification: nobody answers."""

    method: str
    params: dict[str, Any]
    id: int | str | None = None


@dataclass(frozen=True)
class Response:
    """An answer: a result, or an error with code, message and data."""

    id: int | str | None
    result: Any = None
    error: Failure | None = None


@dataclass(frozen=True)
class Failure:
    """The error of an answer."""

    code: int
    message: str
    data: Any = None


def encode(message: Request | Response, *, message_bytes: int, depth: int) -> bytes:
    """The line of a message, line feed included.

    Raises:
        WireError: a value in it cannot be sent, or it is too large.
    """
    body: dict[str, Any] = {"jsonrpc": "2.0"}
    if isinstance(message, Request):
        body["method"] = message.method
        if message.params:
            body["params"] = to_wire(message.params, depth - 1)
        if message.id is not None:
            body["id"] = message.id
    elif message.error is None:
        body["result"] = to_wire(message.result, depth - 1)
        body["id"] = message.id
    else:
        error: dict[str, Any] = {"code": message.error.code, "message": message.error.message}
        if message.error.data is not None:
            error["data"] = to_wire(message.error.data, depth - 2)
        body["error"] = error
        body["id"] = message.id
    try:
        line = json.dumps(body, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode() + b"\n"
    except UnicodeEncodeError as error_:
        raise WireError("wire: a string has half of a surrogate pair, which is no character.") from error_
    if len(line) > message_bytes:
        raise WireError(
            f"wire: a message has at most {message_bytes} bytes; received {len(line)}.", limit="message_bytes"
        )
    return line


def decode(line: bytes, *, depth: int) -> Request | Response:
    """The message of a line.

    Raises:
        WireError: it is none.
    """
    try:
        body = _DECODER.decode(line.decode("utf-8").strip(" \t\r\n"))
    except UnicodeDecodeError as error:
        raise WireError(f"wire: a line is not UTF-8: {_shown(line)}", PARSE_ERROR) from error
    except RecursionError as error:
        raise WireError("wire: the message is nested too deeply.", PARSE_ERROR, limit="depth") from error
    except ValueError as error:
        raise WireError(f"wire: a line is not JSON ({error}): {_shown(line)}", PARSE_ERROR) from error
    if not isinstance(body, dict) or body.get("jsonrpc") != "2.0":
        raise WireError(f'wire: a line is not an object with "jsonrpc": "2.0": {_shown(line)}')
    ident = body.get("id")
    if isinstance(ident, bool) or not isinstance(ident, (int, str, type(None))):
        raise WireError(f"wire: an id is an integer or a string: {_shown(line)}")
    from_wire(ident, 1)
    rest = set(body) - {"jsonrpc", "id"}
    if rest <= {"method", "params"} and isinstance(body.get("method"), str):
        params = body.get("params", {})
        if not isinstance(params, dict):
            raise WireError(f"wire: params is an object: {_shown(line)}", INVALID_PARAMS)
        params = from_wire(params, depth - 1)
        if not isinstance(params, dict):
            raise WireError(f"wire: params is an object: {_shown(line)}", INVALID_PARAMS)
        return Request(_checked_text(body["method"]), params, ident)
    if rest == {"result"} and ident is not None:
        return Response(ident, result=from_wire(body["result"], depth - 1))
    if rest == {"error"}:
        return Response(ident, error=_failure(body["error"], depth - 2, line))
    raise WireError(f"wire: a line is neither a request nor an answer: {_shown(line)}")


def _failure(error: Any, depth: int, line: bytes) -> Failure:
    if not isinstance(error, dict):
        raise WireError(f"wire: an error is an object: {_shown(line)}")
    code, message = error.get("code"), error.get("message")
    if isinstance(code, bool) or not isinstance(code, int) or not isinstance(message, str):
        raise WireError(f"wire: an error has an integer code and a string message: {_shown(line)}")
    return Failure(code, _checked_text(message), from_wire(error.get("data"), depth))


def _shown(line: bytes) -> str:
    text = repr(bytes(line[:80]))[2:-1]
    return text + ("…" if len(line) > 80 else "")


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    filled = dict(pairs)
    if len(filled) != len(pairs):
        raise ValueError("a key appears twice in an object")
    return filled


_DECODER = json.JSONDecoder(parse_constant=_no_constant, object_pairs_hook=_unique)
