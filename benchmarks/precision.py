"""What bf16 costs in accuracy: a short training on the sample data in fp32 and in bf16, with three seeds each.

Usage: python benchmarks/precision.py [--data data/sample] [--seeds 0,1,2] [--epochs 3] [--stride 6] [--size 48]
The faces must be prepared (prepare.ipynb). Prints mAP and loss of each run's last epoch, means and standard deviations, and the difference
of the means beside its standard error, which is what random variation alone explains. Writes benchmarks/results/precision.json.
"""
import argparse
import tempfile
from pathlib import Path

import pandas as pd
from measure import save

from lam_nb.training import TrainSettings
from lam_nb.launching import train_seeds


def trained(args, precision: str, folder: Path) -> pd.DataFrame:
    "The last epoch of the training with each seed."
    s = TrainSettings(data_dir=args.data, out_dir=str(folder / precision), precision=precision, seeds=args.seeds, epochs=args.epochs,
                      val_every=args.epochs, train_stride=args.stride, val_stride=3, image_size=args.size, save_every=9999, num_processes=1)
    runs = train_seeds(s)
    last = [pd.read_csv(folder / precision / f'seed-{n}' / 'history.csv').iloc[-1] for n in runs.seed]
    return pd.DataFrame(last).assign(precision=precision, seed=runs.seed.to_numpy(), seconds=runs.seconds.to_numpy())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--data', default='data/sample')
    parser.add_argument('--seeds', default='0,1,2')
    for name, value in (('epochs', 3), ('stride', 6), ('size', 48)): parser.add_argument(f'--{name}', type=int, default=value)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        runs = pd.concat([trained(args, precision, Path(folder)) for precision in ('fp32', 'bf16')], ignore_index=True)
    columns = ['precision', 'seed', 'mAP', 'val_loss', 'train_loss', 'seconds']
    print(runs[columns].round(4).to_string(index=False))
    by = runs.groupby('precision').mAP.agg(['mean', 'std', 'count'])
    difference = by['mean']['bf16'] - by['mean']['fp32']
    error = ((by['std'] ** 2 / by['count']).sum()) ** .5
    print(by.round(4).to_string(), f'\nbf16 - fp32: {difference:+.4f}; standard error by chance: {error:.4f}', sep='\n')
    command = ' '.join(['python benchmarks/precision.py', *(f'--{name} {value}' for name, value in vars(args).items())])
    rows = runs[columns].round(4).to_dict('records')
    save('precision', command, runs=rows, difference=round(difference, 4), standard_error=round(error, 4))


if __name__ == '__main__':
    main()
