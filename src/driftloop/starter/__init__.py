"""What somebody without a fleet begins with: settings and monitor files, commented."""

import json
from importlib.resources import files
from pathlib import Path

from driftloop.errors import BadRequest
from driftloop.settings import FILE, Settings


def write_starter(folder: Path) -> tuple[Path, ...]:
    """Return the files written into `folder`, which is made if need be: all, or none.

    Raises:
        BadRequest: one of them is there already, or `folder` is a file.
    """
    if folder.exists() and not folder.is_dir():
        raise BadRequest("is not a folder", where=str(folder))
    monitors = files(__name__).joinpath("monitors")
    texts = {folder / FILE: _settings_file()} | {
        folder / "monitors" / each.name: each.read_text(encoding="utf-8")
        for each in sorted(monitors.iterdir(), key=lambda each: each.name)
    }
    if there := [str(file) for file in texts if file.exists()]:
        raise BadRequest(
            "already there; nothing is overwritten",
            where=", ".join(there),
            hint="name another folder: driftloop init FOLDER",
        )
    (folder / "monitors").mkdir(parents=True, exist_ok=True)
    written: list[Path] = []
    try:
        for file, text in texts.items():
            with file.open("x", encoding="utf-8") as out:
                written.append(file)
                out.write(text)
    except OSError:
        for file in written:
            file.unlink(missing_ok=True)
        raise
    return tuple(written)


def _settings_file() -> str:
    """Every setting with its default, switched off but for the two paths."""
    lines = [
        "# Settings of this installation; `driftloop settings` shows them all, and where each",
        "# comes from. Variables named DRIFTLOOP_* win over this file, options over both.",
        "# Paths are relative to this file; times are wall-clock seconds.",
        "",
    ]
    home = Settings.model_fields["home"].default
    for name, field in Settings.model_fields.items():
        off = "" if name in {"home", "monitors"} else "# "
        what = " ".join((field.description or "").split())
        default = field.get_default(call_default_factory=True, validated_data={"home": home})
        lines += [f"# {what}", f"{off}{name} = {_toml(default)}", ""]
    return "\n".join(lines)


def _toml(value: object) -> str:
    if value is None:
        return '"..."'
    return json.dumps(value if isinstance(value, bool | int | float) else str(value))
