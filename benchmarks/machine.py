"""What a benchmark's result says of the machine that it ran on."""

import platform
from pathlib import Path


def machine() -> dict[str, str]:
    """Processor, with the cores seen, and Python's version."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.split(":")[1].strip() for line in lines if "model name" in line]
    processor = f"{names[0]}, {len(names)} cores seen" if names else platform.processor()
    return {"processor": processor, "python": platform.python_version()}
