"""A small 3-D CNN from a clip's pixels to its intensities, trained by the same loop.

Nothing of it is from arXiv 2303.00180: layers and sizes are our choice. It shows how far pixels alone
go, without an extractor that was taught affect and without a recurrent part.
"""

import os
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers import initialization as init
from transformers.utils.generic import can_return_tuple

from mma_mrnnet.faces.affect import scale_crops
from mma_mrnnet.faces.detection import TEMPLATE_SIZE
from mma_mrnnet.features.clip_rows import FaceCache, scaling_settings
from mma_mrnnet.files import content_digest
from mma_mrnnet.model.modeling_mma_mrnnet import INTENSITY_LOSS, IntensityOutput
from mma_mrnnet.model.video_processing_mma_mrnnet import MMAMRNNetVideoProcessor
from mma_mrnnet.results import MRNNResults, RunResults
from mma_mrnnet.training.arguments import TrainArguments
from mma_mrnnet.training.clip_corpora import cache_folder, load_stored, read_corpus
from mma_mrnnet.training.datasets import ClipCollator
from mma_mrnnet.training.facts import Predict
from mma_mrnnet.training.reports import mrnn_scores
from mma_mrnnet.training.sampling import shuffled
from mma_mrnnet.training.stages import (
    Stage,
    choose_score,
    held_out_of,
    report_splits,
)


class PixelIntensityConfig(PreTrainedConfig):
    """Numbers of the 3-D CNN.

    Args:
        image_size: S, height and width of a crop in pixels.
        channels: of the convolutions, each of which halves the side.
        intensity_loss: `pearson`, `ccc` or `mse`.
        relative_labels: True where each label vector was divided by its own maximum.
        simulated_labels: True where the targets came from a simulator and not from people.

    `id2label` names the K targets.
    """

    model_type = "pixel_intensity"

    image_size: int = 32
    channels: list[int] | tuple[int, ...] = (16, 32, 64)
    intensity_loss: str = "pearson"
    relative_labels: bool = True
    simulated_labels: bool = False
    problem_type: str | None = "regression"

    @property
    def label_names(self) -> list[str]:
        """Names of the K targets in output order."""
        return [self.id2label[index] for index in range(self.num_labels)]


GAIN = 8.0
"""Factor on a pixel's difference from the clip's mean; in drawn faces 1 in 100 then exceeds 0.5."""


class PixelIntensityModel(PreTrainedModel):
    """3-D convolutions with ReLU, the mean over image and real frames, one output for each target.

    The input is each frame's difference from the mean of the clip's frames: what moves, and not who
    it is, since from plain frames it learnt a few dozen people by heart. There is no norm, since the
    size of a movement counts. Padded frames are 0 before every convolution, so that neither their
    content nor their number has an effect.
    """

    config: PixelIntensityConfig
    config_class = PixelIntensityConfig
    main_input_name = "affect"
    accepts_loss_kwargs = False

    def __init__(self, config: PixelIntensityConfig) -> None:
        super().__init__(config)
        sizes = [3, *config.channels]
        self.convolutions = nn.ModuleList(
            nn.Conv3d(*pair, kernel_size=3, stride=(1, 2, 2), padding=1) for pair in pairwise(sizes)
        )
        self.output = nn.Linear(sizes[-1], config.num_labels)
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Conv3d):
            init.kaiming_uniform_(module.weight, nonlinearity="relu")
            init.zeros_(module.bias)
        elif isinstance(module, nn.Linear):
            init.xavier_uniform_(module.weight)
            init.zeros_(module.bias)
        else:
            super()._init_weights(module)

    @can_return_tuple
    def forward(
        self,
        affect: Tensor,
        frame_mask: Tensor | None = None,
        labels: Tensor | None = None,
        **kwargs: Any,
    ) -> IntensityOutput:
        """Intensities of B clips.

        Args:
            affect: (B, T, 3 * S * S) float pixel values in [-1, 1], under the loop's name of a row.
            frame_mask: (B, T) bool, True for real frames, a prefix of each row; None: all are real.
            labels: (B, K) float in [0, 1]; NaN where unlabelled.
            kwargs: transformers' hooks; nothing of ours.

        Returns:
            An `IntensityOutput` without `affect` and hidden states.

        Raises:
            ValueError: pixels of another shape.
        """
        side = self.config.image_size
        if affect.ndim != 3 or affect.shape[-1] != 3 * side * side:
            raise ValueError(
                f"affect must be pixels (B, T, {3 * side * side}); got {tuple(affect.shape)}"
            )
        if frame_mask is None:
            frame_mask = torch.ones(affect.shape[:2], dtype=torch.bool, device=affect.device)
        values = torch.where(frame_mask.unsqueeze(-1), affect, 0.0).to(self.dtype)
        values = values.unflatten(-1, (3, side, side)).transpose(1, 2)  # (B, 3, T, S, S)
        real = frame_mask[:, None, :, None, None]  # (B, 1, T, 1, 1)
        count = frame_mask.sum(1, keepdim=True).clamp(min=1)  # (B, 1)
        mean = values.sum(2, keepdim=True) / count[:, None, :, None, None]  # (B, 3, 1, S, S)
        values = torch.where(real, GAIN * (values - mean), 0.0)
        for convolution in self.convolutions:
            # (B, D, T, H, W), half of height and width
            values = torch.where(real, convolution(values).relu(), 0.0)
        # In full precision under autocast too, as the recurrent model's output layer.
        with torch.autocast(values.device.type, enabled=False):
            frames = values.to(self.output.weight.dtype).mean((3, 4)).sum(2)  # (B, D)
            logits = self.output(frames / count)  # (B, K)
        output = IntensityOutput(intensities=logits.sigmoid(), logits=logits)
        if labels is not None:
            output.loss = self.objective(output, labels)
        return output

    def objective(self, output: IntensityOutput, labels: Tensor) -> Tensor:
        """The loss of a whole batch, scalar; `labels` (B, K), NaN where unlabelled."""
        return INTENSITY_LOSS[self.config.intensity_loss](output.logits.sigmoid(), labels)


class PixelCache(FaceCache):
    """Crops of clips at one frame rate, each a row of 3 * S * S pixel values in [-1, 1].

    Args:
        folder: created if missing.
        processor: its scaling and its `size` S make the pixel values.
        fps: frames a second taken from videos; crops without an index are taken as they come.
    """

    def __init__(
        self, folder: str | os.PathLike[str], processor: MMAMRNNetVideoProcessor, fps: float
    ) -> None:
        width = 3 * processor.size["height"] * processor.size["width"]

        def rows_of(crops: list[np.ndarray]) -> np.ndarray:
            if not crops:
                return np.zeros((0, width), np.float32)
            return scale_crops(crops, processor).flatten(1).numpy()

        settings = {"rows": "pixels", "scaling": scaling_settings(processor)}
        super().__init__(folder, settings, width, size=TEMPLATE_SIZE, fps=fps, rows_of=rows_of)


def pixel_stage(args: TrainArguments) -> Stage:
    """Make the stage of the 3-D CNN, on the clips that `mrnn_stage` would read; no calibration.

    Args:
        args: of `--stage mrnn`. `data` is `clips:FOLDER` or `hume:FOLDER` with videos or face crops;
            settings of the extractor and of the recurrent part are ignored.

    Raises:
        ValueError: data without pixels.
    """
    corpus = read_corpus(args, needs_extractor=False)
    if corpus.files is None or corpus.holds_tables:
        raise ValueError(
            f"--data {args.data}: its clips hold no pixels; videos or face crops are needed"
        )
    monitored = choose_score(args, [*corpus.names, "mean_pearson"], "mean_pearson")
    torch.manual_seed(args.seed)
    config = PixelIntensityConfig(
        intensity_loss=args.intensity_loss,
        id2label=dict(enumerate(corpus.names)),
        label2id={name: number for number, name in enumerate(corpus.names)},
        relative_labels=corpus.relative_labels,
        simulated_labels=corpus.simulated_labels,
    )
    side = config.image_size
    processor = MMAMRNNetVideoProcessor(
        size={"height": side, "width": side},
        num_frames=args.num_frames,
        length_policy=args.length_policy,
    )
    cache = PixelCache(cache_folder(args), processor, args.sampling_fps)
    clips = load_stored(corpus, args, cache)
    splits = clips.splits
    names, train, validation = config.label_names, splits["train"].rows, splits["validation"].rows

    def finish(model: PreTrainedModel, predict: Predict, run: RunResults) -> MRNNResults:
        scores, _ = report_splits(predict, splits, names, corpus.id_column, args.output)
        return MRNNResults(**vars(run), data=clips.data, **scores)

    return Stage(
        name="pixels",
        model=PixelIntensityModel(config),
        processor=processor,
        train=train,
        validation=validation,
        order=shuffled(len(train)),
        train_collator=ClipCollator(processor),
        collator=ClipCollator(processor),
        output_names=("intensities",),
        loss_names=("logits",),
        score=lambda outputs, labels: mrnn_scores(outputs, labels, validation, names),
        score_name=monitored,
        finish=finish,
        data=clips.data,
        provenance=clips.provenance,
        held_out=held_out_of(splits),
        fingerprint=content_digest(*clips.fingerprint),
    )
