#!/usr/bin/env bash
# torch 2.13.0: a function made an op with `torch.library.custom_op`, its gradient registered by `register_autograd`, has
# right derivatives in reverse mode. In forward mode, `torch.func.jvp`, nothing is registered and nothing is raised: the
# tangent is zero. One expects an error, as an autograd.Function without `jvp` gives one. Filters of dense CRFs are such
# ops: a Jacobian by jacfwd, a Hessian-vector product by jvp, a sensitivity of marginals to a bandwidth come out as zero.
# `torch.func.grad` of the same op does raise, about a setup_context that it should have.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 numpy
cat >"$folder/case.py" <<'CASE'
import torch


@torch.library.custom_op("case::square", mutates_args=())
def square(x: torch.Tensor) -> torch.Tensor:
    return x * x


square.register_fake(torch.empty_like)
square.register_autograd(
    lambda ctx, gradient: 2 * gradient * ctx.saved_tensors[0],
    setup_context=lambda ctx, inputs, output: ctx.save_for_backward(inputs[0]),
)


class Square(torch.autograd.Function):
    @staticmethod
    def forward(x):
        return x * x

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(inputs[0])

    @staticmethod
    def backward(ctx, gradient):
        return 2 * gradient * ctx.saved_tensors[0]


def outcome(function):
    try:
        return function()
    except Exception as error:
        return f"{type(error).__name__}: {str(error).splitlines()[0]}"


x, ones = torch.tensor([1.0, 2.0, 3.0]), torch.ones(3)
leaf = x.clone().requires_grad_()
square(leaf).sum().backward()
reverse = leaf.grad.tolist()
forward = torch.func.jvp(square, (x,), (ones,))[1].tolist()
function = outcome(lambda: torch.func.jvp(Square.apply, (x,), (ones,)))
transform = outcome(lambda: torch.func.grad(lambda y: square(y).sum())(x))
print("custom op, backward:", reverse)
print("custom op, jvp:", forward)
print("autograd.Function without jvp, jvp:", function)
print("custom op, torch.func.grad:", transform)
assert reverse == [2.0, 4.0, 6.0]
assert forward == [0.0, 0.0, 0.0]
assert isinstance(function, str)
assert isinstance(transform, str)
assert "setup_context" in transform
CASE
"$folder/venv/bin/python" "$folder/case.py"
