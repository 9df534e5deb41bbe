"Scores and mAP of whole splits against the official code's, with weights that both rebuild (data and weights lie beside some checkouts)."
import importlib.util
import shutil
import subprocess

import numpy as np
import pandas as pd
import pytest

from lam_nb.evaluation import lam_metrics
from lam_nb.preparation import PrepareSettings, prepare_faces, split_faces
from lam_nb.inference import predict
from lam_nb.models import BaselineLSTM

OFFICIAL_MAP = 0.6122728409423952          # README of ego4d_mini, by the official code


@pytest.fixture(scope='module')
def model(mini):
    "The model with the golden weights."
    spec = importlib.util.spec_from_file_location('golden_weights', mini.parent / 'golden_weights.py')
    golden = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(golden)
    model = BaselineLSTM()
    model.load_state_dict(golden.golden_state_dict(model.state_dict()))
    return model.eval()


def scores(model, root, split, faces_dir, **options):
    "Predictions of a split with faces made anew."
    settings = PrepareSettings(**options)
    faces, _ = split_faces(root, split, settings)
    clips = prepare_faces({split: faces}, root, faces_dir, settings).clip_uid.tolist()
    return predict(model, faces_dir, clips)


def test_challenge_crops(mini, model, tmp_path):
    official = pd.read_csv(mini / 'official/test.pred.csv', names=['clip_uid', 'unique_id', 'track_id', 'one', 'official'])
    both = scores(model, mini, 'test', tmp_path, source='crops').merge(official, on=['clip_uid', 'unique_id', 'track_id'], validate='1:1')
    assert len(both) == len(official) == 147 and np.abs(both.score - both.official).max() < 1e-5


def test_val_from_the_official_frames(mini, model, tmp_path):
    if not shutil.which('ffmpeg'): pytest.skip('no ffmpeg here to extract frames as the official code does')
    (tmp_path / 'data').mkdir()
    for name in ('json', 'split'): shutil.copytree(mini / name, tmp_path / 'data' / name, copy_function=shutil.copyfile)
    for uid in (mini / 'split/val.list').read_text().split():
        folder = tmp_path / 'data/video_imgs' / uid
        folder.mkdir(parents=True)
        official_way = ['-f', 'image2', '-vf', 'fps=30', '-qscale:v', '2', folder / 'img_%05d.jpg']
        subprocess.run(['ffmpeg', '-v', 'error', '-i', mini / f'videos/{uid}.mp4', *official_way], check=True)
    table = scores(model, tmp_path / 'data', 'val', tmp_path / 'faces', source='frames', image_format='png')
    names = ['clip_uid', 'frame', 'x1', 'y1', 'x2', 'y2', 'track_id', 'one', 'official']
    official = pd.read_csv(mini / 'official/val.stride1.pred.csv', names=names)[['clip_uid', 'track_id', 'frame', 'official']]
    both = table.merge(official, validate='1:1')
    assert len(both) == len(table) == 447 and np.abs(both.score - both.official).max() < 1e-5
    assert abs(lam_metrics(table)['mAP'] - OFFICIAL_MAP) < 1e-9


def test_val_from_the_videos_as_jpeg(mini, model, tmp_path):
    table = scores(model, mini, 'val', tmp_path)
    assert len(table) == 447 and abs(lam_metrics(table)['mAP'] - OFFICIAL_MAP) < 0.003
