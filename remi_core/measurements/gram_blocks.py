"""Inner products of gradients from their factors: each way costs what its shapes make it cost, the cheaper one runs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from remi_core.measurements.factor_file import FactorFile, Factors

# Elements of one block of float32: 64 MB, and at most this share of all gradients, so that few dialogues of a small
# model are no reason to hold them all. Beside it only the factors and the n × n matrix are held.
BLOCK_ELEMENTS = 1 << 24
# A graphics card has room for more, and each block costs it a copy of all factors from main memory.
CARD_ELEMENTS = 1 << 28
_SLICES = 4
# Rows of the matrix that are made at a time, against those before them alone: it is symmetric.
_ROWS = 128


def gram_of_factors(
    factors: Sequence[Factors], *, device: str = "cpu", block_elements: int | None = None
) -> Float64[np.ndarray, "dialogue dialogue"]:
    """⟨G_i, G_j⟩ of G_i = Σ_t δ_t a_tᵀ, from the factors (a, δ) of each dialogue.

    Products are taken in float32 and summed over blocks in float64. Whichever way takes fewer operations runs:
    by slices of the gradients, or by pairs of tokens, ⟨G_i, G_j⟩ = Σ_ts (a_t·a_s)(δ_t·δ_s).
    """
    by_pairs, by_slices = operations(factors)
    on_card = torch.device(device).type != "cpu"
    block_elements = block_elements or (CARD_ELEMENTS if on_card else BLOCK_ELEMENTS)
    width = sum(part.shape[-1] for part in factors[0])
    if on_card and _n_tokens(factors) * width <= block_elements:
        factors = [(_on(inputs, device), _on(gradients, device)) for inputs, gradients in factors]
    way = gram_by_token_pairs if by_pairs < by_slices else gram_by_slices
    return way(factors, device=device, block_elements=block_elements)


def operations(factors: Sequence[Factors]) -> tuple[int, int]:
    """Floating-point operations of the Gram matrix by pairs of tokens, and by slices of the gradients."""
    n, tokens = len(factors), _n_tokens(factors)
    d_in, d_out = factors[0][0].shape[-1], factors[0][1].shape[-1]
    by_pairs = 2 * tokens * tokens * (d_in + d_out)
    by_slices = 2 * d_in * d_out * (tokens + n * n)
    return by_pairs, by_slices


def _n_tokens(factors: Sequence[Factors]) -> int:
    # A file knows without being read.
    return factors.n_tokens if isinstance(factors, FactorFile) else sum(len(inputs) for inputs, _ in factors)


def gram_by_slices(
    factors: Sequence[Factors], *, device: str = "cpu", block_elements: int = BLOCK_ELEMENTS
) -> Float64[np.ndarray, "dialogue dialogue"]:
    """The Gram matrix, from all dialogues' gradients at a few rows of the weight at a time: each is formed once."""
    n = len(factors)
    d_in, d_out = factors[0][0].shape[-1], factors[0][1].shape[-1]
    step = max(1, min(block_elements // (n * d_in), -(-d_out // _SLICES)))
    gram = torch.zeros((n, n), dtype=torch.float64, device=device)
    part = torch.empty((n, min(step, d_out), d_in), device=device)
    for start in range(0, d_out, step):
        width = min(step, d_out - start)
        own = part[:, :width]
        for at, (inputs, gradients) in enumerate(factors):
            torch.mm(_on(gradients[:, start : start + width], device).T, _on(inputs, device), out=own[at])
        flat = part.flatten(1)[
            :, : width * d_in
        ]  # a view: a copy of the last, narrower slice would double it
        for first in range(0, n, _ROWS):
            last = min(first + _ROWS, n)
            gram[first:last, :last] += flat[first:last] @ flat[:last].T
    for first in range(0, n, _ROWS):
        last = min(first + _ROWS, n)
        gram[:first, first:last] = gram[first:last, :first].T
        corner = gram[first:last, first:last]
        corner.copy_(corner.tril() + corner.tril(-1).T)
    return gram.cpu().numpy()


def gram_by_token_pairs(
    factors: Sequence[Factors], *, device: str = "cpu", block_elements: int = BLOCK_ELEMENTS
) -> Float64[np.ndarray, "dialogue dialogue"]:
    """The Gram matrix, from the inner products of tokens: no gradient is formed."""
    gram = torch.zeros((len(factors), len(factors)), dtype=torch.float64, device=device)
    groups = list(_groups([len(inputs) for inputs, _ in factors], int(block_elements**0.5)))
    for at, left in enumerate(groups):
        own = _joined(factors, left, device)
        for right in groups[: at + 1]:
            other = own if right == left else _joined(factors, right, device)
            product = (own[0] @ other[0].T) * (own[1] @ other[1].T)
            rows = torch.zeros((len(left), product.shape[1]), dtype=torch.float64, device=device)
            rows.index_add_(0, own[2], product.double())
            block = torch.zeros((len(left), len(right)), dtype=torch.float64, device=device)
            block.index_add_(1, other[2], rows)
            gram[left.start : left.stop, right.start : right.stop] = block
            gram[right.start : right.stop, left.start : left.stop] = block.T
    return gram.cpu().numpy()


def _on(values: Tensor, device: str) -> Tensor:
    return values.to(device, torch.float32)


def _groups(counts: Sequence[int], most: int) -> Iterator[range]:
    """Runs of dialogues with at most so many tokens together; a longer dialogue is one of its own."""
    start, total = 0, 0
    for at, count in enumerate(counts):
        if at > start and total + count > most:
            yield range(start, at)
            start, total = at, 0
        total += count
    yield range(start, len(counts))


def _joined(factors: Sequence[Factors], group: range, device: str) -> tuple[Tensor, Tensor, Tensor]:
    """Inputs and gradients of all tokens of a group, and which dialogue of the group each belongs to."""
    own = [factors[index] for index in group]
    counts = torch.tensor([len(inputs) for inputs, _ in own])
    inputs, gradients = (torch.cat([pair[side] for pair in own]) for side in (0, 1))
    owner = torch.repeat_interleave(torch.arange(len(own)), counts)
    return _on(inputs, device), _on(gradients, device), owner.to(device)
