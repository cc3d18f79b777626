"""Store a clip's face crops: images named by frame number, and an index `crops.json`."""

import io
import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from mma_mrnnet.faces.detection import TEMPLATE_SIZE, FaceDetector
from mma_mrnnet.faces.tracks import PeopleFrame, crop_faces, rank_people
from mma_mrnnet.files import replaced_folder
from mma_mrnnet.video.reading import FrameClock, read_frames

INDEX = "crops.json"
METADATA = "metadata.csv"
CROP_FORMAT = 2  # increase it if decoding, detection, tracking or alignment changes crops
FOLLOWED_FPS = 2.0
"""Rate at which people are followed if every frame is stored: that of stage 2."""

ENCODINGS: dict[str, dict[str, Any]] = {
    "jpg": {"format": "JPEG", "quality": 95, "subsampling": 0},
    "png": {"format": "PNG"},
}
"""Pillow's options for a crop; `subsampling` 0 means full colour resolution (4:4:4)."""


class CropError(ValueError):
    """Stored crops that cannot be used; the message starts with the path."""


class OlderCropsError(CropError):
    """Crops stored by an older version, which may show another person."""


@dataclass(frozen=True)
class CropSettings:
    """What determines a video's crops.

    `fps` None searches every frame for faces; `size` is in pixels.
    """

    fps: float | None = FOLLOWED_FPS
    size: int = TEMPLATE_SIZE
    image_format: str = "jpg"

    @property
    def rates(self) -> tuple[float | None, ...]:
        """Rates at which to read a video; people are followed at the first one."""
        return (FOLLOWED_FPS, None) if self.fps is None else (self.fps,)

    def name_of(self, number: int) -> str:
        """Return the file name of a frame's crop; frames are numbered from 1."""
        return f"{number:05d}.{self.image_format}"


@dataclass(frozen=True)
class CropIndex:
    """The content of `crops.json`.

    Attributes:
        source: the video's size in bytes and modification time in nanoseconds.
        frames: per searched frame: number in the video from 1, seconds since the first frame,
            and 1 with a face or 0 without.
        duration_s: length of the decoded video.
        warning: what a damaged video lost, or None.
    """

    settings: CropSettings
    source: tuple[int, int]
    frames: list[tuple[int, float, int]]
    duration_s: float
    warning: str | None

    @property
    def faces(self) -> int:
        """Number of frames with a face, that is, of crops."""
        return sum(face for _, _, face in self.frames)

    def check_rate(self, folder: Path, fps: float) -> None:
        """Raise CropError unless reading the video at `fps` gives these crops."""
        stored = self.settings.fps
        if stored == fps or (stored is None and fps == FOLLOWED_FPS):
            return
        made = "for every frame" if stored is None else f"{stored:g} a second"
        raise CropError(
            f"{folder}: its crops were made {made}, for --sampling_fps "
            f"{FOLLOWED_FPS if stored is None else stored:g}; got {fps:g}"
        )

    def files_at(self, folder: Path, fps: float) -> list[Path]:
        """Return the crops for reading the video at `fps`, in time order.

        Raises CropError for another rate, or a missing crop.
        """
        self.check_rate(folder, fps)
        clock = FrameClock(None if self.settings.fps else fps)
        due = [(number, face) for number, time_s, face in self.frames if clock.keeps(time_s)]
        files = [folder / self.settings.name_of(number) for number, face in due if face]
        missing = [path.name for path in files if not path.is_file()]
        if missing:
            raise CropError(
                f"{folder}: {len(missing)} of its crops are missing, first {missing[0]}; "
                "make them again"
            )
        return files


def read_index(folder: Path) -> CropIndex | None:
    """Read the index of a folder of crops; None if it has none.

    Raises CropError if it is unreadable, OlderCropsError if an older version wrote it.
    """
    path = folder / INDEX
    try:
        content = json.loads(path.read_text("utf-8"))
        version = content.pop("format")
        if version in range(1, CROP_FORMAT):
            raise OlderCropsError(
                f"{path}: of an older version of `mma-mrnnet crop`; "
                "run it again, and it is replaced"
            )
        if version != CROP_FORMAT:
            raise ValueError("another version's")
        rows = content.pop("frames")
        frames = [(int(number), float(time_s), int(face)) for number, time_s, face in rows]
        settings, source = CropSettings(**content.pop("settings")), tuple(content.pop("source"))
        return CropIndex(settings, source, frames, **content)
    except FileNotFoundError:
        return None
    except OlderCropsError:
        raise
    except (
        ArithmeticError,
        AttributeError,
        LookupError,
        RecursionError,
        TypeError,
        ValueError,
    ) as error:
        raise CropError(
            f"{path}: not an index of crops ({error}); remove {folder} to have it made again"
        ) from error


def read_current_index(video: Path, folder: Path, settings: CropSettings) -> CropIndex | None:
    """Read the index; None unless the crops are complete and match video and settings."""
    try:
        index = read_index(folder)
    except CropError:
        return None
    if index is None or index.settings != settings or index.source != _source_of(video):
        return None
    wanted = {INDEX, *(settings.name_of(number) for number, _, face in index.frames if face)}
    return index if wanted <= {path.name for path in folder.iterdir()} else None


def store_crops(
    video: Path, folder: Path, settings: CropSettings, detector: FaceDetector
) -> CropIndex:
    """Write a video's crops and their index; the folder appears when it is complete.

    Frames, person and alignment are those of prediction. Which person is in most frames is known
    only at the end, so until then everybody's crops are on disk. A frame without a face has no
    file. Only one process may work on a folder.

    Raises:
        VideoError: the video cannot be read.
        CropError: `folder` holds other files.
        OSError: the crops cannot be written.
    """
    _require_ours(folder)
    reader = read_frames(video, *settings.rates)
    source = _source_of(video)  # read first, so that the next run detects a later change
    with replaced_folder(folder) as staging:
        found = [
            _write_crops(frame, staging, settings)
            for frame in crop_faces(reader, settings.size, detector)
        ]
        people = rank_people(found)
        if people:
            _keep_person(people[0], people, staging)
        frames = [
            (frame.index + 1, frame.time_s, int(bool(people) and people[0] in frame.faces))
            for frame in found
        ]
        index = CropIndex(settings, source, frames, reader.duration_s, reader.warning)
        content = json.dumps({"format": CROP_FORMAT, **asdict(index)}, separators=(",", ":"))
        (staging / INDEX).write_text(content, "utf-8")
    return index


def _require_ours(folder: Path) -> None:
    """Raise CropError if `folder` holds files that were not written here."""
    try:
        foreign = folder.exists() and read_index(folder) is None
    except OlderCropsError:
        return
    if foreign and (not folder.is_dir() or any(folder.iterdir())):
        raise CropError(
            f"{folder}: is here already and holds no {INDEX}: "
            "not made by this command, and left alone"
        )


def _write_crops(frame: PeopleFrame, staging: Path, settings: CropSettings) -> PeopleFrame:
    """Write each crop into its track's folder; return the frame without crops."""
    for track, crop in frame.crops.items():
        image = io.BytesIO()
        Image.fromarray(crop).save(image, **ENCODINGS[settings.image_format])
        folder = staging / str(track)
        folder.mkdir(exist_ok=True)
        (folder / settings.name_of(frame.index + 1)).write_bytes(image.getbuffer())
    return frame.without_crops()


def _keep_person(person: int, people: list[int], staging: Path) -> None:
    """Move one person's crops up, and remove all others."""
    for path in (staging / str(person)).iterdir():
        path.rename(staging / path.name)
    for track in people:
        shutil.rmtree(staging / str(track))


def _source_of(video: Path) -> tuple[int, int]:
    status = video.stat()
    return status.st_size, status.st_mtime_ns
