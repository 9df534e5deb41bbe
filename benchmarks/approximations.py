"""What each approximation costs, against the official frames in float32: videos, JPEG, bf16, TF32, compiled, every face computed once.

Usage: python benchmarks/approximations.py DATA_DIR CHECKPOINT [--split val] [--size 224]
DATA_DIR in the official layout; the reference is DATA_DIR/video_imgs (frames extracted the official way) if it is there, else the videos.
TF32 is what a GPU since 2020 multiplies; a CPU cannot, so operands (of convolutions, linear layers and the LSTM's inputs) are rounded
to its ten bits and multiplied in float32. Prints a Markdown table: mAP, its difference from the reference's, and the largest
difference of a score.
"""
import argparse
import tempfile
from contextlib import nullcontext
from pathlib import Path

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

from lam_nb.evaluation import lam_metrics
from lam_nb.preparation import PrepareSettings, prepare_faces, split_faces
from lam_nb.inference import predict
from lam_nb.scoring import load_model
from lam_nb.models import normalise
from lam_nb.windows import FaceWindows


class Tf32(TorchDispatchMode):
    "Rounds what is multiplied to ten bits of mantissa, to the nearest, halves to even."
    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        multiplies = any(word in str(function) for word in ('conv', 'addmm', 'mm.', 'rnn'))
        return function(*(tree_map(self.cut, args) if multiplies else args), **(kwargs or {}))

    @staticmethod
    def cut(x):
        if not torch.is_tensor(x) or x.dtype != torch.float32: return x
        bits = x.contiguous().view(torch.int32)
        return ((bits + 0xFFF + (bits >> 13 & 1)) & ~0x1FFF).view(torch.float32)


@torch.inference_mode()
def window_by_window(model, faces_dir, clips, size, mode=nullcontext()):
    "Scores without sharing features between windows, as the official code computes them."
    windows, scores = FaceWindows(faces_dir, clips, size=size), []
    for i in range(0, len(windows), 16):
        images = torch.from_numpy(windows.__getitems__(list(range(i, min(i + 16, len(windows)))))['images'])
        with mode: logits = model(normalise(images.flatten(0, 1)).contiguous().unflatten(0, images.shape[:2]))
        scores += logits.softmax(-1)[:, 1].tolist()
    return predict(model, faces_dir, clips, size=size).assign(score=scores)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('data_dir', type=Path)
    parser.add_argument('checkpoint', type=Path)
    parser.add_argument('--split', default='val')
    parser.add_argument('--size', type=int, default=224)
    args = parser.parse_args()
    model, _, _ = load_model(args.checkpoint)
    has_frames = (args.data_dir / 'video_imgs').is_dir()
    stores = [('official frames, PNG', dict(source='frames', image_format='png'))] if has_frames else []
    stores += [('video, PNG', dict(source='videos', image_format='png'))]
    stores += [(f'video, JPEG {q}', dict(source='videos', quality=q)) for q in (95, 90, 75)]
    reference = None
    print('| pictures | computation | mAP | difference | largest difference of a score |\n|---|---|---|---|---|')
    with tempfile.TemporaryDirectory() as work:
        for name, options in stores:
            settings, faces_dir = PrepareSettings(image_size=args.size, **options), Path(work) / name.replace(' ', '_')
            faces, _ = split_faces(args.data_dir, args.split, settings)
            clips = prepare_faces({args.split: faces}, args.data_dir, faces_dir, settings).clip_uid.tolist()
            for how, table in variants(model, faces_dir, clips, args.size, first=reference is None):
                reference = table if reference is None else reference
                gap, score = lam_metrics(table)['mAP'] - lam_metrics(reference)['mAP'], (table.score - reference.score).abs().max()
                print(f'| {name} | {how} | {lam_metrics(table)["mAP"]:.6f} | {gap:+.1e} | {score:.1e} |', flush=True)


def variants(model, faces_dir, clips, size, first):
    "(name, predictions) of each way to compute; all ways on the first store only."
    if first:
        yield 'float32, window by window', window_by_window(model, faces_dir, clips, size)
        yield 'float32, each face once', predict(model, faces_dir, clips, size=size)
        yield 'bf16, each face once', predict(model, faces_dir, clips, size=size, precision='bf16')
        yield 'TF32 (rounded operands), window by window', window_by_window(model, faces_dir, clips, size, Tf32())
    model.to(memory_format=torch.channels_last)
    yield 'float32, each face once, channels-last', predict(model, faces_dir, clips, size=size)
    if first:
        plain, model.features = model.features, torch.compile(model.features)
        yield 'float32, each face once, compiled', predict(model, faces_dir, clips, size=size)
        model.features = plain


if __name__ == '__main__':
    main()
