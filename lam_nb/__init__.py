"""Who looks at me? A research kit for Ego4D's Looking-at-me task, from videos and annotations to metrics.

These names are enough for most work; `nbs/api.ipynb` shows each in use. Each stands in a module, which is a chapter,
and so does everything else.
"""
__version__ = "0.3.0"

from importlib import import_module
from typing import TYPE_CHECKING

_MODULES = dict(                                        # name -> where it is
    make_sample='sample', split_clips='annotations', load_faces='annotations', PrepareSettings='settings',
    prepare_faces='preparation', ClipFaces='faces', TrainSettings='settings', train='launching', load_model='scoring',
    predict='inference', read_official='predictions', lam_metrics='evaluation', intervals_by_clip='evaluation')
__all__ = ['make_sample', 'split_clips', 'load_faces', 'PrepareSettings', 'prepare_faces', 'ClipFaces', 'TrainSettings', 'train',
           'load_model', 'predict', 'read_official', 'lam_metrics', 'intervals_by_clip']

if TYPE_CHECKING:                                       # for editors and type checkers
    from .sample import make_sample as make_sample
    from .annotations import load_faces as load_faces, split_clips as split_clips
    from .settings import PrepareSettings as PrepareSettings, TrainSettings as TrainSettings
    from .preparation import prepare_faces as prepare_faces
    from .faces import ClipFaces as ClipFaces
    from .launching import train as train
    from .scoring import load_model as load_model
    from .inference import predict as predict
    from .predictions import read_official as read_official
    from .evaluation import intervals_by_clip as intervals_by_clip, lam_metrics as lam_metrics
else:                                                   # a module is imported when a name of it is asked for
    def __getattr__(name):
        if name in _MODULES: return getattr(import_module(f'lam_nb.{_MODULES[name]}'), name)
        raise AttributeError(f'lam_nb has no {name!r}: it has {", ".join(_MODULES)}, and its modules')

    def __dir__(): return sorted({*globals(), *_MODULES})
