"""Tables that people read in Prefect's UI."""

from collections.abc import Iterable, Sequence


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    r"""Return a markdown table; a cell's line breaks and bars do not break it.

    >>> print(table(("model", "why"), [("eta-de", "a|b")]))
    | model | why |
    | --- | --- |
    | eta-de | a\|b |
    """
    lines = [columns, ["---"] * len(columns), *([_cell(text) for text in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def number(value: float | None) -> str:
    """Return a figure with four significant digits, or a dash.

    >>> number(12.34567), number(None)
    ('12.35', '-')
    """
    return "-" if value is None else f"{value:.4g}"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", r"\|")
