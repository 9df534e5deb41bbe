"""Compares every window of every split with what the official loaders make, pixel by pixel.

Usage: python benchmarks/official_windows.py CHECKOUT DATA_DIR
CHECKOUT is a checkout of EGO4D/social-interactions, branch lam. DATA_DIR is in the official layout, with video_imgs/ (extracted as there:
`ffmpeg -i CLIP -f image2 -vf fps=30 -qscale:v 2 img_%05d.jpg`) and, for the test split, videos_challenge/. It is only read.
"""
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch

from lam_nb.preparation import PrepareSettings, prepare_faces, split_faces
from lam_nb.windows import FaceWindows


def official_loader(checkout: Path, data: Path, split: str, work: Path):
    "The official loader of a split at stride 1, giving uint8 pictures."
    sys.path[:0] = [str(checkout), str(checkout / 'scripts')]
    from dataset.data_loader import ImagerLoader, TestImagerLoader
    from get_json import get_json
    from get_lam_result import get_lam_result
    as_bytes = lambda face: torch.from_numpy(np.ascontiguousarray(face))
    if split == 'test': return TestImagerLoader(str(data / 'videos_challenge'), stride=1, transform=as_bytes)
    get_json(data / f'json/av_{split}.json', work / split / 'json_original')
    get_lam_result(data / f'json/av_{split}.json', work / split / 'result_LAM')
    places = data / 'video_imgs', data / f'split/{split}.list', work / split / 'json_original', work / split / 'result_LAM'
    return ImagerLoader(*map(str, places), stride=1, mode='val', transform=as_bytes)


def our_windows(data: Path, split: str, work: Path) -> tuple[FaceWindows, dict]:
    "Our windows of a split, and where each is: (clip, track, frame), or the unique id of a crop -> item."
    options = PrepareSettings(source='crops' if split == 'test' else 'frames', image_format='png')
    faces, _ = split_faces(data, split, options)
    made = prepare_faces({split: faces}, data, work / 'faces', options)
    windows = FaceWindows(work / 'faces', made.clip_uid.tolist())
    rows = [windows.stores[clip].table.iloc[row[3]] for clip, row in zip(windows.clip, windows.rows)]
    return windows, {r.unique_id if split == 'test' else (r.clip_uid, r.track_id, r.frame): i for i, r in enumerate(rows)}


def main(checkout: Path, data: Path):
    for split in ('train', 'val', 'test'):
        with tempfile.TemporaryDirectory() as folder:
            theirs, (ours, where) = official_loader(checkout, data, split, Path(folder)), our_windows(data, split, Path(folder))
            different = 0
            for i in range(len(theirs)):
                pictures, row = theirs[i]
                item = where[row[2] if split == 'test' else (row[0], row[1], int(row[2]))]
                different += not np.array_equal(pictures.numpy().astype(np.uint8), ours[item]['images'])
        print(f'{split}: {len(theirs):,} official windows, {len(ours):,} ours, {different:,} different', flush=True)


if __name__ == '__main__':
    if len(sys.argv) != 3: sys.exit(__doc__)
    main(Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve())
