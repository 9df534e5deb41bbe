"A model whose checkpoints are written in no time, for tests: small:Small."
import torch

from lam_nb.models import FaceModel


class Small(FaceModel):
    "A convolution and an LSTM."
    def __init__(self):
        super().__init__()
        self.conv, self.lstm, self.last = torch.nn.Conv2d(3, 8, 5, 4), torch.nn.LSTM(8, 8, batch_first=True), torch.nn.Linear(8, 2)

    def features(self, faces): return self.conv(faces).mean((2, 3))
    def classify(self, features): return self.last(self.lstm(features)[0][:, 3])
