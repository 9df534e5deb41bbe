"Downloading from S3: from moto's server in a process of its own, and from a small server that misbehaves on purpose."
import fcntl, os, re, signal, socket, subprocess, sys, threading, time
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import unquote

import pandas as pd
import pytest

from lam_nb import download as dl

pytest.importorskip('moto.server')
BIG = os.urandom(9_000_000)                       # more than two steps of 4 MiB
STEP = dl._STEP


@pytest.fixture(autouse=True)
def keys(monkeypatch, tmp_path):
    "Keys that open nothing real; no settings of this machine."
    for name in [n for n in os.environ if n.startswith('AWS_')]: monkeypatch.delenv(name)
    values = dict(AWS_ACCESS_KEY_ID='made', AWS_SECRET_ACCESS_KEY='up', AWS_EC2_METADATA_DISABLED='true', NO_PROXY='127.0.0.1',
                  AWS_SHARED_CREDENTIALS_FILE=str(tmp_path / 'none'), AWS_CONFIG_FILE=str(tmp_path / 'none'))
    for name, value in values.items(): monkeypatch.setenv(name, value)


def free_port():
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        return s.getsockname()[1]


@pytest.fixture(scope='module')
def moto():
    "Address of moto's server, a process of its own."
    port = free_port()
    server = subprocess.Popen([sys.executable, '-m', 'moto.server', '-H', '127.0.0.1', '-p', str(port)],
                              stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    for _ in range(300):
        with socket.socket() as s:
            if not s.connect_ex(('127.0.0.1', port)): break
        time.sleep(.1)
    yield f'http://127.0.0.1:{port}'
    server.kill()
    server.wait()


def noting(client):
    "A list that receives the Range of every object that `client` asks for ('' for all of it)."
    asked = []
    client.meta.events.register('before-send.s3.GetObject', lambda request, **_: asked.append(request.headers.get('Range', b'').decode()))
    return asked


@pytest.fixture
def s3(moto):
    client = dl.s3_client(endpoint_url=moto)
    client.create_bucket(Bucket='bucket')
    return client


def write_manifest(root, rows, name='full_scale/manifest.csv', columns='video_uid,canonical_s3_location'):
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text('\n'.join([columns, *(','.join(row) for row in rows)]) + '\n')
    return path


def table(client, root, uids, kind='full_scale', **more):
    return pd.DataFrame(dl.download(client, root, kind, uids, progress=False, **more)).set_index('uid')


def files(folder): return sorted(p.name for p in folder.iterdir() if p.name != 'manifest.csv')


# moto: what S3 really answers

def test_all_outcomes_in_one_table(s3, tmp_path):
    s3.put_object(Bucket='bucket', Key='a b#1?%.mp4', Body=BIG)
    s3.put_object(Bucket='bucket', Key='small', Body=b'x' * 1000)
    s3.put_object(Bucket='bucket', Key='empty', Body=b'')
    write_manifest(tmp_path, [('good', 's3://bucket/a b#1?%.mp4'), ('small', 's3://bucket/small'), ('empty', 's3://bucket/empty'),
                              ('gone', 's3://bucket/gone'), ('nobucket', 's3://no-such-bucket/x'), ('http', 'https://bucket/x'),
                              ('../out', 's3://bucket/small'), ('/abs', 's3://bucket/small'), ('none', '')])
    (tmp_path / 'v2/full_scale').mkdir(parents=True)
    (tmp_path / 'v2/full_scale/theirs.mp4').write_bytes(b'by the ego4d command')
    uids = ['good', 'small', 'empty', 'gone', 'nobucket', 'http', '../out', '/abs', 'a\0b', 'x' * 300, 'none', 'unlisted', 'theirs', 'good']
    found = table(s3, tmp_path, uids)
    assert found.status.to_dict() == {
        'good': 'done', 'small': 'done', 'empty': 'missing', 'gone': 'missing', 'nobucket': 'missing', 'http': 'failed', '../out': 'failed',
        '/abs': 'failed', 'a\0b': 'failed', 'x' * 300: 'failed', 'none': 'failed', 'unlisted': 'missing', 'theirs': 'kept'}
    for uid, reason in dict(gone='404 NoSuchKey', empty='0 bytes', nobucket='404 NoSuchBucket').items(): assert reason in found.reason[uid]
    assert 'manifest.csv, line 7' in found.reason['http'] and found.reason['unlisted'] == 'not in the manifest'
    bad = ~found.status.isin(['done', 'kept'])
    assert (found.reason[bad] != '').all() and (found.advice[bad] != '').all() and (found.reason[~bad] == '').all()
    assert (tmp_path / 'full_scale/good.mp4').read_bytes() == BIG and found.bytes['good'] == len(BIG)
    assert files(tmp_path / 'full_scale') == ['good.mp4', 'small.mp4'] and files(tmp_path) == ['full_scale', 'v2']
    assert found.path['theirs'] == str(tmp_path / 'v2/full_scale/theirs.mp4') and found.path['gone'] == ''
    asked = noting(s3)
    assert table(s3, tmp_path, ['good', 'small', 'theirs']).status.tolist() == ['kept'] * 3 and not asked      # not one request


def test_resume_asks_for_the_rest_only(s3, tmp_path):
    s3.put_object(Bucket='bucket', Key='v', Body=BIG)
    path, asked, came = tmp_path / 'v.mp4', noting(s3), []

    def stop(n):
        came.append(n)
        if sum(came) > 8_000_000: raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt): dl.download_file(s3, 's3://bucket/v', path, stop)
    size = (tmp_path / 'v.mp4.part').stat().st_size
    assert size > 7_000_000 and files(tmp_path) == ['v.mp4.part', 'v.mp4.part.etag']
    came.clear()
    assert dl.download_file(s3, 's3://bucket/v', path, came.append) == len(BIG)
    assert asked == ['', f'bytes={size - STEP}-'] and sum(came) == len(BIG) - (size - STEP)
    assert path.read_bytes() == BIG and files(tmp_path) == ['v.mp4']


def test_changed_object_starts_again(s3, tmp_path):
    s3.put_object(Bucket='bucket', Key='v', Body=BIG[::-1])
    path, came = tmp_path / 'v.mp4', []
    part = tmp_path / 'v.mp4.part'
    part.write_bytes(BIG[:8_000_000])
    (tmp_path / 'v.mp4.part.etag').write_text('"0123456789abcdef0123456789abcdef"')
    assert dl.download_file(s3, 's3://bucket/v', path, came.append) == len(BIG)
    assert path.read_bytes() == BIG[::-1] and sum(came) == len(BIG) - (8_000_000 - STEP)       # the dropped part is taken back


@pytest.mark.parametrize('etag', [None, '', '\0\0\0\0', '"a"\r\nX-Evil: 1'])
def test_part_of_unknown_origin_is_dropped(s3, tmp_path, etag):
    s3.put_object(Bucket='bucket', Key='v', Body=BIG)
    (tmp_path / 'v.mp4.part').write_bytes(bytes(8_000_000))
    if etag is not None: (tmp_path / 'v.mp4.part.etag').write_bytes(etag.encode())
    asked = noting(s3)
    dl.download_file(s3, 's3://bucket/v', tmp_path / 'v.mp4')
    assert (tmp_path / 'v.mp4').read_bytes() == BIG and asked == [''] and files(tmp_path) == ['v.mp4']


def test_part_longer_than_the_object(s3, tmp_path):
    etag = s3.put_object(Bucket='bucket', Key='v', Body=BIG[:100])['ETag']
    (tmp_path / 'v.mp4.part').write_bytes(BIG)
    (tmp_path / 'v.mp4.part.etag').write_text(etag)
    assert dl.download_file(s3, 's3://bucket/v', tmp_path / 'v.mp4') == 100
    assert (tmp_path / 'v.mp4').read_bytes() == BIG[:100]


def test_twenty_at_once(s3, tmp_path):
    content = {f'v{i:02}': BIG[i * 1000:i * 150_000] + b'end' for i in range(20)}
    for uid, body in content.items(): s3.put_object(Bucket='bucket', Key=uid, Body=body)
    write_manifest(tmp_path, [(uid, f's3://bucket/{uid}') for uid in content])
    found = table(s3, tmp_path, list(content))
    assert (found.status == 'done').all() and len(found) == 20
    assert {uid: (tmp_path / f'full_scale/{uid}.mp4').read_bytes() for uid in content} == content
    assert files(tmp_path / 'full_scale') == [f'{uid}.mp4' for uid in content]


def test_never_far_ahead_of_its_caller(s3, tmp_path):
    for i in range(12): s3.put_object(Bucket='bucket', Key=f'v{i}', Body=b'x' * 1000)
    write_manifest(tmp_path, [(f'v{i}', f's3://bucket/v{i}') for i in range(12)])
    seen = []
    for row in dl.download(s3, tmp_path, 'full_scale', [f'v{i}' for i in range(12)], workers=3, progress=False):
        time.sleep(.05)                           # a slow consumer
        seen.append(len(files(tmp_path / 'full_scale')))
        Path(row['path']).unlink()
    assert len(seen) == 12 and max(seen) <= 3


def test_no_manifest_fetches_ego4ds(s3, tmp_path):
    clips, uid = tmp_path / 'clips', 'c1'
    with pytest.raises(FileNotFoundError, match=r'no manifest of clips.*404 NoSuchBucket'): table(s3, tmp_path, [uid], 'clips')
    s3.create_bucket(Bucket='ego4d-consortium-sharing')
    body = b'exported_clip_uid,parent_video_uid,s3_path\nc1,v1,s3://bucket/c1.mp4\n'
    s3.put_object(Bucket='ego4d-consortium-sharing', Key='public/v2/clips/manifest.csv', Body=body)
    s3.put_object(Bucket='bucket', Key='c1.mp4', Body=b'clip')
    assert table(s3, tmp_path, [uid], 'clips').status[uid] == 'done' and (clips / 'c1.mp4').read_bytes() == b'clip'


# A server whose faults are programmed

ERROR = '<?xml version="1.0"?><Error><Code>{}</Code><Message>as programmed</Message></Error>'


class Handler(BaseHTTPRequestHandler):
    "GET /bucket/key: `server.behaviour(key, number of requests for it so far)` gives (status, code), or how to send the content."
    protocol_version = 'HTTP/1.1'

    def log_message(self, *_): pass

    def do_GET(self):
        key = unquote(self.path.split('?')[0].split('/', 2)[2])
        asked = self.headers.get('Range', '')
        server = self.server
        with server.lock:
            number = sum(k == key for k, _ in server.asked)
            server.asked.append((key, asked))
        behave = {} if asked == 'bytes=0-0' and server.polite else server.behaviour(key, number)
        if 'status' in behave: return self.refuse(**behave)
        self.send(server.content[key], asked, **behave)

    def refuse(self, status, code):
        body = ERROR.format(code).encode()
        self.send_response(status)
        self.send_header('Content-Length', str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def send(self, content, asked, cut=None, ranges=True, pause=0, hang=0, crc32=''):
        found = re.fullmatch(r'bytes=(\d+)-(\d*)', asked) if ranges else None
        start, stop = (int(found[1]), int(found[2] or len(content) - 1) + 1) if found else (0, len(content))
        self.send_response(206 if found else 200)
        self.send_header('ETag', '"same"')
        self.send_header('Content-Length', str(stop - start))
        if found: self.send_header('Content-Range', f'bytes {start}-{stop - 1}/{len(content)}')
        if crc32: self.send_header('x-amz-checksum-crc32', crc32)
        self.end_headers()
        for at in range(start, min(stop, start + cut if cut else stop), 500_000):
            self.wfile.write(content[at:min(at + 500_000, stop, start + cut if cut else stop)])
            time.sleep(pause)
        time.sleep(hang)
        if cut: self.close_connection = True


@pytest.fixture
def rogue():
    "A client of a server with `content` (key -> bytes) and a `behaviour`; `asked` lists (key, Range)."
    server = ThreadingHTTPServer(('127.0.0.1', 0), Handler)
    server.handle_error = lambda *_: None         # clients that are killed or stopped close their connections
    server.content, server.asked, server.lock, server.polite = {}, [], threading.Lock(), True
    server.behaviour = lambda key, number: {}
    threading.Thread(target=server.serve_forever, daemon=True).start()
    server.url = f'http://127.0.0.1:{server.server_address[1]}'
    server.client = dl.s3_client(endpoint_url=server.url)
    yield server
    server.shutdown()
    server.server_close()


def give(server, root, **content):
    "Puts files on the server and into the manifest; their ids."
    server.content.update(content)
    write_manifest(root, [(uid, f's3://bucket/{uid}') for uid in content])
    return list(content)


def test_one_refused_the_rest_goes_on(rogue, tmp_path):
    uids = give(rogue, tmp_path, a=b'a', b=b'b', c=b'c')
    rogue.polite = False
    rogue.behaviour = lambda key, number: dict(status=403, code='AccessDenied') if key == 'b' else {}
    found = table(rogue.client, tmp_path, uids)
    assert found.status.to_dict() == {'a': 'done', 'b': 'failed', 'c': 'done'}
    assert found.reason['b'] == '403 AccessDenied: as programmed' and '14 days' in found.advice['b']


def test_all_refused_is_said_once(rogue, tmp_path):
    uids = give(rogue, tmp_path, **{f'v{i}': b'x' for i in range(30)})
    rogue.polite, rogue.behaviour = False, lambda key, number: dict(status=403, code='AccessDenied')
    with pytest.raises(PermissionError, match=r'(?s)none of 30 files.*403 AccessDenied.*14 days'): table(rogue.client, tmp_path, uids)
    assert files(tmp_path / 'full_scale') == []


@pytest.mark.parametrize('status, code', [(400, 'ExpiredToken'), (403, 'InvalidAccessKeyId'), (403, 'SignatureDoesNotMatch')])
def test_bad_keys_stop_at_once(rogue, tmp_path, status, code):
    uids = give(rogue, tmp_path, **{f'v{i:03}': b'x' for i in range(300)})
    rogue.polite, rogue.behaviour = False, lambda key, number: dict(status=status, code=code)
    with pytest.raises(PermissionError, match=f'(?s){code}.*Get new keys'): table(rogue.client, tmp_path, uids)
    assert len(rogue.asked) < 60                  # of 300


def test_keys_that_expire_on_the_way(rogue, tmp_path):
    uids = give(rogue, tmp_path, **{f'v{i}': b'x' * 100 for i in range(10)})
    rogue.behaviour = lambda key, number: {} if key in ('v0', 'v1', 'v2') else dict(status=400, code='ExpiredToken')
    found = table(rogue.client, tmp_path, uids, workers=1)
    assert found.status.tolist() == ['done'] * 3 + ['failed'] * 7
    assert found.reason['v3'].startswith('400 ExpiredToken') and found.reason['v9'].startswith('not begun: 400 ExpiredToken')
    assert len([1 for _, asked in rogue.asked if asked != 'bytes=0-0']) == 4           # three done, one refused, six not asked


def test_no_keys_at_all(rogue, tmp_path, monkeypatch):
    monkeypatch.delenv('AWS_ACCESS_KEY_ID')
    uids = give(rogue, tmp_path, v=b'x')
    with pytest.raises(PermissionError, match='(?s)Unable to locate credentials.*Get new keys'):
        table(dl.s3_client(endpoint_url=rogue.url), tmp_path, uids)
    assert not rogue.asked


def test_cut_connections_are_resumed(rogue, tmp_path):
    uids = give(rogue, tmp_path, v=BIG)
    rogue.behaviour = lambda key, number: dict(cut=3_000_000) if number < 3 else {}    # the first request asked for the length
    found = table(rogue.client, tmp_path, uids)
    assert found.status['v'] == 'done' and (tmp_path / 'full_scale/v.mp4').read_bytes() == BIG
    starts = [int(asked[6:-1]) for _, asked in rogue.asked[2:]]
    assert len(starts) == 2 and all(start > 0 for start in starts)                     # each went on, none started again


def test_always_cut_fails_and_keeps_the_part(rogue, tmp_path, monkeypatch):
    monkeypatch.setattr(dl, 'download_file', partial(dl.download_file, patience=1))
    uids = give(rogue, tmp_path, bad=BIG, good=b'good')
    cut = lambda number: dict(cut=5_000_000) if number == 1 else dict(status=503, code='SlowDown')        # then nothing more comes
    rogue.behaviour = lambda key, number: cut(number) if key == 'bad' else {}
    found = table(rogue.client, tmp_path, uids)
    assert found.status.to_dict() == {'bad': 'failed', 'good': 'done'} and '503 SlowDown' in found.reason['bad']
    assert files(tmp_path / 'full_scale') == ['bad.mp4.part', 'bad.mp4.part.etag', 'good.mp4']
    rogue.behaviour = lambda key, number: {}
    assert table(rogue.client, tmp_path, uids).status.to_dict() == {'good': 'kept', 'bad': 'done'}
    assert (tmp_path / 'full_scale/bad.mp4').read_bytes() == BIG and rogue.asked[-1][1] not in ('', 'bytes=0-')


def test_stalled_connection(rogue, tmp_path):
    import boto3
    from botocore.config import Config
    client = boto3.client('s3', endpoint_url=rogue.url, config=Config(read_timeout=.5, retries={'mode': 'standard'}))
    rogue.content['v'] = BIG
    rogue.behaviour = lambda key, number: dict(cut=3_000_000, hang=3) if number == 0 else {}
    assert dl.download_file(client, 's3://bucket/v', tmp_path / 'v.mp4') == len(BIG)
    assert (tmp_path / 'v.mp4').read_bytes() == BIG and len(rogue.asked) == 2 and rogue.asked[1][1] > 'bytes=1'


def test_damage_on_the_way(rogue, tmp_path):
    uids = give(rogue, tmp_path, v=BIG)
    rogue.behaviour = lambda key, number: dict(crc32='AAAAAA==') if number == 1 else {}          # S3 says what the content should sum to
    found = table(rogue.client, tmp_path, uids)
    assert found.status['v'] == 'failed' and 'checksum' in found.reason['v'] and files(tmp_path / 'full_scale') == []
    assert table(rogue.client, tmp_path, uids).status['v'] == 'done' and (tmp_path / 'full_scale/v.mp4').read_bytes() == BIG


def test_server_without_ranges(rogue, tmp_path):
    rogue.content['v'] = BIG
    rogue.behaviour = lambda key, number: dict(ranges=False)
    (tmp_path / 'v.mp4.part').write_bytes(bytes(8_000_000))
    (tmp_path / 'v.mp4.part.etag').write_text('"same"')
    assert dl.download_file(rogue.client, 's3://bucket/v', tmp_path / 'v.mp4') == len(BIG)
    assert (tmp_path / 'v.mp4').read_bytes() == BIG


KILLED = """
import sys
from lam_nb.download import download, s3_client
list(download(s3_client(endpoint_url=sys.argv[1]), sys.argv[2], 'full_scale', ['a', 'b', 'c'], workers=2, progress=False))
"""


def run_until(rogue, root, size):
    "Downloads in a process of its own, which is killed when its files have `size` bytes; the parts it left, with what is usable of them."
    folder = root / 'full_scale'
    run = subprocess.Popen([sys.executable, '-c', KILLED, rogue.url, str(root)])
    while sum(p.stat().st_size for p in folder.glob('*.mp4*') if p.suffix != '.etag') < size and run.poll() is None: time.sleep(.002)
    assert run.poll() is None                     # it was still at work
    run.send_signal(signal.SIGKILL)
    run.wait()
    return {p.name[0]: max(p.stat().st_size - STEP, 0) for p in folder.glob('*.part')}


def test_kill_and_resume(rogue, tmp_path):
    content = dict(a=BIG * 2, b=BIG[::-1] * 2, c=BIG[1:] * 2)
    uids, folder = give(rogue, tmp_path, **content), tmp_path / 'full_scale'
    rogue.behaviour = lambda key, number: dict(pause=.02)          # time to be killed in the middle
    parts = {}
    for size in (14_000_000, 24_000_000, 46_000_000, None):
        begin = len(rogue.asked)
        if size: left = run_until(rogue, tmp_path, size)
        else: assert set(table(rogue.client, tmp_path, uids).status) == {'done', 'kept'}
        asked = {key: asked for key, asked in rogue.asked[begin:] if asked != 'bytes=0-0'}
        for key, start in parts.items(): assert asked[key] == (f'bytes={start}-' if start else '')       # each went on
        for path in folder.glob('*.mp4'): assert path.read_bytes() == content[path.stem]                 # whole or absent
        parts = left
        assert any(parts.values())
    assert files(folder) == ['a.mp4', 'b.mp4', 'c.mp4']


def test_closing_stops_the_threads(rogue, tmp_path):
    uids = give(rogue, tmp_path, small=b'x', big=BIG * 3)
    rogue.behaviour = lambda key, number: dict(pause=.2 * (key == 'big'))              # eleven seconds
    start, rows = time.monotonic(), dl.download(rogue.client, tmp_path, 'full_scale', uids, progress=False)
    assert next(rows)['uid'] == 'small'
    time.sleep(.5)
    rows.close()
    assert time.monotonic() - start < 4 and files(tmp_path / 'full_scale') == ['big.mp4.part', 'big.mp4.part.etag', 'small.mp4']


def test_interrupt(rogue, tmp_path):
    give(rogue, tmp_path, a=BIG * 4, b=BIG * 4, c=BIG)
    rogue.behaviour = lambda key, number: dict(pause=.1)           # seven seconds
    folder = tmp_path / 'full_scale'
    run = subprocess.Popen([sys.executable, '-c', KILLED, rogue.url, str(tmp_path)], stderr=subprocess.PIPE)
    while not any(p.stat().st_size > 1_000_000 for p in folder.glob('*.part')): time.sleep(.01)
    run.send_signal(signal.SIGINT)
    assert 'KeyboardInterrupt' in run.communicate(timeout=4)[1].decode() and run.returncode == -signal.SIGINT
    assert files(folder) == [name for uid in 'ab' for name in (f'{uid}.mp4.part', f'{uid}.mp4.part.etag')]


def test_no_network(tmp_path):
    client = dl.s3_client(endpoint_url=f'http://127.0.0.1:{free_port()}')
    write_manifest(tmp_path, [(f'v{i}', f's3://bucket/v{i}') for i in range(50)])
    with pytest.raises(ConnectionError, match='(?s)none of 50 files.*Could not connect.*Check the network'):
        table(client, tmp_path, [f'v{i}' for i in range(50)])


def test_one_bucket_unreachable(rogue, tmp_path, monkeypatch):
    from botocore.exceptions import EndpointConnectionError
    asked, real = [], dl.object_size

    def size(client, url):
        asked.append(url)
        if url.startswith('s3://away/'): raise EndpointConnectionError(endpoint_url='https://away')
        return real(client, url)
    monkeypatch.setattr(dl, 'object_size', size)
    rogue.content['here'] = b'here'
    write_manifest(tmp_path, [*[(f'v{i}', f's3://away/v{i}') for i in range(100)], ('here', 's3://bucket/here')])
    found = table(rogue.client, tmp_path, [*(f'v{i}' for i in range(100)), 'here'])
    assert found.status['here'] == 'done' and (found.status.drop('here') == 'failed').all()
    assert found.reason['v99'].startswith('Could not connect') and len(asked) < 30     # the bucket is not asked a hundred times


def test_disk_full(rogue, tmp_path, monkeypatch):
    uids = give(rogue, tmp_path, big=BIG, small=b'small')
    monkeypatch.setattr(dl.shutil, 'disk_usage', lambda path: SimpleNamespace(free=1_000_000))
    found = table(rogue.client, tmp_path, uids)
    assert found.status.to_dict() == {'big': 'failed', 'small': 'done'}
    assert found.reason['big'] == 'no space: 9,000,000 bytes to come, 1,000,000 free' and 'Free some space' in found.advice['big']
    assert files(tmp_path / 'full_scale') == ['small.mp4']


def test_disk_full_on_the_way(rogue, tmp_path, monkeypatch):
    real, limit = dl._to_disk, 5_000_000

    def full(file):
        if real(file) > limit: raise OSError(28, 'No space left on device')
        return file.tell()
    monkeypatch.setattr(dl, '_to_disk', full)
    uids = give(rogue, tmp_path, big=BIG, small=b'small')
    found = table(rogue.client, tmp_path, uids)
    assert found.status.to_dict() == {'big': 'failed', 'small': 'done'} and 'No space left' in found.reason['big']
    monkeypatch.setattr(dl, '_to_disk', real)
    assert table(rogue.client, tmp_path, uids).status.to_dict() == {'small': 'kept', 'big': 'done'}
    assert (tmp_path / 'full_scale/big.mp4').read_bytes() == BIG


def test_unwritable_place_and_another_run(rogue, tmp_path):
    uids = give(rogue, tmp_path, folder=b'x', busy=b'x', good=b'x')
    (tmp_path / 'full_scale/folder.mp4.part').mkdir()
    with open(tmp_path / 'full_scale/busy.mp4.part', 'ab') as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        found = table(rogue.client, tmp_path, uids)
    assert found.status.to_dict() == {'folder': 'failed', 'busy': 'failed', 'good': 'done'}
    assert 'another process' in found.reason['busy'] and 'folder' in found.reason['folder']
    assert table(rogue.client, tmp_path, ['busy']).status['busy'] == 'done'


def test_a_manifest_that_another_process_fetches_is_awaited(rogue, tmp_path, monkeypatch):
    tries = []
    def busy_twice(client, url, path, patience):
        tries.append(url)
        if len(tries) < 3: raise dl._InUse('theirs')
        path.write_text('here')
    monkeypatch.setattr(dl, 'download_file', busy_twice)
    (tmp_path / 'clips').mkdir()
    assert dl.fetch_manifest(rogue.client, tmp_path, 'clips').read_text() == 'here' and len(tries) == 3


def test_progress_in_megabytes(rogue, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(dl.Progress, '_pause', lambda self: 0)
    monkeypatch.delenv('JPY_SESSION_NAME', raising=False)
    uids = give(rogue, tmp_path, a=BIG, b=BIG[:5_000_000])
    rogue.behaviour = lambda key, number: dict(pause=.1)
    (tmp_path / 'full_scale/a.mp4.part').write_bytes(BIG[:STEP + 2_000_000])
    (tmp_path / 'full_scale/a.mp4.part.etag').write_text('"same"')
    assert len(list(dl.download(rogue.client, tmp_path, 'full_scale', uids))) == 2
    lines = capsys.readouterr().out.splitlines()
    assert any(re.search(r'downloading full_scale: \d+/14 MB, [\d.]+ MB/s, \d s, \d s left', line) for line in lines), lines
    assert int(re.search(r': (\d+)/14', lines[0])[1]) >= 2 and '14/14 MB' in lines[-1] and lines[-1].endswith('2 of 2 files')


# Without a server

MANIFESTS = {
    'quoted': ('"video_uid","canonical_s3_location"', '"v","s3://bucket/v"'),
    'single quotes and blanks': (" video_uid , 'canonical_s3_location'", " 'v' , s3://bucket/v "),
    'capitals': ('Video_UID,Canonical_S3_Location', 'v,s3://bucket/v'),
    'byte order mark': ('\ufeffvideo_uid,canonical_s3_location', 'v,s3://bucket/v'),
    's3_path only': ('video_uid,x,s3_path', 'v,1,s3://bucket/v'),
    'canonical empty': ('video_uid,canonical_s3_location,s3_path', 'v,,s3://bucket/v'),
    'canonical first': ('video_uid,s3_path,canonical_s3_location', 'v,s3://other/v,s3://bucket/v'),
    'unquoted list': ('video_uid,benchmarks,canonical_s3_location,x', 'v,[EM,AV,FHO],s3://bucket/v,1'),
    'uid with .mp4': ('video_uid,canonical_s3_location', 'v.mp4,s3://bucket/v'),
    'file_uid': ('video_uid,file_uid,canonical_s3_location', ',v,s3://bucket/v'),
    'windows line ends': ('video_uid,canonical_s3_location\r', 'v,s3://bucket/v\r'),
    'blank lines': ('video_uid,canonical_s3_location\n\n', ',\nv,s3://bucket/v\n'),
}


@pytest.mark.parametrize('name', MANIFESTS)
def test_odd_manifests(tmp_path, name):
    (tmp_path / 'manifest.csv').write_bytes('\n'.join(MANIFESTS[name]).encode())
    row = dl.load_manifests(tmp_path, 'full_scale').iloc[0]
    assert (row.uid, row.url) == ('v', 's3://bucket/v')


def test_kinds_of_manifests(tmp_path):
    write_manifest(tmp_path, [('v', 's3://b-v/v')], 'csv/manifest.csv')
    write_manifest(tmp_path, [('c1', 'v', 's3://b-c/c1')], 'v2/clips/manifest.csv', 'exported_clip_uid,parent_video_uid,s3_path')
    write_manifest(tmp_path, [('c2', 's3://b-c/c2')], 'clips/manifest.csv', 'video_uid,s3_path')          # recognised by its folder
    write_manifest(tmp_path, [('v', 's3://other/v'), ('w', 's3://b-v/w')], 'manifest.csv')
    assert dl.load_manifests(tmp_path, 'clips').uid.tolist() == ['c1', 'c2']
    videos = dl.load_manifests(tmp_path, 'full_scale').set_index('uid')
    assert videos.url.to_dict() == {'v': 's3://b-v/v', 'w': 's3://b-v/w'}              # the first of two counts
    assert videos['where']['w'] == f'{tmp_path}/manifest.csv, line 3'
    with pytest.raises(ValueError, match="kind 'frames' is unknown"): dl.load_manifests(tmp_path, 'frames')


@pytest.mark.parametrize('content, message', [
    (b'', 'columns are none'), (b'\xff\xfe\0v', 'no CSV file'), (b'a,b\n1,2\n', 'columns are a, b'),
    (b'video_uid,canonical_s3_location\n"' + b'x' * 200_000, 'no CSV file')])
def test_broken_manifests(tmp_path, content, message):
    (tmp_path / 'manifest.csv').write_bytes(content)
    with pytest.raises(ValueError, match=message): dl.read_manifest(tmp_path / 'manifest.csv')


def test_sample_needs_its_videos(sample):
    assert len(dl.split_uids(sample, ['train', 'val'], 'clips')) == 4
    videos = dl.split_uids(sample, ['train', 'val'], 'full_scale')
    assert set(videos) <= set(dl.load_manifests(sample, 'full_scale').uid) and len(set(videos)) == len(videos) > 0


def test_without_boto3(monkeypatch):
    monkeypatch.setitem(sys.modules, 'boto3', None)
    with pytest.raises(ImportError, match=r"pip install 'lam_nb\[s3\]'"): dl.s3_client()


def test_profiles(monkeypatch, tmp_path):
    (tmp_path / 'credentials').write_text('[ego4d]\naws_access_key_id = made\naws_secret_access_key = up\n')
    monkeypatch.setenv('AWS_SHARED_CREDENTIALS_FILE', str(tmp_path / 'credentials'))
    assert dl.s3_client('ego4d')._request_signer._credentials.access_key == 'made'
    with pytest.raises(PermissionError, match='known profiles: ego4d'): dl.s3_client('other')
    monkeypatch.setenv('AWS_PROFILE', 'gone')
    with pytest.raises(PermissionError, match='(gone)'): dl.s3_client()


def test_a_foreign_file_among_the_manifests_is_skipped(tmp_path):
    write_manifest(tmp_path, [('v', 's3://ego/v')])
    (tmp_path / 'manifest.csv').write_text('a list of something else')
    assert dl.load_manifests(tmp_path, 'full_scale').uid.tolist() == ['v']
    (tmp_path / 'full_scale/manifest.csv').unlink()
    with pytest.raises(ValueError, match='manifest.csv'): dl.load_manifests(tmp_path, 'full_scale')
