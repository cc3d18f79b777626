"""The transformers pipeline `facial-expression-intensity`: from videos to named intensities."""

import logging
import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence, Sized
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from numbers import Integral, Real
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image
from torch.utils.data import Dataset
from transformers import Pipeline

from mma_mrnnet.hub.export import add_pipeline, write_card

if TYPE_CHECKING:
    from mma_mrnnet.prediction import VideoPrediction

logger = logging.getLogger(__name__)

ON_ERROR = ("raise", "return")


@dataclass(frozen=True)
class _Video:
    """One input, wrapped so that transformers does not unpack it or move it to a device."""

    given: Any


class FacialExpressionIntensityPipeline(Pipeline):
    """Predicts the intensities of the person in most frames of each video.

    `pipeline("facial-expression-intensity", model=...)(videos)` takes one video, a sequence of
    them (such as a column of a `datasets.Dataset`), a generator, or a torch data set
    (transformers' `KeyDataset`). A video is anything that `open_video` takes: a path, a URL,
    bytes, a file object, a data-set entry (decoded or not), or frames in memory (an array, a
    tensor, or a list of PIL images, which is one video) with their rate as `fps`.

    Options, of the pipeline or of one call:
        top_k: return the k strongest targets of a calibrated model, strongest first; None returns
            all in label order.
        return_frames: also return the per-frame table.
        fps: frames per second of that table; None: the model's rate. It does not change the
            intensities. Required for frames in memory: their rate.
        on_error: "raise" (transformers' behaviour: a video that cannot be read, or has no face,
            ends the call) or "return" (that video gives `{"error": message}`).
        timeout: seconds for fetching a URL (default 300).
        max_bytes: maximum size of a URL or a file object (default 2 GiB).
        batch_size: number of videos processed at once, one thread each; results do not change.
            The network still runs on one video at a time (docs/predict.md has measurements).

    Returns:
        For one video a list of `{"label", "score"}`. With `return_frames` a dict: that list as
        `scores`, `frames` (a dict per row, with the columns of `VideoPrediction.frames`, None
        without a face), `duration_s`, and `note`, which must be shown with the numbers. For a
        sequence a list of these, for a generator or a torch data set an iterator.

    Raises:
        ValueError: a model without an extractor, of stage 1, or not calibrated with `top_k`; an
            option out of range.
        VideoError: (a ValueError) with `on_error="raise"`, a video cannot be fetched or read, or
            has no face.
    """

    _load_processor: Any = False
    _load_image_processor: Any = False
    _load_video_processor: Any = True
    _load_feature_extractor: Any = False
    _load_tokenizer: Any = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # transformers makes batches only if this attribute, or a tokenizer, is set.
        self.feature_extractor: Any = self.video_processor
        config = self.model.config
        if config.model_type != "mma_mrnnet":
            raise ValueError(
                f"a stage-1 model ({config.model_type}) estimates affect, not intensities; "
                "a stage-2 one (mma_mrnnet) is needed"
            )
        if config.feature_names is not None:
            raise ValueError(
                "this model reads tables of features, not videos: "
                "mma_mrnnet.predict_table takes them"
            )

    def __call__(self, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """Predict the intensities of one video or of several; see the class."""
        if _is_one_video(inputs):
            return super().__call__(_Video(inputs), *args, **kwargs)
        is_list = isinstance(inputs, Sequence)
        sized = is_list or (isinstance(inputs, Dataset) and isinstance(inputs, Sized))
        if sized and len(inputs) == 0:
            return [] if is_list else iter(())  # transformers would read the first item
        if isinstance(inputs, Dataset):
            return super().__call__(inputs, *args, **kwargs)
        # A generator: transformers takes a tuple, a column or a `map` for one input.
        outputs = super().__call__((video for video in inputs), *args, **kwargs)
        return list(outputs) if is_list else outputs

    def _sanitize_parameters(  # type: ignore[override]  # named, so that others are refused
        self,
        top_k: int | None = None,
        return_frames: bool | None = None,
        fps: float | None = None,
        on_error: str | None = None,
        timeout: float | None = None,
        max_bytes: int | None = None,
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
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
        forward = {"fps": fps, "on_error": on_error, "timeout": timeout, "max_bytes": max_bytes}
        output = {"top_k": top_k, "return_frames": return_frames}
        return {}, _without_none(forward), _without_none(output)

    def preprocess(self, input_: Any, **_: Any) -> dict[str, Any]:
        """Return the video undecoded; `predict_video` decodes in small steps, to save memory."""
        return {"video": input_ if isinstance(input_, _Video) else _Video(input_)}

    def _forward(self, input_tensors: dict[str, Any], **options: Any) -> Any:
        batch: _Video | list[_Video] = input_tensors["video"]
        predict: Callable[[_Video], Any] = partial(self._predict, **options)
        if isinstance(batch, _Video):
            return {"prediction": predict(batch)}
        with ThreadPoolExecutor(len(batch)) as threads:
            return {"prediction": list(threads.map(predict, batch))}

    def _predict(
        self, video: _Video, *, fps: float | None = None, on_error: str = "raise", **limits: Any
    ) -> "VideoPrediction | str":
        """Predict one video; with `on_error="return"`, a failure returns its message."""
        from mma_mrnnet.prediction import predict_video
        from mma_mrnnet.video.reading import VideoError
        from mma_mrnnet.video.sources import open_video

        try:
            with open_video(video.given, fps, **limits) as opened:
                model: Any = self.model
                processor: Any = self.video_processor
                prediction = predict_video(opened, model, processor, fps=fps)
            if prediction.error is not None:
                raise VideoError(f"{prediction.file}: {prediction.error}")
        except VideoError as error:
            if on_error == "raise":
                raise
            return str(error)
        if prediction.warning is not None:
            logger.warning("%s: %s", prediction.file, prediction.warning)
        return prediction

    def postprocess(  # type: ignore[override]  # named, so that others are refused
        self, model_outputs: Any, top_k: int | None = None, return_frames: bool = False
    ) -> list[dict[str, Any]] | dict[str, Any]:
        """Turn a `VideoPrediction` into labels and scores, and frames if requested."""
        prediction: VideoPrediction | str = model_outputs["prediction"]
        if isinstance(prediction, str):
            return {"error": prediction}
        ranked = (
            list(prediction.intensities.items()) if top_k is None else prediction.ranked()[:top_k]
        )
        scores = [{"label": name, "score": value} for name, value in ranked]
        if not return_frames:
            return scores
        return {
            "scores": scores,
            "frames": prediction.to_dict()["frames"],
            "duration_s": prediction.duration_s,
            "note": "; ".join(prediction.notes()),
        }

    def save_pretrained(self, save_directory: str | os.PathLike[str], **kwargs: Any) -> None:
        """Save model, processor and code; raises ValueError if the path is a file.

        `pipeline(model=save_directory, trust_remote_code=True)` then loads the same pipeline.
        """
        folder = Path(save_directory)
        if folder.is_file():
            raise ValueError(f"{folder}: is a file; a pipeline is saved into a folder")
        folder.mkdir(parents=True, exist_ok=True)
        add_pipeline(self.model.config, folder)
        self.model.save_pretrained(folder, **kwargs)
        self.feature_extractor.save_pretrained(folder, **kwargs)

    def _upload_modified_files(self, *args: Any, **kwargs: Any) -> Any:
        """Write the model's card, then upload (transformers' hook of every push)."""
        write_card(self.model, Path(args[0]))
        return super()._upload_modified_files(*args, **kwargs)


def _is_one_video(inputs: Any) -> bool:
    """Return whether the inputs are one video, or cannot be several (an array, a data set)."""
    if isinstance(inputs, Dataset):  # torch's; transformers' KeyDataset is one
        return False
    if isinstance(inputs, list | tuple) and inputs and isinstance(inputs[0], Image.Image):
        return True
    if isinstance(inputs, str | bytes | bytearray | memoryview | Mapping | os.PathLike):
        return True
    is_value = hasattr(inputs, "read") or hasattr(inputs, "shape")
    return is_value or not isinstance(inputs, Iterable)


def _without_none(options: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def _require_positive(name: str, value: Any) -> None:
    whole = name in ("top_k", "max_bytes")
    is_number = isinstance(value, Integral if whole else Real) and not isinstance(value, bool)
    if not is_number or not 0 < value < math.inf:
        kind = "whole" if whole else "finite"
        raise ValueError(f"{name} must be a {kind} number above 0; got {value!r}")
