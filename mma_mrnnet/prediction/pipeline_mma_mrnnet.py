"""The pipeline `facial-expression-intensity` of a repository that carries this file.

The package mma-mrnnet decodes videos and finds faces; this file only imports the pipeline from it.
"""

try:  # else transformers would name a package to install, but not where to find it
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
