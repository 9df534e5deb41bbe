"""A made-up data set of hard cases in the official layout: frames that are missing, boxes that leave the frame, black crops.

Frames lie in video_imgs/<clip>/img_00001.jpg ... as the official code reads them. Their content is PNG, which every reader recognises by
its first bytes: so the pixels do not depend on a JPEG decoder. Run by the tests, and by tests/reference/make_window_reference.py beside the
official code.
"""
import json
from pathlib import Path

import cv2
import numpy as np

CLIPS = ('hard-clip-a', 'hard-clip-b')
WIDTH, HEIGHT, FRAMES = 160, 120, 40
MISSING = (12, 13, 25, 38, 39, 40)          # numbers of the image files that do not exist: two in the middle, one alone, the tail


def coloured_frame(rng: np.random.Generator) -> np.ndarray:
    "(120, 160, 3) uint8 of coloured blotches with a black rectangle at x 0..50, y 60..110."
    image = cv2.resize(rng.integers(1, 256, (15, 20, 3), np.uint8), (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
    image[60:110, :50] = 0
    return image


def boxes() -> dict[str, dict[int, tuple]]:
    "Track -> frame -> (x, y, width, height); each track is one hard case."
    move = lambda f: (20 + 1.37 * f, 15 + 0.61 * f, 40.5, 47.25)
    return {
        'plain': {f: move(f) for f in range(3, 36)},
        'gap': {f: move(f) for f in (5, 6, 7, 11, 12, 20, 21)},
        'single': {9: (30., 20., 30., 30.)},
        'from_frame_0': {f: move(f) for f in range(0, 9)},
        'beyond_the_end': {f: move(f) for f in range(33, 46)},
        'partly_outside': {f: (110. + f, 70. + f, 60., 70.) for f in range(2, 20)},
        'leaves_the_picture': {f: (100.5 + 6 * f, 40., 30., 40.) for f in range(1, 20)},
        'thinner_than_a_pixel': {f: (30.2, 20.2, .5 if f % 3 else 1.6, 25.) for f in range(4, 22)},
        'negative_corner': {f: (-20. + f, -10. + f / 2, 45., 50.) for f in range(2, 24)},
        'black_at_times': {f: (3., 65., 30., 40.) if f % 4 else (80., 10., 30., 40.) for f in range(6, 30)},
        'all_black': {f: (3., 65., 30., 40.) for f in range(6, 18)},
        'empty_boxes': {f: (60., 20., 40. if f not in (8, 9) else 0., 40. if f != 15 else -3.) for f in range(5, 20)},
        'unsorted': {f: move(f) for f in (17, 3, 9, 4, 16, 5)},
        'tiny_fractions': {f: (40 + f / 7, 30 + f / 3, 21 + f / 9, 33 + f / 11) for f in (2, 4, 8, 11, 16, 23, 29)}}


def annotation(clip_uid: str) -> dict:
    "One clip as in av_val.json."
    box = lambda f, x, y, w, h: dict(x=x, y=y, width=w, height=h, frame=f, video_frame=f, clip_frame=None)
    tracks = [dict(track_id=name, track=[box(f, *b) for f, b in frames.items()]) for name, frames in boxes().items()]
    person = dict(person_id='1', camera_wearer=False, tracking_paths=tracks, voice_segments=[])
    wearer = dict(person_id='0', camera_wearer=True, tracking_paths=[], voice_segments=[])
    look = lambda start, end: dict(start_frame=start, end_frame=end, person='1', target=None, is_at_me=False)
    segments = [look(4, 9), look(20, 21)]
    return dict(clip_uid=clip_uid, video_uid='hard-video', valid=True, persons=[wearer, person], social_segments_looking=segments)


def make_hard_cases(root: Path) -> Path:
    "Writes annotations, split list and frames below `root`."
    for name in ('json', 'split'): (root / name).mkdir(parents=True, exist_ok=True)
    for split, clips in (('train', []), ('val', CLIPS)):
        videos = [dict(video_uid='hard-video', split=split, clips=[annotation(c) for c in clips])]
        (root / f'json/av_{split}.json').write_text(json.dumps(dict(date='', version='1', description='', videos=videos)))
        (root / f'split/{split}.list').write_text(''.join(f'{c}\n' for c in clips))
    for number, clip in enumerate(CLIPS):
        folder, rng = root / 'video_imgs' / clip, np.random.default_rng(number)
        folder.mkdir(parents=True, exist_ok=True)
        for i in range(1, FRAMES + 1):
            image = coloured_frame(rng)
            if i not in MISSING or number: (folder / f'img_{i:05d}.jpg').write_bytes(cv2.imencode('.png', image)[1].tobytes())
    return root
