"""One clip's face crops on disk: images named by their frame's number, and `crops.json`, which says what made them."""

import io
import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

from PIL import Image

from mma_mrnnet.faces.detection import TEMPLATE_SIZE, FaceDetector
from mma_mrnnet.faces.tracks import PeopleFrame, crop_faces, rank_people
from mma_mrnnet.video.reading import FrameClock, read_frames

INDEX = "crops.json"
METADATA = "metadata.csv"
CROP_FORMAT = (
    2  # raise it when decoding, detection, following or alignment change what a clip's crops are
)
FOLLOWED_FPS = 2.0
"""The rate along which people are followed where every frame is stored: stage 2's, as `predict --fps native` does."""

ENCODINGS = {"jpg": {"format": "JPEG", "quality": 95, "subsampling": 0}, "png": {"format": "PNG"}}
"""How Pillow writes a crop; `subsampling` 0 keeps colour at full resolution (4:4:4)."""


class CropError(ValueError):
    """Stored face crops that cannot be used; the message starts with the path."""


class OlderCropsError(CropError):
    """Face crops that an older version stored, which may be another person's than a video's affect is now."""


@dataclass(frozen=True)
class CropSettings:
    """What decides on a video's crops.

    Attributes:
        fps: frames a second that are looked at; None looks at every frame.
        size: S, side of the crops in pixels.
        image_format: a key of `ENCODINGS`.
    """

    fps: float | None = FOLLOWED_FPS
    size: int = TEMPLATE_SIZE
    image_format: str = "jpg"

    @property
    def rates(self) -> tuple[float | None, ...]:
        """The rates to read a video at: the first one is the one along which people are followed."""
        return (FOLLOWED_FPS, None) if self.fps is None else (self.fps,)

    def name_of(self, number: int) -> str:
        """A crop's file name, from the number of its frame from 1 on."""
        return f"{number:05d}.{self.image_format}"


@dataclass(frozen=True)
class CropIndex:
    """What `crops.json` says of a clip.

    Attributes:
        settings: what the crops were made with.
        source: size in bytes and time of change in nanoseconds of the video.
        frames: (number in the video from 1, seconds since the first frame, 1 with a face else 0) of each frame that
            was looked at.
        duration_s: length of what was decoded.
        warning: what a damaged video lost, or None.
    """

    settings: CropSettings
    source: tuple[int, int]
    frames: list[tuple[int, float, int]]
    duration_s: float
    warning: str | None

    @property
    def faces(self) -> int:
        """Number of frames with a face, that is of crops."""
        return sum(face for _, _, face in self.frames)

    def check_rate(self, folder: Path, fps: float) -> None:
        """Raises CropError where these crops are not what reading the video at `fps` gives."""
        stored = self.settings.fps
        if stored != fps and not (stored is None and fps == FOLLOWED_FPS):
            made, usable = (
                (f"{stored:g} a second", stored) if stored else ("for every frame", FOLLOWED_FPS)
            )
            raise CropError(
                f"{folder}: its crops were made {made}, for --sampling_fps {usable:g}; got {fps:g}"
            )

    def files_at(self, folder: Path, fps: float) -> list[Path]:
        """The crops that reading the video at `fps` gives, in time order.

        Raises:
            CropError: made at another rate, or a crop is missing.
        """
        self.check_rate(folder, fps)
        clock = FrameClock(None if self.settings.fps else fps)
        due = [(number, face) for number, time_s, face in self.frames if clock.keeps(time_s)]
        files = [folder / self.settings.name_of(number) for number, face in due if face]
        missing = [path.name for path in files if not path.is_file()]
        if missing:
            raise CropError(
                f"{folder}: {len(missing)} of its crops are missing, first {missing[0]}; make them again"
            )
        return files


def read_index(folder: Path) -> CropIndex | None:
    """The index of a folder of crops; None where it has none.

    Raises:
        OlderCropsError: an older version's index.
        CropError: an index that cannot be read.
    """
    path = folder / INDEX
    try:
        content = json.loads(path.read_text("utf-8"))
        if (version := content.pop("format")) in range(1, CROP_FORMAT):
            raise OlderCropsError(
                f"{path}: of an older version of `mma-mrnnet crop`; run it again, and it is replaced"
            )
        if version != CROP_FORMAT:
            raise ValueError("another version's")
        frames = [
            (int(number), float(time_s), int(face))
            for number, time_s, face in content.pop("frames")
        ]
        settings, source = CropSettings(**content.pop("settings")), tuple(content.pop("source"))
        return CropIndex(settings, source, frames, **content)
    except FileNotFoundError:
        return None
    except OlderCropsError:
        raise
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise CropError(
            f"{path}: not an index of crops ({error}); remove {folder} to have it made again"
        ) from error


def read_current_index(video: Path, folder: Path, settings: CropSettings) -> CropIndex | None:
    """The folder's index if its crops are whole and those of this video with these settings, else None."""
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
    """Writes the crops of a video and their index, beside `folder` and renamed; frames without a face have no file.

    Crops are those of prediction: the same frames, the same person (the one with the most frames), the same alignment.
    Who that is shows at the end: until then everybody's crops lie on disk. Older crops in `folder` are replaced; only
    one process may work on a folder.

    Args:
        video: a video file.
        folder: where the crops go.
        settings: rate, size and image format.
        detector: finds the faces.

    Raises:
        VideoError: the video cannot be read.
        CropError: `folder` holds something that was not written here.
        OSError: the crops cannot be written.
    """
    _require_ours(folder)
    reader = read_frames(video, *settings.rates)
    source = _source_of(
        video
    )  # before it is read: should it change meanwhile, the next run notices
    remove_leftovers(folder)
    staging = _staging(folder)
    staging.mkdir(parents=True)
    try:
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
        if folder.exists():
            folder.rename(_replaced(folder))
        staging.rename(folder)
    finally:
        remove_leftovers(folder)
    return index


def _require_ours(folder: Path) -> None:
    """Raises CropError where `folder` holds something that was not written here."""
    try:
        foreign = folder.exists() and read_index(folder) is None
    except OlderCropsError:
        return
    if foreign and (not folder.is_dir() or any(folder.iterdir())):
        raise CropError(
            f"{folder}: is here already and holds no {INDEX}: not made by this command, and left alone"
        )


def _write_crops(frame: PeopleFrame, staging: Path, settings: CropSettings) -> PeopleFrame:
    """Writes everybody's crop into a folder of their track; the frame without them."""
    for track, crop in frame.crops.items():
        image = io.BytesIO()
        Image.fromarray(crop).save(image, **ENCODINGS[settings.image_format])
        folder = staging / str(track)
        folder.mkdir(exist_ok=True)
        (folder / settings.name_of(frame.index + 1)).write_bytes(image.getbuffer())
    return frame.without_crops()


def _keep_person(person: int, people: list[int], staging: Path) -> None:
    """Moves one person's crops up to where they belong, and removes the others'."""
    for path in (staging / str(person)).iterdir():
        path.rename(staging / path.name)
    for track in people:
        shutil.rmtree(staging / str(track))


def remove_leftovers(folder: Path) -> None:
    """Removes what a process that was stopped may have left beside a folder of crops."""
    for path in (_staging(folder), _replaced(folder)):
        shutil.rmtree(path, ignore_errors=True)


def _staging(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.part")


def _replaced(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.old")


def _source_of(video: Path) -> tuple[int, int]:
    status = video.stat()
    return status.st_size, status.st_mtime_ns
