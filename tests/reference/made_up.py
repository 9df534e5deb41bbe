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


def windows(batch, size, frames=7):
    "Bytes of made-up windows: (batch, frames, size, size, 3) uint8, smooth shapes with a little grain."
    t, y, x = np.meshgrid(np.arange(frames), np.linspace(-1, 1, size), np.linspace(-1, 1, size), indexing='ij')
    out = np.empty((batch, frames, size, size, 3), np.uint8)
    for b in range(batch):
        for c in range(3):
            a = numbers(f'windows {b} {c}', (6,))
            z = np.sin(3 * a[0] * x + a[1] * t / 2) + np.cos(3 * a[2] * y + a[3]) + a[4] * x * y + 0.2 * numbers(f'grain {b} {c}', x.shape)
            out[b, ..., c] = np.clip(127 + 50 * z, 0, 255).astype(np.uint8)
    return torch.from_numpy(out)


def sound(batch, samples):
    "Made-up voices at 16 kHz: (batch, samples) float32, some harmonics of a wandering tone, with noise, root mean square 0.1."
    t, out = np.arange(samples) / 16_000, np.empty((batch, samples))
    for b in range(batch):
        a = numbers(f'sound {b}', (6,))
        phase = 2 * np.pi * (150 + 40 * a[0]) * t + 3 * np.sin(8 * a[1] * t)
        z = sum(np.sin(n * phase + a[2] * n) / n for n in range(1, 8)) * np.sin(12 * t + a[3]) + 0.1 * numbers(f'noise {b}', (samples,))
        out[b] = 0.1 * z / np.sqrt(np.mean(z**2))
    return torch.from_numpy(out).float()
