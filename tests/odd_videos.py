"""Tiny videos that are odd in one way each, made with PyAV alone: what telephones, cameras and old programs write.

Frame number `k` shows a bright square whose place tells `k`: see `number_of`.
"""
import math
import random
import struct
from fractions import Fraction
from itertools import repeat

import av
import numpy as np

CELL = 16                                                        # side of the square that tells a frame's number
CLOCK = 90_000                                                   # ticks a second, of files that are not told otherwise


def squares(count, size=(320, 240), seed=0):
    "Yields `count` RGB images of this size (width, height): fine texture that stays, and the square that moves."
    width, height = size
    ground = np.random.default_rng(seed).integers(20, 130, (height, width, 1), np.uint8).repeat(3, 2)
    columns, rows = width // CELL, height // CELL
    for k in range(count):
        image = ground.copy()
        y, x = k // columns % rows * CELL, k % columns * CELL
        image[y:y + CELL, x:x + CELL] = 250
        yield image


def number_of(image):
    "Which frame an RGB image of `squares` is, modulo the number of places."
    rows, columns = (side // CELL for side in image.shape[:2])
    grey = image[:rows * CELL, :columns * CELL].mean(2)          # (H, W)
    return int(grey.reshape(rows, CELL, columns, CELL).mean((1, 3)).argmax())


def constant(fps, seconds=1.):
    "Exact times of frames at this rate: a number, or a Fraction such as 30000/1001."
    return [Fraction(k) / Fraction(fps) for k in range(round(seconds * fps))]


def uneven(seconds=1.5, seed=1):
    "Times of frames that are 1/60 to 1/10 s apart, no two distances alike."
    draw, times = random.Random(seed), [Fraction(0)]
    while times[-1] < seconds: times.append(times[-1] + Fraction(round(draw.uniform(1 / 60, 1 / 10) * CLOCK), CLOCK))
    return times


def tones(seconds, rate, layout):
    "Yields frames of sound: another tone in each channel, with noise, so that no two places sound alike."
    channels, noise = len(av.AudioLayout(layout).channels), np.random.default_rng(2)
    for at in range(0, round(seconds * rate), 1024):
        t = np.arange(at, min(at + 1024, round(seconds * rate))) / rate
        wave = np.stack([np.sin(2 * math.pi * (300 + 200 * c) * t) for c in range(channels)]) * 8000  # (channels, n)
        wave = (wave + noise.normal(0, 500, wave.shape)).astype(np.int16)
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(wave.T.reshape(1, -1)), 's16', layout)
        frame.sample_rate, frame.pts, frame.time_base = rate, at, Fraction(1, rate)
        yield frame


def _sound(track, seconds, rate, layout, start=0., gap=(0, 0)):
    "Yields the packets of a sound stream that begins at `start` seconds, and has none in the `gap`."
    for frame in tones(seconds, rate, layout):
        if gap[0] <= frame.time < gap[1]: continue
        frame.pts += round(start * rate)
        yield from track.encode(frame)
    yield from track.encode()


def _frames(images, times, pixels, clock):
    "Yields frames to be encoded."
    for image, time in zip(images, times):
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), 'rgb24').reformat(format=pixels)
        frame.pts, frame.time_base = round(time * clock), Fraction(1, clock)
        yield frame


def make_video(path, times=None, images=None, size=(320, 240), codec='libx264', pixels='yuv420p', sound=None, sound_start=0.,
               rate=44_100, layout='stereo', start=0, turns=0, options=None, tags=None, metadata=None, movflags='', small=False,
               cover=False, clock=CLOCK, gap=(0, 0)):
    """Writes a video and returns its path. `times`: of the frames in seconds, 30 a second without it; `images`: upright RGB
    arrays, or the squares; `sound`: a codec's name; `start`, `sound_start`: when each begins; `gap`: from when to when no
    sound is written; `turns`: quarters counterclockwise
    that a player must turn it; `tags`: colour properties; `small`: a smaller video stream comes first; `cover`: cover art last."""
    times = constant(30) if times is None else list(times)
    images = iter(squares(len(times), size) if images is None else images)
    first = np.rot90(next(images), -turns)
    with av.open(str(path), 'w', options=dict(movflags=movflags) if movflags else {}) as out:
        out.metadata.update(metadata or {})
        side = out.add_stream('libx264', rate=30, width=64, height=48, pix_fmt='yuv420p') if small else None
        video = out.add_stream(codec, rate=30, width=first.shape[1], height=first.shape[0], pix_fmt=pixels,
                               options={'g': '12', **(options or {})})
        video.codec_context.time_base = video.time_base = Fraction(1, clock)
        if small: video.disposition, side.disposition = av.stream.Disposition.default, av.stream.Disposition(0)
        for name, value in (tags or {}).items(): setattr(video.codec_context, name, value)
        track = out.add_stream(sound, rate=rate, layout=layout) if sound else None
        if track and sound == 'vorbis': track.codec_context.options = dict(strict='experimental')
        art = _add_cover(out) if cover else None
        packets = _sound(track, float(times[-1]) + 1 / 30, rate, layout, sound_start, gap) if track else iter(())
        upright = (np.rot90(image, -turns) for image in images)
        packet = next(packets, None)
        black = _frames(repeat(np.zeros((48, 64, 3), np.uint8)), times, 'yuv420p', clock)
        for frame in _frames(_chain(first, upright), [t + start for t in times], pixels, clock):
            out.mux(video.encode(frame))
            if side: out.mux(side.encode(next(black)))
            while packet and (packet.pts is None or packet.pts * packet.time_base <= frame.pts * frame.time_base):
                out.mux(packet)
                packet = next(packets, None)
        for stream in filter(None, [side, video]): out.mux(stream.encode())
        for packet in _chain(packet, packets):
            if packet: out.mux(packet)
        if art: out.mux(art.encode(next(_frames([np.full((64, 64, 3), 200, np.uint8)], [0], 'yuvj420p', 30))))
    if turns: set_rotation(path, turns)
    return path


def _chain(first, rest):
    yield first
    yield from rest


def _add_cover(out):
    "A stream for one image that is no part of the film."
    stream = out.add_stream('mjpeg', rate=30, width=64, height=64, pix_fmt='yuvj420p')
    stream.disposition = av.stream.Disposition.attached_pic
    return stream


def set_rotation(path, turns):
    "Sets the flag of the first stream of an MP4: to be turned by so many quarters counterclockwise (the matrix in its tkhd box)."
    data = bytearray(open(path, 'rb').read())
    at = data.index(b'tkhd') + 44
    cos, sin = ((1, 0), (0, -1), (-1, 0), (0, 1))[turns % 4]
    matrix = [cos << 16, sin << 16, 0, -sin << 16, cos << 16, 0, 0, 0, 1 << 30]
    data[at:at + 36] = struct.pack('>9i', *matrix)
    open(path, 'wb').write(data)


def has_encoder(name):
    "Is the encoder there?"
    try: return av.Codec(name, 'w') is not None
    except av.codec.codec.UnknownCodecError: return False


def hdr_video(path, **more):
    "HEVC of 10 bits, tagged as BT.2020 and HLG; needs libx265."
    tags = dict(color_primaries=9, color_trc=18, colorspace=9)
    return make_video(path, codec='libx265', pixels='yuv420p10le', tags=tags, options={'x265-params': 'log-level=none'}, **more)


def sound_only(path):
    "A file with sound and no video stream."
    with av.open(str(path), 'w') as out:
        track = out.add_stream('aac', rate=44_100, layout='mono')
        for packet in _sound(track, .5, 44_100, 'mono'): out.mux(packet)
    return path


def cut_off(source, path, part=.6):
    "The first part of a file."
    data = open(source, 'rb').read()
    open(path, 'wb').write(data[:int(len(data) * part)])
    return path


def damaged(source, path, kind='video', places=(.4, .5)):
    "A copy of which some packets of a kind of stream are noise: those at these places, from 0 to 1."
    data, noise = bytearray(open(source, 'rb').read()), random.Random(3)
    with av.open(str(source)) as container:
        found = [(p.pos, p.size) for p in container.demux(container.streams.best(kind)) if p.size]
    for place in places:
        at, size = found[int(len(found) * place)]
        data[at:at + size] = noise.randbytes(size)
    open(path, 'wb').write(data)
    return path


def resized(path, sizes=((320, 240), (160, 120))):
    "An MPEG-TS whose frames change their size: several videos of 15 frames one after the other."
    with open(path, 'wb') as file:
        for n, size in enumerate(sizes):
            part = make_video(f'{path}.{n}.ts', constant(30, .5), size=size, start=Fraction(3 * n, 5))
            file.write(open(part, 'rb').read())
    return path


def unknown_sound(source, path):
    "A copy whose sound has a codec that no program knows: its four letters in the MP4 are others."
    data = open(source, 'rb').read()
    open(path, 'wb').write(data.replace(b'mp4a', b'apac').replace(b'esds', b'free'))
    return path
