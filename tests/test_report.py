"""What a report promises: one file with everything in it, nothing cut off, numbers that stand for what they say."""

import base64
import io
import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import cv2
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from mma_mrnnet.faces.strips import FaceSnapshot
from mma_mrnnet.model.labels import affect_names
from mma_mrnnet.prediction import NO_FACE, VideoPrediction, predict_video
from mma_mrnnet.prediction.result import Evidence
from mma_mrnnet.report import figures, page
from mma_mrnnet.report.figures import MOST_COLUMNS, TimeLine
from mma_mrnnet.report.page import comparison_page, report_page, write_page
from mma_mrnnet.report.picture import draw_comparison, draw_prediction
from mma_mrnnet.video.writing import write_video

TARGETS = ("Joy", "Fear", "Empathic-Pain")


def made(times_s, face=None, targets=TARGETS, read=None, **others):
    """A prediction of frames at these times; those in `read` (numbers; None: all with a face) went into the result."""
    times_s = np.asarray(times_s, float)
    face = np.ones(len(times_s), bool) if face is None else np.asarray(face, bool)
    frames = pd.DataFrame(
        {"file": "clips/a.mp4", "track": 0, "frame": np.arange(len(times_s)), "time_s": times_s}
    )
    frames["face"] = face
    for place, name in enumerate(affect_names()):
        frames[name] = np.where(face, 0.1 + 0.8 * (place % 5) / 5, np.nan)
    read = np.flatnonzero(face) if read is None else np.asarray(read, int)
    base = pd.DataFrame({"frame": read, "time_s": times_s[read]})
    columns = {
        name: np.linspace(-1, 1, len(read)) * (place + 1) for place, name in enumerate(targets)
    }
    settings = {
        "file": "clips/a.mp4",
        "intensities": {name: 0.2 + 0.3 * place for place, name in enumerate(targets)},
        "duration_s": float(times_s[-1] + (times_s[1] - times_s[0] if len(times_s) > 1 else 0.5)),
        "calibrated": True,
        "simulated": True,
        "strip": [FaceSnapshot(0.0, 0, np.full((32, 32, 3), 90, np.uint8), 0.9)],
    }
    running = base[["time_s"]].assign(**dict.fromkeys(targets, 0.5))
    evidence = Evidence(base.assign(**columns), dict.fromkeys(targets, 0.0), running)
    settings = {"explain": lambda: evidence, **settings}
    return VideoPrediction(**{**settings, "frames": frames, **others})


def faceless(**others):
    nothing = dict.fromkeys(TARGETS, float("nan"))
    none = pd.DataFrame(columns=["frame", "time_s", *TARGETS])
    settings = {
        "error": NO_FACE,
        "intensities": nothing,
        "explain": lambda: Evidence(moments=none, running=none),
        "strip": [],
    }
    return made([0, 0.5, 1.0], face=[False] * 3, **{**settings, **others})


class Tags(HTMLParser):
    """Every tag with its attributes, all text, and whether each tag that opens closes."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.texts, self.open = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "rect", "line", "polyline"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        if tag not in ("rect", "line", "polyline"):
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


def attribute(row, kind, name):
    """The values of an attribute of all marks of a kind."""
    return [getattr(mark, name) for mark in row.marks if mark.kind == kind]


# ---- the page as a whole


@pytest.mark.parametrize(
    "text",
    [
        report_page([made([0, 0.5, 1])]),
        report_page([made([0, 0.5], track=0), made([0, 0.5], track=1), faceless(file="b.mp4")]),
        comparison_page(made([0, 0.5]), faceless(file="b.mp4")),
    ],
    ids=["one", "several", "pair"],
)
def test_a_page_is_whole_and_asks_for_nothing_outside_itself(text):
    tags = Tags(text)
    assert tags.open == []
    assert not {"script", "link", "iframe", "object", "base"} & {tag for tag, _ in tags.tags}
    sources = [
        value
        for _, attrs in tags.tags
        for name, value in attrs.items()
        if name in ("src", "href", "srcset")
    ]
    assert all(source.startswith("data:image/jpeg;base64,") for source in sources)
    assert re.findall(r"url\(([^)]*)\)", text) == ["#mma-gap"]
    assert "@import" not in text
    assert not [name for _, attrs in tags.tags for name in attrs if name.startswith("on")]


def test_names_of_files_and_targets_are_text_and_never_markup():
    name = "x/<script>alert(1)</script>&.mp4"
    target = '<img src=x onerror="y">'
    one = made([0, 0.5], file=name.replace("/<", "<").replace("</", "<"), targets=(target,))
    for text in (report_page([one]), comparison_page(one, replace(one, file="b.mp4"))):
        tags = Tags(text)
        assert "script" not in {tag for tag, _ in tags.tags}
        assert target in tags.texts
        assert any("<script>" in part for part in tags.texts)
        assert all(
            attrs.get("src", "data:").startswith("data:")
            for tag, attrs in tags.tags
            if tag == "img"
        )


def test_a_long_name_of_a_target_stands_there_whole():
    long = "Amusement that the participant reported after the second half of the film"
    text = report_page([made([0, 0.5], targets=(long, "Fear"))])
    assert text.count(f"<span>{long}</span>") == 3  # bar, moments, estimate so far
    style = page.render_style()
    assert not re.search(r"text-overflow|white-space:nowrap[^}]*text-align:right", style)


def test_a_clip_without_a_face_says_so_and_shows_no_bar_and_no_figure():
    text = report_page([faceless(warning="skipped 2 damaged packets")])
    assert NO_FACE in text
    assert "skipped 2 damaged packets" in text
    assert '<div class="mma-bar"' not in text
    assert "<svg viewBox" not in text


def test_a_file_that_could_not_be_read_is_a_section_with_its_reason():
    empty = pd.DataFrame(columns=["file", "track", "frame", "time_s", "face"]).astype(
        {"face": bool}
    )
    nothing = dict.fromkeys(TARGETS, float("nan"))
    broken = VideoPrediction(
        "b.mp4", nothing, empty, duration_s=float("nan"), error="is text, not a video"
    )
    text = report_page([made([0, 0.5]), broken])
    assert "is text, not a video" in text
    assert text.count("<h1>") == 2
    assert "<title>2 clips</title>" in text
    assert "nan" not in re.sub(r"base64,[^\"]*", "", text).lower()


def test_a_page_of_nobody_is_refused():
    with pytest.raises(ValueError, match="at least one prediction"):
        report_page([])


def test_people_of_one_clip_stand_below_each_other_under_their_numbers():
    text = report_page([made([0, 0.5], track=0), made([0, 0.5], track=1)])
    assert re.findall(r'<h2 class="who">(.*?)</h2>', text) == ["Person 0", "Person 1"]
    assert text.count("<h1>") == 1
    assert "Person 0" not in report_page([made([0, 0.5])])


def test_what_must_stand_beside_the_numbers_stands_there():
    text = report_page([made([0, 0.5], calibrated=False, warning="rests on 2 frames")])
    for note in (
        "rests on 2 frames",
        "learnt from a simulator",
        "relative within the clip",
        "not calibrated",
    ):
        assert note in text


def test_bars_are_ranked_only_where_targets_compare():
    names = r'<div class="mma-row mma-bars"><span>(.*?)</span>'
    assert re.findall(names, report_page([made([0, 0.5])])) == [
        "Empathic-Pain",
        "Fear",
        "Joy",
    ]  # 0.8, 0.5, 0.2
    assert re.findall(names, report_page([made([0, 0.5], calibrated=False)])) == list(TARGETS)


def test_a_bar_is_as_long_as_its_number_and_the_dashed_mark_is_the_number_without_calibration():
    before = {"Joy": 0.75, "Fear": 0.5, "Empathic-Pain": 1.0}
    text = report_page([made([0, 0.5], neutral_s=(0.0, 0.5), uncorrected=before)])
    assert re.findall(r'<i style="width:([\d.]+)%">', text) == ["80.0", "50.0", "20.0"]
    assert re.findall(r'<u style="left:([\d.]+)%"', text) == ["100.0", "50.0", "75.0"]
    assert "without the neutral calibration" in text
    assert "dashed" not in report_page([made([0, 0.5])]).split("</style>")[1]


def test_a_page_of_two_clips_warns_where_their_numbers_do_not_compare():
    one, other = made([0, 0.5]), made([0, 0.5, 1], file="clips/b.mp4")
    text = comparison_page(one, other)
    assert "relative within each clip" in text
    assert "<title>a.mp4 and b.mp4</title>" in text
    # Below each other, as on a phone, each part says whose it is.
    assert re.findall(r'<p class="which">(.*?)</p>', text) == ["a.mp4", "b.mp4"] * 2
    absolute = [replace(each, relative=False) for each in (one, other)]
    assert "relative within each clip" not in comparison_page(*absolute)
    with pytest.raises(ValueError, match=r"b\.mp4: has other targets than clips/a\.mp4: Calm"):
        comparison_page(one, made([0], file="b.mp4", targets=("Calm",)))


def test_clips_of_one_name_are_told_apart_by_their_folders():
    one, other = made([0, 0.5], file="before/a.mp4"), made([0, 0.5], file="after/a.mp4")
    assert page.pair_names(one, other) == ("before/a.mp4", "after/a.mp4")
    assert page.pair_names(one, replace(other, file="after/b.mp4")) == ("a.mp4", "b.mp4")


@pytest.mark.parametrize(
    "count", [24, 54_000], ids=["12 s at 2 a second", "30 minutes at 30 a second"]
)
def test_a_page_stays_small_however_long_the_clip(count):
    long = count > 1000
    times = np.arange(count) / (30 if long else 2)
    crops = (
        np.random.default_rng(0).integers(0, 255, (12, 112, 112, 3)).astype(np.uint8)
    )  # noise compresses worst
    strip = [FaceSnapshot(time_s, 0, crop, 0.9) for time_s, crop in zip(times, crops, strict=False)]
    seven = tuple(f"Target {number}" for number in range(7))
    prediction = made(times, read=np.arange(140) * 60 if long else None, targets=seven, strip=strip)
    prediction.frames[list(affect_names())] = np.random.default_rng(0).random(
        (count, len(affect_names()))
    )
    text = report_page([prediction])
    pictures = sum(map(len, re.findall(r"base64,[^\"]*", text)))
    assert len(text) - pictures < (900_000 if long else 200_000)
    assert len(TimeLine.of(prediction).edges_s) == min(count, MOST_COLUMNS) + 1


def test_a_page_is_written_whole_or_not_at_all(tmp_path):
    with pytest.raises(ValueError, match=r"a page is written as \.html; got '\.txt'"):
        write_page("text", tmp_path / "a.txt")
    (tmp_path / "a.html").mkdir()
    with pytest.raises(OSError, match=r"a\.html"):
        write_page("text", tmp_path / "a.html")
    assert [path.name for path in tmp_path.iterdir()] == ["a.html"]
    assert write_page("é", tmp_path / "b.html").read_text("utf-8") == "é"


# ---- the time line


def test_a_column_is_the_mean_of_its_frames_and_unknown_where_none_has_a_number(monkeypatch):
    monkeypatch.setattr(figures, "MOST_COLUMNS", 2)
    line = TimeLine.of(made([0, 1, 2, 3]))  # 4 s in 2 columns of 2 s
    assert line.edges_s.tolist() == [0, 2, 4]
    assert line.means(np.array([1.0, 3.0, np.nan, 5.0])).tolist() == [2, 5]
    assert np.isnan(line.means(np.array([1.0, 3.0, np.nan, np.nan]))[1])


@pytest.mark.parametrize("duration_s", [0.04, 1, 2.49, 3, 6, 12, 59, 61, 299, 1800, 5400, 36_000])
def test_the_axis_has_few_enough_marks_for_a_phone(duration_s):
    line = TimeLine(duration_s, np.array([0, duration_s]), np.zeros(1, int))
    marks = line.ticks()
    assert 1 <= len(marks) <= figures.MOST_TICKS
    places = [mark.percent for mark in marks]
    # 390 px leave about 240 for the axis, and `1:30:00` of 12 px takes 40: a sixth.
    assert min(np.diff(places), default=100) > 100 / 6 - 0.1 or len(marks) == 1
    assert len({mark.text for mark in marks}) == len(marks)


def test_times_are_said_as_people_say_them():
    said = TimeLine(1, np.array([0, 1]), np.zeros(1, int)).format
    assert [said(value) for value in (0, 2.533, 59.97, 65, 3605)] == [
        "0 s",
        "2.5 s",
        "1:00",
        "1:05",
        "1:00:05",
    ]


def test_a_table_without_time_stamps_counts_frames():
    table = made([0, 1, 2, 3], duration_s=float("nan"))
    table.frames["time_s"] = table.moments["time_s"] = table.running["time_s"] = np.nan
    text = report_page([table])
    assert "frame 2" in text
    assert not re.search(r"\d s<", text.split("What the model saw")[1].split("</figure>")[1])
    moments = figures.draw_moments(table, TimeLine.of(table))
    assert attribute(moments[0], "up", "left") == [500.0, 750.0]


def test_a_table_of_other_columns_has_no_affect_to_show():
    table = made([0, 0.5])
    table.frames = table.frames.drop(columns=list(affect_names()))
    text = report_page([table])
    assert "Which moments" in text
    assert not re.search("Valence and arousal|Expressions|Action units", text)


def test_where_no_frame_has_a_face_every_row_over_time_is_hatched():
    prediction = made([0, 1, 2, 3], face=[True, False, False, True])
    # Columns of a quarter each, the second and third of which have no face.
    gaps = '<rect class="gap" x="{}" width="250.0" y="0"'
    rows = page.render_timeline(prediction).split("<svg ")[1:]
    assert len(rows) == 2 * len(TARGETS) + len(affect_names())
    for row in rows:
        assert row.count('class="gap"') == 2
        assert gaps.format(250.0) in row
        assert gaps.format(500.0) in row


def test_a_mark_ends_where_the_face_is_gone():
    # Native frames: one was read at 0 s, the face is gone from 0.2 s on and back at 0.8, the next is read at 1 s.
    times = np.arange(12) / 10
    face = (times < 0.15) | (times > 0.75)
    prediction = made(times, face=face, read=[0, 10])
    assert np.allclose(TimeLine.of(prediction).stretches(prediction), [(0.0, 0.2), (1.0, 1.2)])


def test_moments_of_all_targets_share_one_scale_and_their_sign_is_their_side():
    prediction = made([0, 1, 2])  # Joy -1 0 1, Fear -2 0 2, Empathic-Pain -3 0 3
    joy, fear, pain = figures.draw_moments(prediction, TimeLine.of(prediction))
    assert attribute(pain, "down", "height") == [18.0]  # the largest
    assert attribute(fear, "down", "height") == [12.0]
    assert attribute(joy, "down", "height") == [6.0]
    assert attribute(joy, "up", "top") == [20.0, 14.0]  # nothing, then 6 above the zero line at 20
    assert "the tallest mark is 3.00" in page.render_timeline(
        prediction
    )  # in words too: two clips side by side have scales of their own


def test_a_model_that_cannot_tell_what_a_frame_added_says_so():
    prediction = made([0, 1])
    prediction.moments[list(TARGETS)] = np.nan
    assert "cannot tell" in page.render_timeline(prediction)


def test_a_unit_that_no_label_reached_is_marked():
    rows = figures.draw_heat(
        made([0, 1], prior_only=("AU11",)), TimeLine.of(made([0, 1])), ["AU11", "AU12"]
    )
    assert [row.hint for row in rows] == ["prior only", "lip corner puller"]
    text = page.render_timeline(made([0, 1], prior_only=("AU11",)))
    assert "<small>prior only</small>" in text


def test_the_film_strip_is_the_crops_themselves():
    crop = np.zeros((32, 32, 3), np.uint8)
    crop[..., 0] = 200  # red
    text = page.render_strip(made([0], strip=[FaceSnapshot(1.5, 3, crop, 0.9)]))
    data = base64.b64decode(re.search(r"base64,([^\"]+)", text)[1])
    shown = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    assert np.abs(shown.astype(int) - crop).max() < 12
    assert "1.5 s" in text


# ---- colours


def palettes():
    light, dark = re.findall(r"\{(--ink[^}]*)\}", page.render_style())
    for text in (light, dark):
        yield {name: _rgb(colour) for name, colour in re.findall(r"--(\w+):(#[0-9a-f]+)", text)}


def _rgb(colour):
    digits = colour[1:] if len(colour) == 7 else "".join(2 * digit for digit in colour[1:])
    return np.array([int(digits[place : place + 2], 16) for place in (0, 2, 4)]) / 255


def linear(rgb):
    """Linear light of sRGB (IEC 61966-2-1)."""
    return np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)


def contrast(one, other):
    """WCAG 2.1 contrast ratio."""
    bright, dark = sorted(
        (linear(colour) @ [0.2126, 0.7152, 0.0722] + 0.05 for colour in (one, other)), reverse=True
    )
    return bright / dark


LAB_WHITE = np.array([0.9505, 1.0, 1.089])
TO_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
SEEN = {
    "normal": np.eye(3),
    # Machado, Oliveira and Fernandes (IEEE TVCG 15(6), 2009), severity 1.0, on linear light.
    "protanopia": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.01182, 0.04294, 0.968881],
    ],
    "tritanopia": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.3039],
    ],
}


def lab(rgb, matrix):
    """CIE L*a*b* of a colour as somebody sees it."""
    x = TO_XYZ @ np.clip(np.array(matrix) @ linear(rgb), 0, 1) / LAB_WHITE
    f = np.where(x > 0.008856, np.cbrt(x), 7.787 * x + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def test_text_and_marks_stand_out_on_what_they_lie_on_light_and_dark():
    for palette in palettes():
        for under in ("back", "card"):
            assert min(contrast(palette[text], palette[under]) for text in ("ink", "soft")) >= 4.5
            assert (
                min(contrast(palette[mark], palette[under]) for mark in ("up", "down", "soft")) >= 3
            )


@pytest.mark.parametrize("matrix", SEEN.values(), ids=SEEN)
def test_the_two_colours_differ_clearly_however_colours_are_seen(matrix):
    for palette in palettes():
        # A difference of 2.3 (CIE76) is what an eye can just tell apart.
        assert np.linalg.norm(lab(palette["up"], matrix) - lab(palette["down"], matrix)) > 40


# ---- pictures


def drawn(path):
    with Image.open(path) as image:
        image.load()
        return image.format, image.size


@pytest.fixture
def shown(monkeypatch):
    """All text of the figures that are saved."""
    from matplotlib.figure import Figure

    texts, save = [], Figure.savefig

    def keep(figure, path):
        save(figure, path)
        texts.extend(
            text.get_text() for text in figure.findobj(lambda part: hasattr(part, "get_text"))
        )

    monkeypatch.setattr(Figure, "savefig", keep)
    return texts


def test_a_picture_shows_the_numbers_and_what_must_stand_beside_them(tmp_path, shown):
    said = {"warning": "rests on 3 frames", "prior_only": ("AU11",)}
    prediction = made([0, 0.5, 1, 1.5], face=[True, True, False, True], **said)
    path = draw_prediction(prediction, tmp_path / "a.png")
    assert drawn(path)[0] == "PNG"
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]
    said = " ".join(shown)
    for text in (
        "a.mp4",
        "0.80",
        "Empathic-Pain",
        "rests on 3 frames",
        "learnt from a simulator",
        "relative within",
    ):
        assert text in said
    assert "AU11 (prior only)" in shown
    assert any("hatched" in text for text in shown)


@pytest.mark.parametrize(
    "prediction",
    [
        faceless(),
        made([0]),
        made([0, 0.5], targets=("$\\frac$", "x" * 90)),
        made([0, 0.5], calibrated=False, strip=[]),
        made([0, 0.5], neutral_s=(0, 0.5), uncorrected=dict.fromkeys(TARGETS, 0.4)),
        replace(made([0, 0.5]), frames=made([0, 0.5]).frames.iloc[:, :5]),
    ],
    ids=["no face", "one frame", "odd names", "uncalibrated", "neutral", "table"],
)
def test_pictures_of_unusual_results_are_drawn(prediction, tmp_path):
    assert drawn(draw_prediction(prediction, tmp_path / "a.png"))[0] == "PNG"


def test_a_picture_of_a_clip_without_a_face_says_so(tmp_path, shown):
    draw_prediction(faceless(), tmp_path / "a.png")
    assert NO_FACE in shown


def test_a_picture_of_two_clips_is_as_wide_as_both(tmp_path, shown):
    one, other = made([0, 0.5]), made([0, 0.5, 1], file="clips/b.mp4")
    _, (width, height) = drawn(draw_comparison(one, other, tmp_path / "a.png"))
    assert width > height
    assert {"a.mp4", "b.mp4"} <= set(shown)
    with pytest.raises(ValueError, match="other targets"):
        draw_comparison(one, made([0], targets=("Calm",)), tmp_path / "b.png")


def test_a_picture_is_a_png_and_a_failed_one_leaves_nothing(tmp_path):
    with pytest.raises(ValueError, match=r"a picture is written as \.png; got '\.jpg'"):
        draw_prediction(made([0]), tmp_path / "a.jpg")
    (tmp_path / "a.png").mkdir()
    with pytest.raises(OSError, match=r"a\.png"):
        draw_prediction(made([0]), tmp_path / "a.png")
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


# ---- a result at home in a notebook


def test_a_result_gives_its_targets_by_name():
    one = made([0, 0.5])
    assert one["Fear"] == 0.5
    with pytest.raises(KeyError, match="'joy' is no target of this model: Joy, Fear"):
        one["joy"]


def test_results_of_equal_numbers_are_equal_and_others_are_not():
    for make in (lambda **others: made([0, 0.5], face=[True, False], **others), faceless):
        assert make() == make()
        assert make() != make(file="b.mp4")
        frames = make().frames.assign(valence=0.25)
        assert make() != replace(make(), frames=frames)
    assert (made([0]) == "a.mp4", made([0]) != 3) == (False, True)


def test_a_result_as_json_holds_every_number_and_null_for_nan():
    one = made([0, 0.5], face=[True, False])
    read = json.loads(one.to_json(), parse_constant=pytest.fail)
    assert read == one.to_dict()
    assert read["intensities"] == {"Joy": 0.2, "Fear": 0.5, "Empathic-Pain": 0.8}
    assert [row["valence"] for row in read["frames"]] == [0.1, None]
    assert [row["face"] for row in read["frames"]] == [True, False]
    assert "learnt from a simulator, not from people's reports" in read["notes"]
    nobody = json.loads(faceless().to_json(), parse_constant=pytest.fail)
    assert (nobody["intensities"]["Joy"], nobody["error"]) == (None, NO_FACE)


def test_a_notebook_shows_the_page_in_its_own_light_or_dark():
    text = made([0, 0.5], file="x<script>alert(1)</script>.mp4")._repr_html_()
    assert Tags(text).open == []
    assert not {"script", "html", "body"} & {tag for tag, _ in Tags(text).tags}
    assert "prefers-color-scheme" not in text
    assert "[data-jp-theme-light=false]" in text
    assert len(text) < 30_000
    assert NO_FACE in faceless()._repr_html_()


def test_a_figure_shows_itself_in_a_notebook_as_the_picture_that_is_saved(tmp_path):
    one = made([0, 0.5])
    shown = Image.open(io.BytesIO(one.plot()._repr_png_()))
    saved = Image.open(one.save(tmp_path / "a.png"))
    assert np.array_equal(np.asarray(shown), np.asarray(saved))


def test_save_writes_what_the_suffix_says(tmp_path):
    one = made([0, 0.5])
    assert one.save(tmp_path / "a.html").read_text("utf-8") == report_page([one])
    assert json.loads(one.save(tmp_path / "a.json").read_text("utf-8")) == one.to_dict()
    for suffix, read in ((".csv", pd.read_csv), (".parquet", pd.read_parquet)):
        table = read(one.save(str(tmp_path / f"a{suffix}")))
        assert list(table) == list(one.to_pandas()) == list(one.summary())
        assert table["Fear"].tolist() == [0.5]
    with pytest.raises(ValueError, match=r"as \.html, \.png, \.json, .*; got '\.xlsx'"):
        one.save(tmp_path / "a.xlsx")
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [
        ".csv",
        ".html",
        ".json",
        ".parquet",
    ]


# ---- from a model


def test_a_page_and_a_picture_of_what_a_model_says(tiny_model, tiny_processor, tmp_path):
    from skimage.data import astronaut

    face = cv2.resize(astronaut()[:256, 96:352], (160, 160), interpolation=cv2.INTER_AREA)
    clip = write_video(tmp_path / "clip.mp4", [face, face, face * 0, face], 2)
    prediction = predict_video(clip, tiny_model, tiny_processor)
    assert prediction.frames["face"].tolist() == [True, True, False, True]
    text = report_page([prediction])
    assert Tags(text).open == []
    assert figures.place_gaps(prediction, TimeLine.of(prediction)) == [(500.0, 250.0)]
    assert text.count("<img") == 3
    assert drawn(draw_prediction(prediction, tmp_path / "clip.png"))[0] == "PNG"
