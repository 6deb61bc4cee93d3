"""AdamW over all parameters of GPT-2 124M."""

from __future__ import annotations

from typing import Any

from benchmarks.gpu.case import Sets
from benchmarks.gpu.side import Run

_LR, _BETA1, _BETA2, _EPS, _DECAY, _STEP = 1e-3, 0.9, 0.999, 1e-8, 0.01, 10


def gpt2_shapes() -> tuple[tuple[int, ...], ...]:
    """Shapes of the parameters of GPT-2 124M, its output layer being its embedding."""
    dim = 768
    block = (
        (dim,), (dim,), (3 * dim, dim), (3 * dim,), (dim, dim), (dim,),
        (dim,), (dim,), (4 * dim, dim), (4 * dim,), (dim, 4 * dim), (dim,),
    )  # fmt: skip
    return ((50257, dim), (1024, dim), *(block * 12), (dim,), (dim,))


def adamw_spiral(sp: Any, sets: Sets) -> list[Run]:
    """One launch over all parameters; a run gives the first two of them."""

    def prepared(params: Any, grads: Any, m: Any, v: Any) -> Run:
        def run() -> Any:
            sp.ops.adamw(
                params, grads, m, v, lr=_LR, beta1=_BETA1, beta2=_BETA2, eps=_EPS, weight_decay=_DECAY, step=_STEP
            )
            return params[:2]

        return run

    return [prepared(*s) for s in sets]


def adamw_torch(framework: Any, sets: Sets) -> list[Run]:
    """PyTorch's fused AdamW with the same state."""
    torch, _ = framework

    def prepared(params: Any, grads: Any, m: Any, v: Any) -> Run:
        leaves = [torch.nn.Parameter(p) for p in params]
        cuda = params[0].is_cuda
        optimizer = torch.optim.AdamW(
            leaves, lr=_LR, betas=(_BETA1, _BETA2), eps=_EPS, weight_decay=_DECAY, fused=True, capturable=cuda
        )
        for p, g, first, second in zip(leaves, grads, m, v, strict=True):
            p.grad = g
            step = torch.tensor(float(_STEP - 1), device=p.device)
            optimizer.state[p] = {"step": step, "exp_avg": first, "exp_avg_sq": second}

        def run() -> Any:
            optimizer.step()
            return [p.detach() for p in leaves[:2]]

        return run

    return [prepared(*s) for s in sets]
