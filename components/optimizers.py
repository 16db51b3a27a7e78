"""LAMB and the learning-rate schedule of the paper."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, overload

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.optimizer import ParamsT


class LAMB(Optimizer):
    """Adam whose step is scaled, tensor by tensor, to the norm of the weights (You et al. 2020, algorithm 2).

    The defaults are those of the paper (Table 9). Gradients are not clipped here: that is the trainer's
    `gradient_clip_val`.

    Args:
        params: Parameters or parameter groups.
        lr: Learning rate: how far a matrix moves per step, relative to its own norm.
        betas: Decay of the running means of the gradient and of its square, each in [0, 1).
        eps: Added to the root of the second moment.
        weight_decay: Weight decay, added to the step before it is scaled.

    Raises:
        ValueError: A setting is out of range.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float = 5e-3,
        betas: tuple[float, float] = (0.9, 0.99),
        eps: float = 1e-6,
        weight_decay: float = 0.01,
    ) -> None:
        for name, value in (("lr", lr), ("eps", eps), ("weight_decay", weight_decay)):
            if not value >= 0:
                raise ValueError(f"{name} is {value}: it must be at least 0")
        if len(betas) != 2 or not all(0 <= beta < 1 for beta in betas):
            raise ValueError(f"betas is {betas}: it must be two numbers, each at least 0 and below 1")
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """One step.

        Args:
            closure: Evaluates the model again and returns the loss.

        Returns:
            The closure's loss, or None without a closure.

        Raises:
            ValueError: A gradient is sparse.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            if params:
                updates = self._adam(params, group)
                _trust([(p, u) for p, u in zip(params, updates, strict=True) if p.ndim > 1], group["weight_decay"])
                torch._foreach_add_(params, updates, alpha=-group["lr"])
        return loss

    def _adam(self, params: list[Tensor], group: dict[str, Any]) -> list[Tensor]:
        """The step that Adam would take, for a learning rate of 1."""
        grads: list[Tensor] = [p.grad for p in params if p.grad is not None]
        if any(grad.is_sparse for grad in grads):
            raise ValueError("LAMB got a sparse gradient: build nn.Embedding with sparse=False")
        for p in params:
            if not self.state[p]:
                self.state[p] = {"step": 0, "exp_avg": torch.zeros_like(p), "exp_avg_sq": torch.zeros_like(p)}
            self.state[p]["step"] += 1
        states = [self.state[p] for p in params]
        mean, square = [s["exp_avg"] for s in states], [s["exp_avg_sq"] for s in states]
        beta1, beta2 = group["betas"]
        torch._foreach_lerp_(mean, grads, 1 - beta1)
        torch._foreach_mul_(square, beta2)
        torch._foreach_addcmul_(square, grads, grads, 1 - beta2)

        scale = torch._foreach_div(square, [1 - beta2 ** s["step"] for s in states])
        torch._foreach_sqrt_(scale)
        torch._foreach_add_(scale, group["eps"])
        updates = torch._foreach_div(mean, [1 - beta1 ** s["step"] for s in states])
        torch._foreach_div_(updates, scale)
        return list(updates)


def _trust(matrices: list[tuple[Tensor, Tensor]], weight_decay: float) -> None:
    """Decay the updates of (weight, update) pairs, then scale each, in place, to the norm of its weight.

    Gains and biases are not given to it. Some start at zero to keep a path shut at first (the gain of FIT's
    self-conditioning). A zero norm gives no scale, so they would take one step of size lr; from then on the trust ratio
    ||w|| / ||update|| lets a tensor grow by a factor (1 + lr) at most, and during a long warm-up the path would stay
    shut for thousands of steps. For the same reason, never start a whole matrix at zero under LAMB.
    """
    if not matrices:
        return
    weights, updates = [w for w, _ in matrices], [u for _, u in matrices]
    torch._foreach_add_(updates, weights, alpha=weight_decay)
    weight_norm, update_norm = (torch.stack(list(torch._foreach_norm(tensors))) for tensors in (weights, updates))
    ratio = torch.where((weight_norm > 0) & (update_norm > 0), weight_norm / update_norm, 1.0)
    torch._foreach_mul_(updates, list(ratio.unbind()))


class WarmupCosine(LambdaLR):
    """Linear warm-up, then a cosine from the full learning rate down to its end (paper, Table 9).

    Step it after every optimizer step. Its state is the position alone, so that after a resume the learning rate and
    the lengths are those that the recipe says now.

    Args:
        optimizer: The optimizer, with the full learning rate.
        warmup_steps: Steps until the full learning rate, which grows from the first step on.
        max_steps: Step at which the cosine ends; the rate stays there after it.
        final: Rate at the end, as a fraction of the full one, in [0, 1].

    Raises:
        ValueError: A setting is out of range.
    """

    def __init__(self, optimizer: Optimizer, warmup_steps: int, max_steps: int, final: float = 0.0) -> None:
        if not 0 <= warmup_steps < max_steps:
            raise ValueError(f"warmup_steps is {warmup_steps}: it must be at least 0 and below max_steps, {max_steps}")
        if not 0 <= final <= 1:
            raise ValueError(f"final is {final}: it must be in [0, 1]")

        def factor(step: int) -> float:
            if step < warmup_steps:
                return (step + 1) / (warmup_steps + 1)  # not step / warmup_steps: the first step would do nothing
            progress = min(1.0, (step - warmup_steps) / (max_steps - warmup_steps))
            return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * progress))

        super().__init__(optimizer, factor)

    def state_dict(self) -> dict[str, Any]:
        """The position, without the learning rates (`base_lrs`), which are settings."""
        return {name: value for name, value in super().state_dict().items() if name != "base_lrs"}
