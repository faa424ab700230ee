"""Padded batches [batch, seqlen, ...] to packed tokens [total, ...] and back: FlashAttention's module of this name."""
from __future__ import annotations

import torch
from torch.nn.functional import pad


def index_first_axis(input, indices):
    """input[indices], for indices [total] into the first dimension."""
    return input.index_select(0, indices)


def index_put_first_axis(values, indices, first_axis_dim):
    """Zeros [first_axis_dim, ...] with values [total, ...] at indices, which are unique."""
    return values.new_zeros((first_axis_dim, *values.shape[1:])).index_copy(0, indices, values)


def index_first_axis_residual(input, indices):
    """(input[indices], input)."""
    return input.index_select(0, indices), input


def _pack(hidden_states, taken, lengths):
    """Tokens of hidden_states where `taken` [batch, seqlen], of sequences of these lengths."""
    indices = taken.flatten().nonzero().flatten()
    cu_seqlens = pad(lengths.cumsum(0, dtype=torch.int32), (1, 0))
    longest = int(lengths.max()) if lengths.numel() else 0
    return index_first_axis(hidden_states.flatten(0, 1), indices), indices, cu_seqlens, longest


def unpad_input(hidden_states, attention_mask, unused_mask=None):
    """Packs the tokens that attention_mask [batch, seqlen] marks; those of unused_mask are packed too, but not counted.

    Returns (tokens [total, ...], indices [total] into batch * seqlen, cu_seqlens [batch + 1], the longest length, the
    number of counted tokens [batch]). cu_seqlens, of int32, goes with all packed tokens.
    """
    marked = attention_mask if unused_mask is None else attention_mask + unused_mask
    used = attention_mask.sum(-1, dtype=torch.int32)
    return (*_pack(hidden_states, marked, marked.sum(-1, dtype=torch.int32)), used)


def unpad_input_for_concatenated_sequences(hidden_states, attention_mask_in_length):
    """The same for rows that hold several sequences one after the other: attention_mask_in_length [batch, seqlen] begins
    with their lengths, for example [2, 3, 0, 0, 0, 0].

    Returns (tokens, indices, cu_seqlens of all sequences, the longest length).
    """
    total = attention_mask_in_length.sum(-1)
    places = torch.arange(attention_mask_in_length.shape[1], device=total.device)
    lengths = attention_mask_in_length.flatten()
    return _pack(hidden_states, places < total[:, None], lengths[lengths != 0].to(torch.int32))


def pad_input(hidden_states, indices, batch, seqlen):
    """Packed tokens [total, ...] at their indices in [batch, seqlen, ...]; zeros elsewhere."""
    return index_put_first_axis(hidden_states, indices, batch * seqlen).unflatten(0, (batch, seqlen))
