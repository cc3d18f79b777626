"""The transformers pipeline `facial-expression-intensity`: video files in, named intensities out."""

from typing import Any

from transformers import AutoModel, Pipeline
from transformers.pipelines import PIPELINE_REGISTRY

TASK = "facial-expression-intensity"


class FacialExpressionIntensityPipeline(Pipeline):
    """Intensities of each video's followed face.

    `pipeline("facial-expression-intensity", model=...)("clip.mp4")` gives a list of `{"label", "score"}`, in the order
    of the model's labels, or the strongest `top_k` of a calibrated model. A video without a face raises ValueError.
    """

    _load_processor = False
    _load_image_processor = False
    _load_video_processor = True
    _load_feature_extractor = False
    _load_tokenizer = False

    def _sanitize_parameters(self, top_k: int | None = None, **kwargs: Any) -> tuple[dict, dict, dict]:
        return {}, {}, {} if top_k is None else {"top_k": top_k}

    def preprocess(self, inputs: str) -> dict[str, str]:
        """Hands the path on: decoding, faces and model are interleaved frame by frame, to keep memory small."""
        return {"path": str(inputs)}

    def _forward(self, inputs: dict[str, str]) -> dict[str, Any]:
        from mma_mrnnet.prediction import predict_video

        return {"prediction": predict_video(inputs["path"], self.model, self.video_processor)}

    def postprocess(self, outputs: dict[str, Any], top_k: int | None = None) -> list[dict[str, Any]]:
        """A `VideoPrediction` to a list of labels and scores."""
        prediction = outputs["prediction"]
        if prediction.error is not None:
            raise ValueError(f"{prediction.file}: {prediction.error}")
        rows = list(prediction.intensities.items()) if top_k is None else prediction.ranked()[:top_k]
        return [{"label": name, "score": value} for name, value in rows]


def register_pipeline() -> None:
    """Makes the task known to `transformers.pipeline`."""
    PIPELINE_REGISTRY.register_pipeline(
        TASK, pipeline_class=FacialExpressionIntensityPipeline, pt_model=(AutoModel,), type="video"
    )
