"""How much quicker a head trains from kept features than through its frozen encoder, in the same run.

    python benchmarks/kept_features.py [--encoders baseline timm:vit_tiny_patch16_224] [--size 224] [--rounds 3]

A few clips of sample data, faces of `size` pixels, random weights (the speed does not depend on them). In turns: training steps of
EncoderHead with `tune = none` through the encoder, and from its kept features, the same batches; then how fast kept features are only
read, with nothing computed from them. Windows a second, medians. Writes results/kept_features.json.
"""
import argparse
import tempfile
import time
from functools import partial
from pathlib import Path

import torch

from lam_nb.batches import WindowData
from lam_nb.data_checks import stored_clips
from lam_nb.encoders import FeatureWindows
from lam_nb.inference import keep_features
from lam_nb.launching import train_windows
from lam_nb.preparation import PrepareSettings, prepare_faces, split_faces
from lam_nb.sample import make_sample
from lam_nb.settings import TrainSettings
from lam_nb.training import new_run, train_step
from measure import in_turns, save


def steps(settings, data, seconds, compute=True):
    "Windows a second over so many seconds of training steps, or of reading alone."
    run = new_run(settings, torch.device('cpu'))
    run.model.train()
    batches, done, begin = data.batches(0), 0, None
    for batch in data.load(batches * 1000):
        if begin is not None and time.perf_counter() - begin > seconds: break
        if compute: train_step(run, run.model, data, batch)
        if begin is None: begin = time.perf_counter()                                  # the first batch warms up
        else: done += len(batch['label'])
    return done / (time.perf_counter() - begin)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--encoders', nargs='+', default=['baseline', 'timm:vit_tiny_patch16_224', 'timm:vit_small_patch16_224'])
    for name, value in (('size', 224), ('rounds', 3), ('seconds', 20), ('batch-size', 64)):
        parser.add_argument(f'--{name}', type=int, default=value)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = make_sample(Path(folder) / 'data', train_clips=2, val_clips=1, test_clips=0, seconds=3, progress=False)
        small = PrepareSettings(data_dir=str(root), image_size=args.size)
        prepare_faces({split: split_faces(root, split, small)[0] for split in ('train', 'val')}, root, root / 'faces', small)
        clips, rows = stored_clips(root, root / 'faces', 'train'), []
        for encoder in args.encoders:
            given = dict(data_dir=str(root), model='EncoderHead', encoder=encoder, tune='none', image_size=args.size, num_workers=0,
                         batch_size=args.batch_size, features_dir=str(root / 'features'), out_dir=str(root / 'run'))
            kept = TrainSettings(**given)
            through = TrainSettings(**given | dict(features_dir=None))
            model = new_run(kept, torch.device('cpu')).model
            begin = time.perf_counter()
            features = keep_features(model, root / 'faces', clips, root / 'features', size=args.size, precision='auto')
            seconds = time.perf_counter() - begin
            windows = {False: train_windows(through, model), True: train_windows(kept, model, features)}
            assert isinstance(windows[True], FeatureWindows)
            data = {k: WindowData(w, kept, [.136, .864], torch.device('cpu')) for k, w in windows.items()}
            ways = {'through the encoder': partial(steps, through, data[False], args.seconds),
                    'from kept features': partial(steps, kept, data[True], args.seconds),
                    'reading only': partial(steps, kept, data[True], min(args.seconds, 5), compute=False)}
            speed = in_turns(ways, args.rounds)
            faces = sum(len(store.missing) for store in windows[False].stores)
            size = sum(file.stat().st_size for file in Path(features).iterdir())
            rows.append(dict(encoder=encoder, features=model.dim, windows_per_s=speed,
                             times=round(speed['from kept features'] / speed['through the encoder'], 1),
                             reading_times_training=round(speed['reading only'] / speed['from kept features'], 1),
                             faces_per_s=round(faces / seconds, 1), bytes_a_face=round(size / faces)))
            print(rows[-1], flush=True)
        command = f'python benchmarks/kept_features.py --size {args.size} --rounds {args.rounds} --encoders {" ".join(args.encoders)}'
        save('kept_features', command, batch_size=args.batch_size, size=args.size, rows=rows)


if __name__ == '__main__': main()
