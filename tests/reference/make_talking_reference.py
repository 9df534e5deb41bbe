"""Writes talking/models.json: what the official Talking-to-me network answers to made-up faces, sound and weights (made_up.py).

    python tests/reference/make_talking_reference.py CHECKOUT

CHECKOUT is a clone of EGO4D/social-interactions, branch ttm. None of its files is changed; what today's PyTorch lacks is stood in for here.
Needs torchaudio, of which the official code takes the mel spectrogram.
"""

import json, sys
from pathlib import Path
from types import SimpleNamespace

import torch
from torchvision.transforms import Compose, Normalize, ToTensor

from made_up import sound, weights, windows

HERE = Path(__file__).resolve().parent
PIXELS = Compose([ToTensor(), Normalize(mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225])])  # as the official code has it


def official_model(checkout):
    "The official network with made-up weights; the constants of its spectrogram stay."
    if str(checkout) not in sys.path:
        sys.path.insert(0, str(checkout))
    torch.nn.init.normal, torch.nn.init.constant = torch.nn.init.normal_, torch.nn.init.constant_
    cuda, torch.version.cuda = torch.version.cuda, None  # torchaudio refuses a torch of another CUDA; none is used here
    import torchaudio  # noqa: F401

    torch.version.cuda = cuda
    from model.model import BaselineLSTM

    made = BaselineLSTM(SimpleNamespace(checkpoint=None, rank=0))
    state = made.state_dict()
    made.load_state_dict(weights(state) | {k: v for k, v in state.items() if '.torchfb.' in k})
    return made.eval()


def pixels(faces):
    "(batch, frames, size, size, 3) uint8 as the official code gives it to the network."
    return torch.stack([PIXELS(f.numpy()) for f in faces.flatten(0, 1)]).unflatten(0, faces.shape[:2])


def main(checkout):
    model = official_model(checkout)
    out = {'keys': {k: list(v.shape) for k, v in model.state_dict().items()}, 'cases': []}
    for batch, frames, size in ((2, 9, 32), (1, 2, 64), (1, 16, 48)):
        samples = int((frames - 1) / 30 * 16_000)
        with torch.no_grad():
            logits = model(pixels(windows(batch, size, frames)), sound(batch, samples))
        out['cases'].append({'batch': batch, 'frames': frames, 'size': size, 'samples': samples, 'logits': logits.double().tolist()})
    with torch.no_grad():
        mel = (model.audio_encoder.torchfb(sound(1, 800)) + 1e-6).log()[0]
    out['log_mel'] = [[round(v, 5) for v in row] for row in mel.double().tolist()]
    (HERE / 'talking').mkdir(exist_ok=True)
    (HERE / 'talking/models.json').write_text(json.dumps(out, separators=(',', ':')) + '\n')
    print([c['logits'] for c in out['cases']], mel.shape)


if __name__ == '__main__':
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]).resolve())
