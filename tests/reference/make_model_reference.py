"""Writes model_logits.json: what the official models answer to made-up windows with made-up weights (made_up.py), in fp32 on the CPU.

    python tests/reference/make_model_reference.py CHECKOUT

CHECKOUT is a clone of EGO4D/social-interactions, branch lam. None of its files is changed; what today's PyTorch lacks is stood in for here.
"""

import json, sys
from pathlib import Path
from types import SimpleNamespace

import torch
from torchvision.transforms import Compose, Normalize, ToTensor

from made_up import weights, windows

HERE = Path(__file__).resolve().parent


def official_model(checkout, name):
    "An official model with made-up weights."
    if str(checkout) not in sys.path:
        sys.path.insert(0, str(checkout))
    torch.nn.init.normal, torch.nn.init.constant = torch.nn.init.normal_, torch.nn.init.constant_
    from model import model, resnet

    resnet.model_zoo.load_url = lambda *args, **kwargs: {}  # no download: the weights are replaced anyway
    made = getattr(model, name)(SimpleNamespace(checkpoint=None, rank=0, eval=False))
    made.load_state_dict(weights(made.state_dict()))
    return made.eval()


def main(checkout):
    pixels = Compose([ToTensor(), Normalize(mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225])])  # as the official code has it
    out = {'keys': None, 'cases': []}
    for name in ('BaselineLSTM', 'GazeLSTM'):
        model = official_model(checkout, name)
        out['keys'] = {k: list(v.shape) for k, v in model.state_dict().items()}
        for batch, size in ((4, 64), (1, 224)):
            faces = torch.stack([pixels(f.numpy()) for f in windows(batch, size).flatten(0, 1)])  # (batch * 7, 3, size, size)
            with torch.no_grad():
                logits = model(faces.view(batch, 7, 3, size, size))
            out['cases'].append({'model': name, 'batch': batch, 'size': size, 'logits': logits.double().tolist()})
    (HERE / 'model_logits.json').write_text(json.dumps(out) + '\n')
    print([c['logits'] for c in out['cases']])


if __name__ == '__main__':
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]).resolve())
