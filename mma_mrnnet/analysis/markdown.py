"""Numbers and tables of the pages in Markdown."""

from collections.abc import Sequence
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined


def format_number(value: float | None) -> str:
    """Return `.365` for 0.365, and `-` for None."""
    if value is None:
        return "-"
    text = f"{value:.3f}"
    return text.replace("0.", ".", 1) if abs(value) < 0.9995 else text


def format_signed(value: float | None) -> str:
    """Return a number with its sign, such as `+.020`; 0 has none."""
    if value is None or abs(value) < 0.0005:
        return format_number(value if value is None else 0.0)
    return f"{'-' if value < 0 else '+'}{format_number(abs(value))}"


def format_interval(value: float | None, low: float | None, high: float | None) -> str:
    """Return `.873 [.861, .884]`, or only the value if there is no interval."""
    if value is None or low is None or high is None:
        return format_number(value)
    return f"{format_number(value)} [{format_number(low)}, {format_number(high)}]"


def format_table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table."""
    return "\n".join(f"| {' | '.join(row)} |" for row in [heads, ["---"] * len(heads), *rows])


def render_page(template: str, **values: Any) -> str:
    """Fill one of the templates of this folder."""
    environment = Environment(
        loader=PackageLoader("mma_mrnnet.analysis"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["count"] = "{:,}".format
    return environment.get_template(template).render(**values).rstrip() + "\n"
