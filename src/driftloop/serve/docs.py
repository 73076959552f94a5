"""The page at /docs: the OpenAPI description as one plain HTML page, whole without a network."""

import json
import shlex
from html import escape
from typing import Any

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 50rem; margin: 2rem auto; padding: 0 1rem }
h2 { font-size: 1.1rem; margin-top: 2.5rem; border-top: 1px solid #ccc; padding-top: 1rem }
pre { background: #f3f3f3; color: #222; padding: .8rem; overflow-x: auto }
.said { white-space: pre-wrap }
"""


def docs_page(described: dict[str, Any], *, base: str) -> str:
    """Return `described`, an OpenAPI description, as an HTML page without script or resources.

    Every path and method is shown with its summary, its description as written, and a `curl`
    command for each of its examples; an example's `x-model` stands in for `{model}`.

    Args:
        described: what `/openapi.json` answers.
        base: the address that the commands call, such as "http://127.0.0.1:8400".
    """
    info = described["info"]
    title = escape(info["title"])
    operations = [
        _operation(base, path, method, operation)
        for path, methods in described["paths"].items()
        for method, operation in methods.items()
    ]
    return (
        f'<!doctype html>\n<html lang="en">\n<head><meta charset="utf-8"><title>{title}</title>'
        f"<style>{_STYLE}</style></head>\n<body>\n<h1>{title}</h1>\n"
        f"<p>{escape(info.get('summary', ''))}. For programs: "
        '<a href="openapi.json">/openapi.json</a></p>\n'
        f"{''.join(operations)}</body>\n</html>\n"
    )


def _operation(base: str, path: str, method: str, operation: dict[str, Any]) -> str:
    said = operation.get("description", "")
    shown = [
        f"<h2><code>{escape(method.upper())} {escape(path)}</code></h2>\n",
        f"<p><strong>{escape(operation.get('summary', ''))}</strong></p>\n",
        f'<div class="said">{escape(said)}</div>\n' if said else "",
    ]
    for example in _examples(operation):
        named = path.replace("{model}", example.get("x-model", "MODEL"))
        body = json.dumps(example["value"])
        command = (
            f"curl {shlex.quote(base + named)} -H 'Content-Type: application/json' "
            f"\\\n  -d {shlex.quote(body)}"
        )
        shown.append(
            f"<p>{escape(example.get('summary', ''))}:</p>\n<pre>{escape(command)}</pre>\n"
        )
    if method == "get":
        shown.append(f"<pre>{escape(f'curl {shlex.quote(base + path)}')}</pre>\n")
    return "".join(shown)


def _examples(operation: dict[str, Any]) -> list[dict[str, Any]]:
    content = operation.get("requestBody", {}).get("content", {})
    return list(content.get("application/json", {}).get("examples", {}).values())
