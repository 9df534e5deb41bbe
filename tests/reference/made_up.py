"""Weights and pictures that anyone can make again: each tensor comes from a generator seeded by its own name."""

import hashlib

import numpy as np
import torch


def numbers(name, shape):
    "Standard normal numbers for a name; RandomState's stream is frozen by numpy for good."
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], 'little')
    return np.random.RandomState(seed).standard_normal(tuple(shape))


def weights(state_dict):
    "A state dict with the keys and shapes of the given one; its sizes keep signals of order one."
    out = {}
    for key, old in state_dict.items():
        z, last = numbers(key, old.shape), key.rsplit('.', 1)[1]
        if last == 'num_batches_tracked':
            z = np.zeros(old.shape)
        elif last == 'running_var':
            z = 0.8 + 0.4 * np.abs(np.tanh(z))
        elif old.ndim > 1:
            z = z * (1.5 / np.prod(old.shape[1:])) ** 0.5
        elif '.bn' in key or 'downsample.1' in key:
            z = 0.1 * z + (last == 'weight')
        else:
            z = 0.1 * z
        out[key] = torch.from_numpy(np.asarray(z)).to(old.dtype)
    return out


def windows(batch, size):
    "Bytes of made-up windows: (batch, 7, size, size, 3) uint8, smooth shapes with a little grain."
    t, y, x = np.meshgrid(np.arange(7), np.linspace(-1, 1, size), np.linspace(-1, 1, size), indexing='ij')
    out = np.empty((batch, 7, size, size, 3), np.uint8)
    for b in range(batch):
        for c in range(3):
            a = numbers(f'windows {b} {c}', (6,))
            z = np.sin(3 * a[0] * x + a[1] * t / 2) + np.cos(3 * a[2] * y + a[3]) + a[4] * x * y + 0.2 * numbers(f'grain {b} {c}', x.shape)
            out[b, ..., c] = np.clip(127 + 50 * z, 0, 255).astype(np.uint8)
    return torch.from_numpy(out)
