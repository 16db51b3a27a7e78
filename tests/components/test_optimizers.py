import io
import math

import pytest
import torch
from torch import nn

from snapvideo.components.optimizers import LAMB, WarmupCosine


def textbook_lamb(weights, gradients, lr, beta1, beta2, eps, decay):
    """You et al. 2020, algorithm 2, one tensor at a time, in float64, for a list of steps' gradients."""
    weights = [w.double() for w in weights]
    m, v = [torch.zeros_like(w) for w in weights], [torch.zeros_like(w) for w in weights]
    for t, step_gradients in enumerate(gradients, start=1):
        for i, gradient in enumerate(step_gradients):
            g = gradient.double()
            m[i] = beta1 * m[i] + (1 - beta1) * g
            v[i] = beta2 * v[i] + (1 - beta2) * g**2
            r = (m[i] / (1 - beta1**t)) / ((v[i] / (1 - beta2**t)) ** 0.5 + eps)
            if weights[i].dim() >= 2:
                r = r + decay * weights[i]
                norm, step_norm = float((weights[i] ** 2).sum()) ** 0.5, float((r**2).sum()) ** 0.5
                if norm > 0 and step_norm > 0:
                    r = r * (norm / step_norm)
            weights[i] = weights[i] - lr * r
    return weights


def test_lamb_agrees_with_the_textbook():
    generator = torch.Generator().manual_seed(0)
    shapes = [(7, 5), (3, 2, 4, 4), (6,), (), (4, 3)]
    params = [nn.Parameter(torch.randn(shape, generator=generator)) for shape in shapes]
    nn.init.zeros_(params[-1])
    gradients = [[torch.randn(shape, generator=generator) for shape in shapes] for _ in range(50)]
    settings = {"lr": 0.02, "eps": 1e-6}
    expected = textbook_lamb(
        [p.detach().clone() for p in params], gradients, beta1=0.9, beta2=0.99, decay=0.1, **settings
    )
    optimizer = LAMB(params, betas=(0.9, 0.99), weight_decay=0.1, **settings)
    for step_gradients in gradients:
        for p, gradient in zip(params, step_gradients, strict=True):
            p.grad = gradient.clone()
        optimizer.step()
    for p, reference in zip(params, expected, strict=True):
        torch.testing.assert_close(p.double(), reference, rtol=1e-6, atol=1e-6)


def test_lamb_moves_a_matrix_by_lr_times_its_norm_and_a_gain_by_lr():
    matrix, gain = nn.Parameter(torch.full((4, 4), 3.0)), nn.Parameter(torch.zeros(4))
    optimizer = LAMB([matrix, gain], lr=0.1)
    (matrix.sum() + gain.sum()).backward()
    before = matrix.detach().clone()
    optimizer.step()
    assert (matrix - before).norm().item() == pytest.approx(0.1 * before.norm().item())
    torch.testing.assert_close(gain.detach(), torch.full((4,), -0.1), rtol=1e-5, atol=0)


def test_lamb_resumes_bit_equal_from_its_state():
    def start():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.Linear(8, 1))
        return model, LAMB(model.parameters(), lr=0.01)

    def run(model, optimizer, steps):
        for step in steps:
            x = torch.randn(16, 4, generator=torch.Generator().manual_seed(step))
            optimizer.zero_grad()
            (model(x) - x.sum(1, keepdim=True)).square().mean().backward()
            optimizer.step()

    model, optimizer = start()
    run(model, optimizer, range(10))
    half, half_optimizer = start()
    run(half, half_optimizer, range(5))
    file = io.BytesIO()
    torch.save({"model": half.state_dict(), "optimizer": half_optimizer.state_dict()}, file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    resumed, resumed_optimizer = start()
    resumed.load_state_dict(saved["model"])
    resumed_optimizer.load_state_dict(saved["optimizer"])
    run(resumed, resumed_optimizer, range(5, 10))
    for a, b in zip(model.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(a, b)


def test_lamb_corrects_the_bias_of_a_parameter_that_joins_late():
    def run(late):
        a, b = nn.Parameter(torch.ones(3, 3)), nn.Parameter(torch.ones(3, 3))
        optimizer = LAMB([a, b], lr=0.1)
        for step in range(late + 1):
            a.grad, b.grad = torch.ones(3, 3), torch.ones(3, 3) if step == late else None
            optimizer.step()
        return b.detach()

    assert torch.equal(run(0), run(7))


def test_lamb_calls_the_closure_with_gradients_on():
    weight = nn.Parameter(torch.ones(2, 2))
    optimizer = LAMB([weight])

    def closure():
        loss = weight.square().sum()
        loss.backward()
        return loss

    assert optimizer.step(closure).item() == 4.0
    assert not torch.equal(weight, torch.ones(2, 2))


def test_lamb_follows_param_groups():
    fixed, moved = nn.Parameter(torch.ones(2, 2)), nn.Parameter(torch.ones(2, 2))
    optimizer = LAMB([{"params": [fixed], "lr": 0.0}, {"params": [moved]}], lr=0.1)
    fixed.grad = moved.grad = torch.ones(2, 2)
    optimizer.step()
    assert torch.equal(fixed, torch.ones(2, 2)) and not torch.equal(moved, torch.ones(2, 2))


def test_lamb_refuses_sparse_gradients():
    table = nn.Embedding(5, 3, sparse=True)
    table(torch.tensor([1])).sum().backward()
    with pytest.raises(ValueError, match="sparse=False"):
        LAMB(table.parameters()).step()


@pytest.mark.parametrize(
    "setting", [{"lr": -1.0}, {"betas": (1.0, 0.9)}, {"betas": (0.9, -0.1)}, {"eps": -1e-8}, {"weight_decay": math.nan}]
)
def test_lamb_refuses_settings_out_of_range(setting):
    with pytest.raises(ValueError, match=next(iter(setting))):
        LAMB([nn.Parameter(torch.ones(1))], **setting)


def rates(num_steps, **settings):
    optimizer = torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=2.0)
    scheduler = WarmupCosine(optimizer, **settings)
    values = []
    for _ in range(num_steps):
        values.append(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()
    return values


def test_schedule_closed_form():
    values = rates(130, warmup_steps=20, max_steps=100, final=0.1)
    for step in range(20):
        assert values[step] == pytest.approx(2.0 * (step + 1) / 21)
    for step in range(20, 100):
        phase = (step - 20) / 80 * math.pi
        assert values[step] == pytest.approx(0.2 + (2.0 - 0.2) * math.cos(phase / 2) ** 2)
    assert values[20] == 2.0 and values[60] == pytest.approx(1.1)
    assert values[100:] == pytest.approx([0.2] * 30)


def test_schedule_without_warmup_ends_at_zero():
    values = rates(11, warmup_steps=0, max_steps=10)
    assert values[0] == 2.0 and values[10] == 0.0
    assert values == sorted(values, reverse=True)


def test_schedule_keeps_its_place_and_takes_new_settings():
    def start(lr, max_steps):
        optimizer = torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=lr)
        return optimizer, WarmupCosine(optimizer, warmup_steps=2, max_steps=max_steps)

    optimizer, scheduler = start(1.0, 10)
    for _ in range(6):
        optimizer.step()
        scheduler.step()
    file = io.BytesIO()
    torch.save((optimizer.state_dict(), scheduler.state_dict()), file)
    file.seek(0)
    optimizer_state, scheduler_state = torch.load(file, weights_only=True)
    resumed_optimizer, resumed = start(3.0, 20)
    resumed_optimizer.load_state_dict(optimizer_state)
    resumed.load_state_dict(scheduler_state)
    resumed_optimizer.step()
    resumed.step()
    assert resumed.last_epoch == 7
    assert resumed.get_last_lr() == [pytest.approx(3.0 * math.cos(5 / 18 * math.pi / 2) ** 2)]


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"warmup_steps": 10, "max_steps": 10}, "warmup_steps"),
        ({"warmup_steps": -1, "max_steps": 10}, "warmup_steps"),
        ({"warmup_steps": 1, "max_steps": 10, "final": 1.5}, "final"),
    ],
)
def test_schedule_refuses_settings_out_of_range(settings, name):
    with pytest.raises(ValueError, match=name):
        rates(1, **settings)
