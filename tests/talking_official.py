"""Segments as the official Talking-to-me code sees them, read from its own frames and wave files: a small loader for comparing scores.

Faces come from this kit's faces table; the frames, the cut, the size and the sound's scale follow the official code.
"""
import json
import subprocess
import sys
import wave

import cv2
import numpy as np

from lam_nb.annotations import load_faces


def extract(root, uid):
    "A clip's frames and wave file by ffmpeg, as the official scripts call it."
    frames, waves = root / 'video_imgs' / uid, root / 'wave'
    frames.mkdir(parents=True, exist_ok=True)
    waves.mkdir(exist_ok=True)
    images = ['-f', 'image2', '-vf', 'fps=30', '-qscale:v', '2', frames / 'img_%05d.jpg']
    sound = ['-qscale:a', '0', '-ac', '1', '-vn', '-ar', '16000', waves / f'{uid}.wav']
    for way in (images, sound):
        subprocess.run(['ffmpeg', '-v', 'error', '-y', '-i', root / f'videos/{uid}.mp4', *way], check=True)


def make_data(maker, mini, root):
    "The small data set with talking segments, made by the script `maker`, with frames and wave files of its val clips."
    subprocess.run([sys.executable, maker, mini, root], check=True, capture_output=True)
    file = root / 'json/av_val.json'
    made = json.loads(file.read_text())
    for video in made['videos']:
        for clip in video['clips']: clip['video_end_frame'] = clip['video_start_frame'] + clip['clip_end_frame']      # one was made longer
    file.write_text(json.dumps(made))
    for uid in (root / 'split/val.list').read_text().split(): extract(root, uid)
    return root


def known_boxes(root, split):
    "(clip, person, frame) -> box, of a split."
    faces, _ = load_faces(root, split)
    return {(r.clip_uid, r.person_id, r.frame): (r.x1, r.y1, r.x2, r.y2) for r in faces.itertuples()}


def face(image, box, side=224):
    "A box of a frame, as an image of `side` pixels; None for an empty one."
    x1, y1, x2, y2 = map(int, box)
    cut = image[y1:y2, x1:x2]
    return cv2.resize(cut, (side, side)) if cut.size else None


def video_faces(root, boxes, uid, person, first, last):
    "Faces of a person in the frames `first` to `last`, (T, 224, 224, 3) uint8; black where there is none."
    out = np.zeros((last - first + 1, 224, 224, 3), np.uint8)
    for frame in range(first, last + 1):
        box, file = boxes.get((uid, str(person), frame)), root / f'video_imgs/{uid}/img_{frame:05d}.jpg'
        if box is None or not file.exists(): continue
        found = face(cv2.cvtColor(cv2.imread(str(file)), cv2.COLOR_BGR2RGB), box)
        if found is not None: out[frame - first] = found
    return out


def challenge_faces_of(folder, first, last):
    "Faces of a challenge segment, whose files are named by their frame."
    out = np.zeros((last - first + 1, 224, 224, 3), np.uint8)
    for frame in range(first, last + 1):
        if (file := folder / f'face/{frame}.jpg').exists(): out[frame - first] = cv2.cvtColor(cv2.imread(str(file)), cv2.COLOR_BGR2RGB)
    return out


def part_of_sound(file, first, last):
    "Sound between two frames at 30 a second, scaled to a root mean square of 0.1: (S,) float32."
    with wave.open(str(file)) as w:
        assert w.getnchannels() == 1 and w.getsampwidth() == 2
        rate, samples = w.getframerate(), np.frombuffer(w.readframes(w.getnframes()), '<i2') / 32768
    part = samples[int(first / 30 * rate):int(last / 30 * rate)]
    return (part * .1 / max(1e-4, np.sqrt(np.mean(part ** 2)))).astype(np.float32)


def challenge_length(folder):
    "The number of frames of a challenge segment: of its sound or, if it is longer, of its faces."
    with wave.open(str(folder / 'audio/aud.wav')) as w: seconds = w.getnframes() / w.getframerate()
    return max(int(seconds * 30 + 1), max(int(f.stem) for f in (folder / 'face').iterdir()) + 1)
