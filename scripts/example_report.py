"""The example in outputs/example, renewed after `make demo`: .venv/bin/python scripts/example_report.py

Copies the report of the validation split and its first timeline, takes an image of the report's first sections (with chromium or
Chrome), and writes into README.md what `make demo` printed at its end.
"""
import contextlib
import io
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

import show_runs

ROOT = Path(__file__).resolve().parent.parent
DEMO = 'outputs/demo'
RUNS = ['prepare', 'train', 'evaluate-val', 'evaluate-flip', 'evaluate-test', 'compare']
BROWSERS = ['chromium', 'chromium-browser', 'google-chrome', 'google-chrome-stable']
SIZE = 1100, 1500                       # of the window, pixels
LARGE = 280_000                         # bytes of an image
BEGIN, END = '<!-- demo: made by scripts/example_report.py -->', '<!-- end of demo -->'


def browser() -> str:
    "Path of a browser that can draw without a screen."
    if found := next(filter(None, map(shutil.which, BROWSERS)), None): return found
    raise FileNotFoundError(f'no browser is installed: expected one of {", ".join(BROWSERS)}')


def last_gap(page: np.ndarray, rows: int = 24) -> int:
    "Height at which a page (H, W, 3) can be cut: the middle of its lowest `rows` white lines with something above them."
    white = (page == 255).all((1, 2))
    for bottom in range(len(page), rows, -1):
        if white[bottom - rows:bottom].all() and not white[:bottom - rows].all(): return bottom - rows // 2
    return len(page)


def small_png(image: Image.Image, path: Path) -> None:
    "Saves `image`; with 256 colours if it would be large otherwise."
    image.convert('RGB').save(path, optimize=True)
    if path.stat().st_size > LARGE: image.convert('RGB').quantize(256).save(path, optimize=True)
    print(f'{path.relative_to(ROOT)}: {image.width} x {image.height}, {path.stat().st_size / 1e3:.0f} KB')


def screenshot(page: Path, image: Path) -> None:
    "The beginning of a page of HTML as it looks in a browser."
    with tempfile.TemporaryDirectory() as folder:
        shot = Path(folder) / 'shot.png'
        command = [browser(), '--headless', '--no-sandbox', '--disable-gpu', '--disable-background-networking', '--hide-scrollbars',
                   f'--user-data-dir={folder}/profile', f'--window-size={SIZE[0]},{SIZE[1]}', f'--screenshot={shot}', page.as_uri()]
        subprocess.run(command, check=True, capture_output=True, timeout=120)
        with Image.open(shot) as whole: page = whole.convert('RGB')
    small_png(page.crop((0, 0, page.width, last_gap(np.asarray(page)))), image)


def demo_text() -> str:
    "What `make demo` prints at its end."
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        if show_runs.main([f'{DEMO}/{name}' for name in RUNS]): raise ValueError('the demo did not end well: run `make demo` again')
    return printed.getvalue().strip()


def main() -> int:
    "Renew everything."
    run, example, readme = ROOT / DEMO / 'evaluate-val', ROOT / 'outputs/example', ROOT / 'README.md'
    printed = demo_text()
    shutil.copy(run / 'report.html', example / 'evaluate.html')
    screenshot(example / 'evaluate.html', example / 'evaluate.png')
    with Image.open(run / 'figures/timeline_1.png') as image:
        background = Image.new('RGBA', image.size, 'white')
        drawn = Image.alpha_composite(background, image.convert('RGBA'))
        drawn.thumbnail((SIZE[0], SIZE[1]), Image.Resampling.LANCZOS)
    small_png(drawn, example / 'timeline.png')
    text = readme.read_text(encoding='utf-8')
    before, after = text.partition(BEGIN)[0], text.partition(END)[2]
    readme.write_text(f'{before}{BEGIN}\n\n```\n{printed}\n```\n\n{END}{after}', encoding='utf-8')
    return 0


if __name__ == '__main__':
    sys.exit(main())
