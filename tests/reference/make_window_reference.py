"""Writes windows.json: a checksum of every window that the official loader makes of the hard cases.

Usage: python tests/reference/make_window_reference.py CHECKOUT      (a checkout of EGO4D/social-interactions, branch lam)
"""
import json
import sys
import tempfile
import zlib
from pathlib import Path

import numpy as np
import torch

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent)]
from hard_cases import make_hard_cases  # noqa: E402


def official_windows(checkout: Path, data: Path) -> dict[str, int]:
    "'clip:track:frame' -> CRC-32 of the (7, 224, 224, 3) uint8 window, by the official code at stride 1."
    sys.path[:0] = [str(checkout), str(checkout / 'scripts')]
    from dataset.data_loader import ImagerLoader
    from get_json import get_json
    from get_lam_result import get_lam_result
    get_json(data / 'json/av_val.json', data / 'json_original')
    get_lam_result(data / 'json/av_val.json', data / 'result_LAM')
    names = [str(data / n) for n in ('video_imgs', 'split/val.list', 'json_original', 'result_LAM')]
    loader = ImagerLoader(*names, stride=1, mode='val', transform=lambda face: torch.from_numpy(np.ascontiguousarray(face)))
    windows = (loader[i] for i in range(len(loader)))
    return {f'{row[0]}:{row[1]}:{int(row[2])}': zlib.crc32(pictures.numpy().astype(np.uint8).tobytes()) for pictures, row in windows}


if __name__ == '__main__':
    with tempfile.TemporaryDirectory() as folder:
        sums = official_windows(Path(sys.argv[1]).resolve(), make_hard_cases(Path(folder)))
    (HERE / 'windows.json').write_text(json.dumps(dict(sorted(sums.items())), indent=0) + '\n')
    print(f'{len(sums)} windows')
