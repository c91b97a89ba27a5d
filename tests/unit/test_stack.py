"""What is left out when the stack is imported, and that nobody notices."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import sys, torch, {first}
from date import stack

before = torch.optim.AdamW.step
stack.load()
stack.load()
print(sorted(name for name in stack.PLACEHOLDERS if name in sys.modules))
{then}
"""


def run(then: str, first: str = "json") -> list[str]:
    """Return the lines that a program prints in a process of its own, the first of which is what is imported."""
    program = PROGRAM.format(first=first, then=then)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_a_training_step_needs_none_of_what_is_left_out() -> None:
    lines = run("""
import date.models, date.training.components, date.training.loop, date.inference.evaluate
weight = torch.nn.Parameter(torch.ones(3))
optimiser = torch.optim.AdamW([weight], lr=0.1)
weight.sum().backward()
optimiser.step()
optimiser.zero_grad()
print(sorted(name for name in stack.PLACEHOLDERS if name in sys.modules), "sympy" in sys.modules)
""")
    assert lines == ["[]", "[] False"]


def test_what_is_left_out_can_be_had_afterwards() -> None:
    lines = run("""
import matplotlib.pyplot, torch._dynamo, torch.distributed.fsdp, torch.distributed.optim, torchvision
print(all(hasattr(sys.modules[name], "__file__") for name in stack.PLACEHOLDERS))
boxes = torch.tensor([[0, 0.0, 0.0, 4.0, 4.0]])
print(torchvision.ops.roi_align(torch.arange(64.0).reshape(1, 1, 8, 8), boxes, 2).flatten().tolist())
print(torch.compile(lambda x: x + 1, backend="eager")(torch.ones(1)).item())
""")
    assert lines == ["[]", "True", "[9.0, 11.0, 25.0, 27.0]", "2.0"]


def test_what_is_there_already_stays() -> None:
    lines = run("""
print(matplotlib.pyplot is sys.modules["matplotlib.pyplot"], hasattr(matplotlib.pyplot, "figure"))
""", first="matplotlib.pyplot")  # fmt: skip
    assert lines == ["['matplotlib', 'matplotlib.patches', 'matplotlib.pyplot']", "True True"]


def test_optimisers_step_as_before() -> None:
    lines = run("""
results = []
for step in (before, torch.optim.AdamW.step):
    torch.optim.Adam.step = step
    torch.manual_seed(0)
    weight = torch.nn.Parameter(torch.randn(50))
    optimiser = torch.optim.AdamW([weight], lr=0.1)
    calls = []
    optimiser.register_step_post_hook(lambda *_: calls.append(torch.is_grad_enabled()))
    for _ in range(3):
        optimiser.zero_grad()
        (weight**3).sum().backward()
        optimiser.step()
    results.append((weight.tolist(), calls, weight.requires_grad))
print(before is torch.optim.AdamW.step, results[0] == results[1], results[1][1])
""")
    assert lines == ["[]", "False True [True, True, True]"]
