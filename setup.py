"""List the packages of the wheel; everything else stands in pyproject.toml."""

from setuptools import find_namespace_packages, setup

# These folders stay at the top of the checkout, where people look for them.
# In the wheel they lie in the package.
TOP_FOLDERS = ("hub_cards", "spaces_demo", "examples")

setup(
    packages=[
        *find_namespace_packages(include=["mma_mrnnet", "mma_mrnnet.*"]),
        *(f"mma_mrnnet.{folder}" for folder in TOP_FOLDERS),
    ],
    package_dir={
        "mma_mrnnet": "mma_mrnnet",
        **{f"mma_mrnnet.{folder}": folder for folder in TOP_FOLDERS},
    },
)
