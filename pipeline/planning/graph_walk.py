"""A backward pass without torch's engine, for fake tensors of a device that is not here.

The engine hands the nodes of a GPU to a thread of that GPU, and where there is no GPU there is none: backward fails on
fake CUDA tensors. The nodes themselves compute as well when they are called one by one, in the engine's order, each
freed with all it saved as soon as it is done: the same gradients, and the same memory at every moment.
"""

import heapq
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import BackwardCFunction

OnGradient = Callable[[Tensor], None]
Gradients = dict[int, Tensor]
"""Of a node: gradients by the number of the forward pass's output."""


def walk_backward(make_loss: Callable[[], Tensor], on_gradient: OnGradient = lambda gradient: None) -> None:
    """Add the gradients of the scalar that `make_loss` returns to the parameters' `grad`; tell each new one.

    make_loss: called here, so that nobody else holds the loss and with it the graph. Hooks on tensors are not called.
    """
    loss = make_loss()
    start: list[Any] = [loss.grad_fn, torch.ones_like(loss)]
    del loss

    # Inside of a backward pass of the engine, a tiny one on the CPU: gradient checkpointing asks for its number, to
    # recompute a part once and not once for every tensor saved in it.
    class Inside(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, zero: Tensor) -> Tensor:
            return zero.clone()

        @staticmethod
        def backward(ctx: Any, gradient: Tensor) -> Tensor:
            _walk(start, on_gradient)
            return gradient

    Inside.apply(torch.zeros((), requires_grad=True)).backward()


def _walk(start: list[Any], on_gradient: OnGradient) -> None:
    """start: the last node and its gradient; emptied, for whoever holds the last node holds all others."""
    gradient, root = start.pop(), start.pop()
    waiting, num_consumers = _graph(root)
    gradients: dict[int, Gradients] = {id(root): {0: gradient}}
    ready = [(_turn(root), id(root))]
    del root, gradient
    while ready:
        key = heapq.heappop(ready)[1]
        node = waiting.pop(key)  # from here on nothing but this name holds it
        of_outputs = gradients.pop(key, {})
        following = node.next_functions
        if node.name().endswith("AccumulateGrad"):
            _accumulate(node.variable, of_outputs.pop(0), on_gradient)
            continue
        call = node.apply if isinstance(node, BackwardCFunction) else node
        found = call(*(of_outputs.get(number) for number in range(len(node._input_metadata))))
        del node, call, of_outputs
        of_inputs = list(found) if isinstance(found, tuple) else [found]
        del found
        for position, (consumer, number) in enumerate(following):
            if consumer is None:
                continue
            if position < len(of_inputs) and of_inputs[position] is not None:
                added = _fitting(of_inputs[position], consumer._input_metadata[number])
                of_inputs[position] = None
                into = gradients.setdefault(id(consumer), {})
                into[number] = into[number] + added if number in into else added
                del added, into
            num_consumers[id(consumer)] -= 1
            if num_consumers[id(consumer)] == 0:
                heapq.heappush(ready, (_turn(consumer), id(consumer)))
        # Their names would keep them until the next node is done.
        consumer = following = None


def _graph(root: Any) -> tuple[dict[int, Any], dict[int, int]]:
    """All nodes by id, and from how many places each gets gradients."""
    nodes, num_consumers, found = {id(root): root}, {id(root): 0}, [root]
    while found:
        for node, _ in found.pop().next_functions:
            if node is None:
                continue
            num_consumers[id(node)] = num_consumers.get(id(node), 0) + 1
            if id(node) not in nodes:
                nodes[id(node)] = node
                found.append(node)
    return nodes, num_consumers


def _turn(node: Any) -> int:
    """The engine's order: parameters first, then what the forward pass did last."""
    return -int(node._sequence_nr())


def _fitting(gradient: Tensor, metadata: Any) -> Tensor:
    """What was broadcast is summed, what was cast is cast back, as the engine does between nodes."""
    shape = tuple(metadata.shape)
    if tuple(gradient.shape) != shape:
        gradient = gradient.sum_to_size(shape)
    return gradient if gradient.dtype == metadata.dtype else gradient.to(metadata.dtype)


@torch.no_grad()
def _accumulate(parameter: Tensor, gradient: Tensor, on_gradient: OnGradient) -> None:
    if parameter.grad is not None:
        parameter.grad += gradient
        return
    is_own = gradient.stride() == parameter.stride() and gradient.untyped_storage().nbytes() == gradient.nbytes
    if is_own:
        parameter.grad = gradient.detach()
    else:
        parameter.grad = torch.empty_like(parameter).copy_(gradient)
    on_gradient(parameter.grad)
