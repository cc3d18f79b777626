"""The transformers pipeline `facial-expression-intensity`: videos in, named intensities out."""

import logging
import math
import os
from collections.abc import Iterable, Mapping, Sequence, Sized
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from numbers import Integral, Real
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch.utils.data import Dataset
from transformers import AutoModel, Pipeline
from transformers.pipelines import PIPELINE_REGISTRY

from mma_mrnnet.hub.checkpoints import TASK, add_pipeline, pretrained_folder

if TYPE_CHECKING:
    from mma_mrnnet.prediction import VideoPrediction

logger = logging.getLogger(__name__)

ON_ERROR = ("raise", "return")


@dataclass(frozen=True)
class _Video:
    """What was handed in for one video, so that transformers neither unpacks nor moves it."""

    given: Any


class FacialExpressionIntensityPipeline(Pipeline):
    """Intensities of each video's followed face.

    `pipeline("facial-expression-intensity", model=...)(videos)` takes one video, a list or another sequence of them
    (a column of a `datasets.Dataset`), a generator, or a torch data set (transformers' `KeyDataset`). A video is a
    path, an http(s) URL, the bytes of a file, a binary file object, or `{"path", "bytes"}`, as
    `datasets.Video(decode=False)` gives it. What is no file yet is written to a temporary one, removed in any case.

    Options, of the pipeline or of one call:
        top_k: the strongest k of a calibrated model, strongest first; None gives all in the order of its labels.
        return_frames: also the table of the frames, see below.
        fps: frames a second of that table; None takes the model's rate. The intensities never depend on it.
        on_error: "raise" (transformers' own way: a video that cannot be read, or without a face, ends the call) or
            "return" (it gives `{"error": message}` in its place, and the others are done).
        timeout: seconds that fetching a URL may take; 300 where not given.
        max_bytes: the most that is read of a URL or a file object; 2 GiB where not given.
        batch_size: how many videos are worked on side by side, each in a thread, with the same numbers as one by one.
            The network reads the videos one by one all the same: it takes a small part of the time, see
            docs/predict.md.

    Returns:
        For one video a list of `{"label", "score"}`; with `return_frames` a dict with that list as `scores`, `frames`
        (a dict a row, the columns of `VideoPrediction.frames`, None where there was no face), `duration_s`, and
        `note`, what must be said wherever the numbers are shown. For a list or another sequence a list of these, for
        a generator or a torch data set an iterator.

    Raises:
        ValueError: a model without an extractor, of stage 1, or not calibrated and `top_k`; an option out of range.
        VideoError: (a ValueError) with `on_error="raise"`, a video that cannot be fetched or read, or without a face.
    """

    _load_processor = False
    _load_image_processor = False
    _load_video_processor = True
    _load_feature_extractor = False
    _load_tokenizer = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # Under this name, or a tokenizer's, transformers looks for what can make a batch.
        self.feature_extractor = self.video_processor
        config = self.model.config
        if config.model_type != "mma_mrnnet":
            raise ValueError(
                f"a stage-1 model ({config.model_type}) gives no intensities; a stage-2 one (mma_mrnnet) is needed"
            )
        if config.feature_names is not None:
            raise ValueError(
                "this model reads tables of features, not videos: mma_mrnnet.predict_table takes them"
            )

    def __call__(self, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """The intensities of one video, or of several: see the class."""
        if _is_one_video(inputs):
            return super().__call__(inputs, *args, **kwargs)
        listed = isinstance(inputs, Sequence)
        if (
            (listed or isinstance(inputs, Dataset))
            and isinstance(inputs, Sized)
            and len(inputs) == 0
        ):
            return [] if listed else iter(())  # transformers looks at the first, and finds none
        if not isinstance(inputs, Dataset):
            # As a generator: of a tuple, a column or `map` transformers would make one input.
            outputs = super().__call__((video for video in inputs), *args, **kwargs)
            return list(outputs) if listed else outputs
        return super().__call__(inputs, *args, **kwargs)

    def _sanitize_parameters(
        self,
        top_k: int | None = None,
        return_frames: bool | None = None,
        fps: float | None = None,
        on_error: str | None = None,
        timeout: float | None = None,
        max_bytes: int | None = None,
    ) -> tuple[dict, dict, dict]:
        if top_k is not None:
            _require_positive("top_k", top_k)
            if not getattr(self.model.config, "calibrated", True):
                raise ValueError(
                    "top_k: this checkpoint is not calibrated, so its outputs do not compare"
                )
        for name, value in (("fps", fps), ("timeout", timeout), ("max_bytes", max_bytes)):
            if value is not None:
                _require_positive(name, value)
        if on_error is not None and on_error not in ON_ERROR:
            raise ValueError(f"on_error must be one of {', '.join(ON_ERROR)}; got {on_error!r}")
        given = {"fps": fps, "on_error": on_error, "timeout": timeout, "max_bytes": max_bytes}
        shown = {"top_k": top_k, "return_frames": return_frames}
        return (
            {},
            *(
                {name: value for name, value in each.items() if value is not None}
                for each in (given, shown)
            ),
        )

    def preprocess(self, inputs: Any) -> dict[str, _Video]:
        """Hands the video on: decoding, faces and model are interleaved frame by frame, to keep memory small."""
        return {"video": _Video(inputs)}

    def _forward(self, inputs: dict[str, _Video | list[_Video]], **options: Any) -> dict[str, Any]:
        batch = inputs["video"]
        predict = partial(self._predicted, **options)
        if isinstance(batch, _Video):
            return {"prediction": predict(batch)}
        with ThreadPoolExecutor(len(batch)) as threads:
            return {"prediction": list(threads.map(predict, batch))}

    def _predicted(
        self, video: _Video, *, fps: float | None = None, on_error: str = "raise", **limits: Any
    ) -> "VideoPrediction | str":
        """What the model says of one video, or why it says nothing, where that is wanted."""
        from mma_mrnnet.prediction import predict_video
        from mma_mrnnet.video.reading import VideoError
        from mma_mrnnet.video.sources import local_video

        try:
            with local_video(video.given, **limits) as local:
                prediction = predict_video(local.path, self.model, self.video_processor, fps=fps)
            if prediction.error is not None:
                raise VideoError(f"{local.name}: {prediction.error}")
        except VideoError as error:
            if on_error == "raise":
                raise
            return str(error)
        prediction.file = prediction.frames["file"] = local.name
        if prediction.warning is not None:
            logger.warning("%s: %s", local.name, prediction.warning)
        return prediction

    def postprocess(
        self, outputs: dict[str, Any], top_k: int | None = None, return_frames: bool = False
    ) -> list[dict[str, Any]] | dict[str, Any]:
        """A `VideoPrediction` to labels and scores, with its frames where they are wanted."""
        prediction = outputs["prediction"]
        if isinstance(prediction, str):
            return {"error": prediction}
        ranked = (
            list(prediction.intensities.items()) if top_k is None else prediction.ranked()[:top_k]
        )
        scores = [{"label": name, "score": value} for name, value in ranked]
        if not return_frames:
            return scores
        rows = prediction.frames.itertuples(index=False, name=None)
        return {
            "scores": scores,
            "frames": [
                dict(zip(prediction.frames.columns, map(_plain, row), strict=True)) for row in rows
            ],
            "duration_s": prediction.duration_s,
            "note": "; ".join(prediction.notes()),
        }

    def save_pretrained(self, save_directory: str | os.PathLike[str], **kwargs: Any) -> None:
        """Saves model, processor and the file through which the pipeline travels with them.

        `pipeline(model=save_directory, trust_remote_code=True)` then gives the same pipeline.

        Args:
            save_directory: a folder; made where there is none.
            kwargs: as transformers' own.

        Raises:
            ValueError: it is a file.
        """
        folder = Path(save_directory)
        if folder.is_file():
            raise ValueError(f"{folder}: is a file; a pipeline is saved into a folder")
        folder.mkdir(parents=True, exist_ok=True)
        add_pipeline(self.model.config, folder)
        self.model.save_pretrained(folder, **kwargs)
        self.video_processor.save_pretrained(folder, **kwargs)


def _is_one_video(inputs: Any) -> bool:
    """Whether inputs are one video, or what can be none: no array and no whole data set is a list of videos."""
    if isinstance(inputs, Dataset):  # torch's: transformers' KeyDataset is one
        return False
    one = isinstance(inputs, str | bytes | bytearray | memoryview | Mapping | os.PathLike)
    return (
        one
        or hasattr(inputs, "read")
        or hasattr(inputs, "shape")
        or not isinstance(inputs, Iterable)
    )


def _plain(value: Any) -> Any:
    """A table's value as JSON knows it: None for NaN."""
    return None if isinstance(value, float) and math.isnan(value) else value


def _require_positive(name: str, value: Any) -> None:
    whole = name in ("top_k", "max_bytes")
    if (
        isinstance(value, bool)
        or not isinstance(value, Integral if whole else Real)
        or not 0 < value < math.inf
    ):
        raise ValueError(
            f"{name} must be a {'whole' if whole else 'finite'} number above 0; got {value!r}"
        )


def register_pipeline() -> None:
    """Makes the task known to `transformers.pipeline`; without a model it takes the checkpoint that ships."""
    PIPELINE_REGISTRY.register_pipeline(
        TASK,
        pipeline_class=FacialExpressionIntensityPipeline,
        pt_model=(AutoModel,),
        default={"model": (str(pretrained_folder()), "main")},
        type="video",
    )
