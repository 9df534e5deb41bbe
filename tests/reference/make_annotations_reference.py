"""Writes annotations.json, a small annotation file full of oddities, and annotations_rows.csv, what the official code makes of it.

    python tests/reference/make_annotations_reference.py CHECKOUT

CHECKOUT is a clone of EGO4D/social-interactions, branch lam. Columns of the rows, without header: clip, frame, x1, y1, x2, y2,
track, label, and 1 where the row is a sample at stride 3 and at stride 13. The official code needs scipy, opencv and torch, all of
them in this project's environment.
"""

import csv, json, math, sys, tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent


def box(frame, x, y, width=31.7, height=40.3):
    return dict(x=x, y=y, width=width, height=height, frame=frame, video_frame=frame + 1000, clip_frame=None)


def wander(frames, x, y, size=33.3):
    "Boxes along a crooked way whose coordinates have no short binary form."
    return [box(f, x + 37.1 * math.sin(f / 11.3) + f / 7, y - 21.7 * math.cos(f / 5.9), size + f / 13, size * 1.21) for f in frames]


def person(person_id, wearer=False, **tracks):
    return dict(
        person_id=person_id,
        camera_wearer=wearer,
        voice_segments=[],
        tracking_paths=[dict(track_id=k, track=v, suspect=False, unmapped_frames_count=0, unmapped_frames=[]) for k, v in tracks.items()],
    )


def looks(who, start, end, at_me=False):
    return dict(person=who, target=None, is_at_me=at_me, start_frame=start, end_frame=end, start_time=start / 30, end_time=end / 30)


def annotations():
    "One video a clip; every clip has a looking segment with a person, because the official code needs one."
    wearer = person('0', wearer=True)
    sparse = [40, 41, 44, 60, 61, 62, 75, 110, 160, 161, 190, 222]
    clips = {
        'sparse-unsorted': [
            [
                wearer,
                person('1', track_1=wander(sparse, 80.3, 50.9)[::-1], track_10=wander(range(230, 251, 5), 3.3, 3.1)),
                person('2', track_2=wander(range(1, 40), 210.7, 90.1)[::2] + wander(range(2, 40), 210.7, 90.1)[::2]),
            ],
            [looks('1', 50, 70), looks('1', 65, 80, True), looks('2', 0, 0), looks('2', 39, 900), looks('1', 222, 222), looks('2', 7, 3)],
        ],
        'edges': [
            [
                wearer,
                person('1', track_1=wander(range(5, 30), -9.7, -3.3), track_2=[box(f, -3, 7, 20, 24) for f in range(3, 9)]),
                person(
                    '2',
                    track_3=[box(0, 5.0, 5.0), box(4, 5.1, 5.2), box(5, 9.9, 9.0, 0.0), box(6, 8.0, 8.0, 5.0, -4.0), box(9, 7.3, 6.1)],
                    track_4=[box(11, 3, 3, 10, 12), box(14, 9, 0, 10, 13)],
                    visual_anchor_2=[box(0, 1.0, 1.0)],
                    unusable=[box(3, 1.0, 1.0, 0.0, 0.0)],
                ),
                person('', nobody=wander(range(3, 9), 50.1, 50.2)),
                person('-1', track_9=wander([8, 8 + 13, 8 + 26], 60.3, 60.4)),
            ],
            [
                looks('1', 10, 12),
                looks('', 1, 9),
                looks(None, 1, 99),
                looks('7', 2, 90),
                looks('0', 1, 20),
                looks('-1', 9, 20, True),
                looks('2', 0, 11),
            ],
        ],
        'quoted': [
            [wearer, person("'1'", track_1=wander(range(20, 32), 111.1, 55.5), alone=[box(17, 12.34, 56.78)])],
            [looks("'1'", 25, 27)],
        ],
        'rounding': [
            [wearer, person('1', track_1=[box(2, 270.37, 260.11, 700.93, 680.7), box(90, 390.71, 381.83, 540.19, 555.3)])],
            [looks('1', 80, 95)],
        ],
        'nobody-named': [[wearer, person('1', track_1=wander(range(2, 12, 3), 77.7, 44.4))], [looks(None, 0, 30)]],
        'twice': [
            [
                wearer,
                person(
                    '1',
                    track_1=[box(1, 10.1, 10.0), box(5, 20.2, 11.0), box(5, 30.3, 12.0), box(9, 50.5, 13.0)],
                    track_2=[box(1, 10.1, 10.0), box(2, 20.2, 11.0), box(2, 30.3, 12.0), box(4, 50.5, 13.0)],
                    track_3=[box(6, 10.1, 10.0), box(6, 20.2, 11.0)],
                ),
            ],
            [looks('1', 4, 5)],
        ],
    }
    make = lambda uid, persons, looking: dict(
        clip_uid=uid,
        video_uid=f'video-{uid}',
        clip_start_frame=0,
        clip_end_frame=300,
        valid=True,
        camera_wearer=None,
        persons=persons,
        social_segments_looking=looking,
        social_segments_talking=None,
    )
    return dict(
        date='',
        version='1',
        description='made up',
        videos=[dict(video_uid=f'video-{u}', split='train', clips=[make(u, *c)]) for u, c in clips.items()],
    )


def official_rows(checkout, folder):
    "Let the official code prepare annotations.json and list its rows, sorted by clip, track and frame."
    sys.path[:0] = [str(checkout), str(checkout / 'scripts')]
    from dataset.data_loader import make_dataset
    from get_json import get_json
    from get_lam_result import get_lam_result

    source, tracks, looking, listed = HERE / 'annotations.json', folder / 'tracks', folder / 'looking', folder / 'train.list'
    get_json(source, str(tracks))
    get_lam_result(source, str(looking))
    listed.write_text(''.join(f"{c['clip_uid']}\n" for v in json.loads(source.read_text())['videos'] for c in v['clips']))
    samples = {s: make_dataset(str(listed), str(tracks), str(looking), stride=s) for s in (3, 13)}
    chosen = {s: set(keys) for s, (_, keys) in samples.items()}
    rows = [
        [uid, int(f), *map(float, b), track, label, *(int(i in chosen[s]) for s in chosen)]
        for i, (uid, track, f, b, label) in enumerate(samples[3][0])
    ]
    return sorted(rows, key=lambda r: (r[0], r[6], r[1]))  # stable: of a frame boxed twice the order stays


if __name__ == '__main__':
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    (HERE / 'annotations.json').write_text(json.dumps(annotations(), indent=None) + '\n')
    with tempfile.TemporaryDirectory() as tmp, open(HERE / 'annotations_rows.csv', 'w', newline='') as f:
        rows = official_rows(Path(sys.argv[1]).resolve(), Path(tmp))
        csv.writer(f, lineterminator='\n').writerows(rows)
    print(len(rows), 'rows')
