"""Module: parameters, buffers and sub-modules under attribute names."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Self

from spiral.autograd import no_grad
from spiral.device import Device
from spiral.dtype import ALL, DType, as_dtype
from spiral.errors import ArgumentError, received
from spiral.nn.arguments import flag, function
from spiral.nn.backward_hooks import watch_backward
from spiral.nn.parameter import Parameter
from spiral.nn.state import LoadReport, load_tensors
from spiral.tensor import Tensor

BackwardHook = Callable[["Module", tuple[Any, ...], tuple[Any, ...]], Any]
PreHook = Callable[["Module", tuple[Any, ...]], Any]
Hook = Callable[["Module", tuple[Any, ...], Any], Any]


_TORCH_SPELLINGS = {
    "cuda": "write .to('cuda')",
    "cpu": "write .to('cpu')",
    "float": "write .to(spiral.float32)",
    "double": "write .to(spiral.float64)",
    "half": "write .to(spiral.float16)",
    "bfloat16": "write .to(spiral.bfloat16)",
    "register_backward_hook": "write .register_full_backward_hook(hook)",
}


class RemovableHandle:
    """What registering a hook returns; `remove` takes the hook away, and so does leaving a ``with`` block."""

    def __init__(self, module: Module, hooks: dict[RemovableHandle, Any]) -> None:
        self._module = module
        self._hooks = hooks

    def remove(self) -> None:
        """Takes the hook away; a second call does nothing."""
        self._hooks.pop(self, None)
        self._module._note_hooks()

    def __enter__(self) -> RemovableHandle:
        return self

    def __exit__(self, *error: object) -> None:
        self.remove()


class Module:
    """Base of all layers and models: assign parameters and modules to attributes, and write `forward`.

    Attributes:
        training: Whether dropout and batch norm behave as in training; see `train` and `eval`.

    Example:
        >>> class Double(Module):
        ...     def forward(self, x):
        ...         return x * 2.0
        >>> import spiral as sp
        >>> Double()(sp.ones(2)).tolist()
        [2.0, 2.0]
    """

    training: bool
    # Members also live in __dict__, so reading one is a plain attribute access (30 ns), never __getattr__.
    _parameters: dict[str, Parameter | None]
    _buffers: dict[str, Tensor | None]
    _modules: dict[str, Module | None]

    def __init__(self) -> None:
        for name in ("_parameters", "_buffers", "_modules", "_pre_hooks", "_hooks", "_backward_hooks"):
            object.__setattr__(self, name, {})
        object.__setattr__(self, "_transient", set())
        object.__setattr__(self, "_hooked", False)
        object.__setattr__(self, "training", True)

    # ------------------------------------------------------------ members
    def __setattr__(self, name: str, value: Any) -> None:
        members = self.__dict__
        if "_parameters" not in members:
            if isinstance(value, (Parameter, Module)):
                raise ArgumentError(f"{type(self).__name__}.{name}: call super().__init__() before assigning members.")
        elif isinstance(value, Parameter):
            self._file(name, self._parameters, value)
        elif isinstance(value, Module):
            self._file(name, self._modules, value)
        elif name in self._buffers:
            if value is not None and not isinstance(value, Tensor):
                raise ArgumentError(
                    f"{type(self).__name__}.{name}: a buffer must be a Tensor or None; received {type(value).__name__}."
                )
            self._buffers[name] = value
        elif name in self._parameters or name in self._modules:
            if value is not None:
                kind = "Parameter" if name in self._parameters else "Module"
                raise ArgumentError(
                    f"{type(self).__name__}.{name}: expected a {kind} or None; received {type(value).__name__}. "
                    "Use del first, or copy_ to change a parameter's values."
                )
            (self._parameters if name in self._parameters else self._modules)[name] = None
        object.__setattr__(self, name, value)

    def _file(self, name: str, home: dict[str, Any], value: Any) -> None:
        for other in (self._parameters, self._buffers, self._modules):
            if other is not home:
                other.pop(name, None)
        home[name] = value

    def __delattr__(self, name: str) -> None:
        for home in (self._parameters, self._buffers, self._modules):
            home.pop(name, None)
        self._transient.discard(name)
        object.__delattr__(self, name)

    def register_parameter(self, name: str, parameter: Parameter | None) -> None:
        """Adds a parameter; None reserves the name for an optional one that is absent."""
        self._check_member("register_parameter", name, parameter, Parameter)
        self._file(name, self._parameters, parameter)
        object.__setattr__(self, name, parameter)

    def register_buffer(self, name: str, tensor: Tensor | None, persistent: bool = True) -> None:
        """Adds a tensor that moves with the module but is no parameter; only persistent ones are saved."""
        self._check_member("register_buffer", name, tensor, Tensor)
        self._file(name, self._buffers, tensor)
        (self._transient.discard if persistent else self._transient.add)(name)
        object.__setattr__(self, name, tensor)

    def add_module(self, name: str, module: Module | None) -> None:
        """Adds a sub-module under a name that need not be an identifier."""
        self._check_member("add_module", name, module, Module)
        self._file(name, self._modules, module)
        object.__setattr__(self, name, module)

    def _check_member(self, how: str, name: str, value: Any, kind: type) -> None:
        owner = f"{type(self).__name__}.{how}"
        if value is not None and not isinstance(value, kind):
            raise ArgumentError(
                f"{owner}: {name!r} must be a {kind.__name__} or None; received {type(value).__name__}."
            )
        if not isinstance(name, str):
            raise ArgumentError(f"{owner}: the name must be a string; received {received(name)}.")
        if not name or "." in name or hasattr(type(self), name):
            raise ArgumentError(f"{owner}: {name!r} cannot be a name: it is empty, has a dot, or is the class's own.")
        if value is self:
            raise ArgumentError(f"{owner}: a module cannot contain itself.")

    def __getattr__(self, name: str) -> Any:
        # called for what is not there only: members are plain attributes
        advice = _TORCH_SPELLINGS.get(name)
        raise AttributeError(f"{type(self).__name__} has no attribute {name!r}{'; ' + advice if advice else ''}.")

    # ------------------------------------------------------------ walking
    def children(self) -> Iterator[Module]:
        """The sub-modules directly below this one."""
        for _, module in self.named_children():
            yield module

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """The sub-modules directly below this one, with their names."""
        for name, module in self._modules.items():
            if module is not None:
                yield name, module

    def modules(self) -> Iterator[Module]:
        """This module and all below it, each once."""
        for _, module in self.named_modules():
            yield module

    def named_modules(self, prefix: str = "") -> Iterator[tuple[str, Module]]:
        """This module and all below it, each once, with dotted names."""
        seen: set[int] = set()
        for name, module in self._paths(prefix):
            if id(module) not in seen:
                seen.add(id(module))
                yield name, module

    def _paths(self, prefix: str) -> Iterator[tuple[str, Module]]:
        """As `named_modules`, but a module in two places comes twice: state dicts list both names."""
        yield prefix, self
        for name, module in self.named_children():
            yield from module._paths(f"{prefix}.{name}" if prefix else name)

    def _named(self, kind: str, prefix: str) -> Iterator[tuple[str, Any]]:
        seen: set[int] = set()
        for path, module in self.named_modules(prefix):
            for name, tensor in getattr(module, kind).items():
                if tensor is not None and id(tensor) not in seen:
                    seen.add(id(tensor))
                    yield (f"{path}.{name}" if path else name), tensor

    def named_parameters(self, prefix: str = "") -> Iterator[tuple[str, Parameter]]:
        """Every parameter once, with its dotted name; a shared one comes under its first name."""
        return self._named("_parameters", prefix)

    def parameters(self) -> Iterator[Parameter]:
        """Every parameter once."""
        for _, parameter in self.named_parameters():
            yield parameter

    def named_buffers(self, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
        """Every buffer once, with its dotted name."""
        return self._named("_buffers", prefix)

    def buffers(self) -> Iterator[Tensor]:
        """Every buffer once."""
        for _, buffer in self.named_buffers():
            yield buffer

    def num_parameters(self, trainable: bool = False) -> int:
        """How many numbers the parameters hold; shared ones count once.

        Args:
            trainable: Whether to count only those that collect gradients.
        """
        return sum(p.size for p in self.parameters() if p.requires_grad or not trainable)

    # ------------------------------------------------------------ state
    def state_dict(self, prefix: str = "") -> dict[str, Tensor]:
        """Parameters and persistent buffers by dotted name. The tensors share memory with the module."""
        if not isinstance(prefix, str):
            raise ArgumentError(
                f"{type(self).__name__}.state_dict: prefix must be a string; received {received(prefix)}."
            )
        found: dict[str, Tensor] = {}
        for path, module in self._paths(""):
            dot = f"{prefix}{path}." if path else prefix
            for name, parameter in module._parameters.items():
                if parameter is not None:
                    found[dot + name] = parameter.detach()
            for name, buffer in module._buffers.items():
                if buffer is not None and name not in module._transient:
                    found[dot + name] = buffer.detach()
        return found

    def load_state_dict(self, state: Mapping[str, Any], strict: bool = True) -> LoadReport:
        """Overwrites parameters and buffers with the values of the same names.

        Args:
            state: Tensors or NumPy arrays by dotted name.
            strict: Whether names that only one side has are errors.

        Returns:
            The names that only the module (``missing``) or only the state dict (``unexpected``) has.

        Raises:
            StateDictError: names or shapes do not fit; it lists them all, and nothing was loaded.
        """
        return load_tensors(type(self).__name__, self.state_dict(), state, strict)

    def to(self, target: Any) -> Self:
        """Moves to a device, or casts floating tensors to a dtype; parameters stay the same objects.

        Raises:
            ArgumentError: ``target`` is neither a device nor a floating dtype.
            DeviceError: there is no such device.
        """
        if not isinstance(target, (str, DType, Device)):
            raise ArgumentError(
                f"{type(self).__name__}.to: expected a floating dtype or a device; received {received(target)}."
            )
        name = isinstance(target, str) and target in {d.name for d in ALL}
        dtype = as_dtype(target) if name or isinstance(target, DType) else None
        if dtype is not None and dtype.kind != "float":
            raise ArgumentError(
                f"{type(self).__name__}.to: expected a floating dtype or a device; received {dtype.name}."
            )
        with no_grad():
            for tensor in [*self.parameters(), *self.buffers()]:
                if dtype is None or tensor.dtype.kind == "float":
                    moved, grad = tensor.detach().to(target), tensor.grad
                    tensor._a, tensor._key = moved._a, moved._key
                    if grad is not None:
                        tensor.grad = grad.to(target)
        return self

    def requires_grad_(self, value: bool = True) -> Self:
        """Starts or stops collecting gradients in every parameter."""
        value = flag(f"{type(self).__name__}.requires_grad_", "value", value)
        for parameter in self.parameters():
            parameter.requires_grad_(value)
        return self

    def zero_grad(self) -> None:
        """Forgets every parameter's gradient."""
        for parameter in self.parameters():
            parameter.grad = None

    def train(self, mode: bool = True) -> Self:
        """Sets training mode here and below."""
        mode = flag(f"{type(self).__name__}.train", "mode", mode)
        for module in self.modules():
            object.__setattr__(module, "training", mode)
        return self

    def eval(self) -> Self:
        """Sets evaluation mode here and below."""
        return self.train(False)

    def apply(self, fn: Callable[[Module], Any]) -> Self:
        """Calls ``fn`` with every module below, then with this one."""
        function(f"{type(self).__name__}.apply", "fn", fn)
        for module in self.children():
            module.apply(fn)
        fn(self)
        return self

    # ------------------------------------------------------------ calling
    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What calling the module computes; each class writes its own."""
        raise NotImplementedError(f"{type(self).__name__}: write forward(self, ...).")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if not self._hooked:
            return self.forward(*args, **kwargs)
        for pre_hook in list(self._pre_hooks.values()):
            changed = pre_hook(self, args)
            if changed is not None:
                args = changed if isinstance(changed, tuple) else (changed,)
        seen = watch_backward(self, args) if self._backward_hooks else None
        if seen is not None:
            args = seen.args
        output = self.forward(*args, **kwargs)
        if seen is not None:
            output = seen.watch_output(output)
        for hook in list(self._hooks.values()):
            changed = hook(self, args, output)
            if changed is not None:
                output = changed
        return output

    _hooked: bool
    _pre_hooks: dict[RemovableHandle, PreHook]
    _hooks: dict[RemovableHandle, Hook]
    _backward_hooks: dict[RemovableHandle, BackwardHook]
    _transient: set[str]

    def _note_hooks(self) -> None:
        object.__setattr__(self, "_hooked", bool(self._pre_hooks or self._hooks or self._backward_hooks))

    def register_forward_pre_hook(self, hook: PreHook) -> RemovableHandle:
        """Calls ``hook(module, args)`` before forward; what it returns, if not None, replaces the arguments."""
        function(f"{type(self).__name__}.register_forward_pre_hook", "hook", hook)
        handle = RemovableHandle(self, self._pre_hooks)
        self._pre_hooks[handle] = hook
        self._note_hooks()
        return handle

    def register_forward_hook(self, hook: Hook) -> RemovableHandle:
        """Calls ``hook(module, args, output)`` after forward; what it returns, if not None, replaces the output."""
        function(f"{type(self).__name__}.register_forward_hook", "hook", hook)
        handle = RemovableHandle(self, self._hooks)
        self._hooks[handle] = hook
        self._note_hooks()
        return handle

    def register_full_backward_hook(self, hook: BackwardHook) -> RemovableHandle:
        """Calls ``hook(module, grad_inputs, grad_outputs)`` when backward has passed through the module.

        Both are tuples: a gradient for each tensor among forward's positional arguments and among its
        outputs, None where there is none. What the hook returns, if not None, replaces ``grad_inputs``.
        """
        function(f"{type(self).__name__}.register_full_backward_hook", "hook", hook)
        handle = RemovableHandle(self, self._backward_hooks)
        self._backward_hooks[handle] = hook
        self._note_hooks()
        return handle

    # ------------------------------------------------------------ printing
    def extra_repr(self) -> str:
        """The class's settings, as they stand between the parentheses of its repr."""
        return ""

    def __repr__(self) -> str:
        tensors = [*self._parameters.items(), *self._buffers.items()]
        shapes = [f"{name}: {tuple(t.shape)}" for name, t in tensors if t is not None]
        head = ", ".join([part for part in (self.extra_repr(), *shapes) if part])
        lines = []
        for name, module in self.named_children():
            first, *rest = repr(module).splitlines()
            lines += [f"  ({name}): {first}", *(f"  {line}" for line in rest)]
        if not lines:
            return f"{type(self).__name__}({head})"
        return "\n".join([f"{type(self).__name__}({head}", *lines, ")"])
