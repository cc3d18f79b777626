"""The pipeline `facial-expression-intensity`, for a Hub repository that includes this file.

It only imports the pipeline from the package mma-mrnnet, which decodes videos and finds faces.
"""

try:  # transformers' own message does not say where to find the package
    from mma_mrnnet.prediction.pipeline import FacialExpressionIntensityPipeline
except ModuleNotFoundError as error:
    if error.name != "mma_mrnnet":
        raise
    raise ImportError(
        "the pipeline facial-expression-intensity finds the faces of a video with "
        "the Python package mma-mrnnet, which is not installed here: from a checkout of its "
        "source, `pip install .`. Without it the model works on aligned face crops; "
        "see the repository's README.md"
    ) from error

__all__ = ["FacialExpressionIntensityPipeline"]
