"The train notebook's report: of a long run, and of several seeds."
import nbformat
import pandas as pd
import papermill as pm
import torch
from conftest import ROOT
from test_training import settings

from lam_nb.training import TrainSettings
from lam_nb.launching import train


def run(s: TrainSettings, folder):
    "Runs train.ipynb with these settings; returns the notebook and the report."
    given = {k: v for k, v in s.model_dump(mode='json').items() if v != TrainSettings.model_fields[k].default}
    nb = pm.execute_notebook(ROOT / 'nbs/train.ipynb', folder / 'train.ipynb', given, cwd=ROOT, progress_bar=False)
    return nb, (folder / 'report.html').read_text()


def test_a_run_of_forty_epochs_writes_a_report_under_1_mb(sample, tmp_path):
    "One epoch is trained; the history of the others is made up, so that the notebook finds forty and only reports."
    s = settings(sample, tmp_path, epochs=1, train_stride=20, schedule='constant', warmup=0)
    train(s)
    file = tmp_path / 'checkpoints/last.pt'
    saved = torch.load(file, weights_only=True)
    row = saved['history'][0]
    made_up = lambda i: dict(epoch=i, train_loss=.7 / i, val_loss=.6, mAP=.5 + i / 100, windows_per_s=300 + i % 7)
    saved['history'] = [row | made_up(i) for i in range(1, 41)]
    torch.save(saved | dict(epoch=40), file)
    pd.DataFrame(saved['history']).to_csv(tmp_path / 'history.csv', index=False)
    _, report = run(s.model_copy(update={'epochs': 40}), tmp_path)
    assert 'How to repeat it' in report and '40 of 40' in report and 'windows per second' in report
    sizes = {name: (tmp_path / name).stat().st_size for name in ('report.html', 'train.ipynb')}
    print(sizes)
    assert max(sizes.values()) < 1e6


def test_several_seeds_make_one_report_with_mean_and_spread(sample, tmp_path):
    s = settings(sample, tmp_path, epochs=1, train_stride=20, seeds=[3, 4], save_every=1000)
    nb, report = run(s, tmp_path)
    assert 'over seeds' in report and '±' in report and (tmp_path / 'seed-4/checkpoints/best.pt').exists()
    text = ''.join(o.get('text', '') for c in nb.cells for o in c.get('outputs', []))
    assert text.count('training: ') < 10                       # a line now and then, no flood
    assert nbformat.reads(nbformat.writes(nb), 4).metadata.papermill.exception is None
