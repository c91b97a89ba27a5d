"""What is left out when the stack is imported, and that nobody notices."""

from __future__ import annotations

import ast
import subprocess
import sys

PROGRAM = """
import sys, {first}
from date import stack

stack.load()
stack.load()
left_out = stack.PLACEHOLDERS | stack.SCIPY
print(sorted(name for name in left_out if name in sys.modules))
import torch
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
import numpy as np
import date.models, date.training.components, date.training.loop, date.inference.evaluate
from date.models.matching import linear_sum_assignment
weight = torch.nn.Parameter(torch.ones(3))
optimiser = torch.optim.AdamW([weight], lr=0.1)
weight.sum().backward()
optimiser.step()
optimiser.zero_grad()
print([numbers.tolist() for numbers in linear_sum_assignment(np.array([[1, 2, 0], [0, 3, 1.5]]), maximize=True)])
print(sorted(name for name in left_out if name in sys.modules), "sympy" in sys.modules)
""")
    assert lines == ["[]", "[[0, 1], [0, 1]]", "[] False"]


def test_what_is_left_out_can_be_had_afterwards() -> None:
    lines = run("""
import torchvision
print(type(torchvision.models.resnet18()).__name__, torchvision.datasets.CocoDetection.__name__)
try:
    torchvision.nothing
except AttributeError as error:
    print(error)
import matplotlib.pyplot, torch._dynamo, torch.distributed.fsdp, torch.distributed.optim
boxes = torch.tensor([[0, 0.0, 0.0, 4.0, 4.0]])
print(torchvision.ops.roi_align(torch.arange(64.0).reshape(1, 1, 8, 8), boxes, 2).flatten().tolist())
print(torch.compile(lambda x: x + 1, backend="aot_eager")(torch.ones(1)).item())
import date.models.matching as matching
made, solver = matching.csr_array(([1.0], ([0], [1])), shape=(1, 2)), matching.linear_sum_assignment
print(matching.min_weight_full_bipartite_matching(made, maximize=True)[1].tolist())
import scipy.optimize, scipy.sparse.csgraph, scipy.linalg
print(isinstance(made, scipy.sparse.csr_array), scipy.optimize.linear_sum_assignment is solver)
print(scipy.optimize.minimize_scalar(lambda x: (x - 2) ** 2).success)
print([name for name in left_out if not hasattr(sys.modules.get(name), "__file__")])
""")
    assert lines == [
        "[]",
        "ResNet CocoDetection",
        "module 'torchvision' has no attribute 'nothing'",
        "[9.0, 11.0, 25.0, 27.0]",
        "2.0",
        "[1]",
        "True True",
        "True",
        "[]",
    ]


def test_a_traced_network_finds_what_it_needs() -> None:
    lines = run("""
network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.GroupNorm(2, 4))
program = torch.export.export(network, (torch.ones(2, 3, 8, 9),))
print(tuple(program.module()(torch.ones(2, 3, 8, 9)).shape), tuple(torch.ones(2, device="meta").sum().shape))
print(torch.rand((), generator=torch.Generator().manual_seed(0)) == torch.rand((), generator=torch.Generator().manual_seed(0)))
""")
    assert lines == ["[]", "(2, 4, 6, 7) ()", "tensor(True)"]


def test_what_is_there_already_stays() -> None:
    lines = run("""
print(matplotlib.pyplot is sys.modules["matplotlib.pyplot"], hasattr(matplotlib.pyplot, "figure"))
print(hasattr(scipy.sparse, "csc_array"))
""", first="matplotlib.pyplot, scipy.sparse, torch")  # fmt: skip
    there = ast.literal_eval(lines[0])
    assert {"matplotlib.pyplot", "scipy.sparse"} <= set(there)
    assert "torchvision.models" not in there
    assert lines[1:] == ["True True", "True"]


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
""", first="torch\nbefore = torch.optim.AdamW.step")  # fmt: skip
    assert lines[1:] == ["False True [True, True, True]"]
