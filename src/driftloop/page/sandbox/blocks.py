"""What Slack refuses in blocks and modals, and where it points then.

Lengths are Slack's documented ones; a fault names its place as Slack does, by a JSON pointer.
"""

import json
import secrets
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

from driftloop.page.sandbox.asked import Body

Known = Callable[[Mapping[str, Any]], bool]
"""Whether the `slack_file` of an image is there."""

_BLOCKS = 50
_VIEW_BLOCKS = 100
_ID = 255
_KINDS = frozenset(
    {"actions", "context", "divider", "file", "header", "image", "input", "markdown"}
    | {"rich_text", "section", "table", "video"}
)
_ELEMENTS = {
    "button": {"text", "action_id", "url", "value", "style", "confirm", "accessibility_label"},
    "static_select": {"action_id", "placeholder", "options", "option_groups", "initial_option"}
    | {"confirm", "focus_on_load"},
    "plain_text_input": {"action_id", "placeholder", "initial_value", "multiline", "min_length"}
    | {"max_length", "focus_on_load", "dispatch_action_config"},
}
_OTHERS = frozenset(
    {"overflow", "datepicker", "datetimepicker", "timepicker", "checkboxes", "radio_buttons"}
    | {"users_select", "conversations_select", "channels_select", "external_select"}
    | {"multi_static_select", "multi_users_select", "image", "workflow_button"}
)
_STYLES = frozenset({"primary", "danger"})
_OPTIONS = 100
_CONFIRM = {"title": 100, "text": 300, "confirm": 30, "deny": 30}
_VIEW = {"title": 24, "submit": 24, "close": 24}
_METADATA = 3000


def faults_of(blocks: Sequence[Any], known: Known, *, modal: bool = False) -> Iterator[str]:
    """Yield what is wrong with the blocks of a message or a modal."""
    most = _VIEW_BLOCKS if modal else _BLOCKS
    if len(blocks) > most:
        yield f"no more than {most} items allowed [json-pointer:/blocks]"
    ids: set[str] = set()
    for number, block in enumerate(blocks):
        at = f"/blocks/{number}"
        kind = block.get("type") if isinstance(block, dict) else None
        if not _among(kind, _KINDS):
            yield f"unsupported type: {kind} [json-pointer:{at}/type]"
            continue
        id_ = str(block.get("block_id") or "")
        if len(id_) > _ID:
            yield f"must be less than {_ID + 1} characters [json-pointer:{at}/block_id]"
        if id_ and id_ in ids:
            yield (
                f"`block_id` {json.dumps(id_)} already exists for another block "
                f"[json-pointer:{at}/block_id]"
            )
        ids.add(id_)
        yield from _BY_KIND.get(str(kind), _anything)(block, at, known)


def faults_of_view(view: object, known: Known) -> Iterator[str]:
    """Yield what is wrong with a modal."""
    if not isinstance(view, dict):
        yield "must provide an object [json-pointer:/view]"
        return
    if view.get("type") != "modal":
        yield f"unsupported type: {view.get('type')} [json-pointer:/type]"
    for name, limit in _VIEW.items():
        if name == "title" or view.get(name) is not None:
            yield from _text(view.get(name), limit, f"/{name}", plain=True)
    for name, limit in (("private_metadata", _METADATA), ("callback_id", _ID)):
        yield from _length(view.get(name), limit, f"/{name}")
    blocks = view.get("blocks")
    if not isinstance(blocks, list):
        yield "missing required field: blocks [json-pointer:/view]"
        return
    asks = any(isinstance(block, dict) and block.get("type") == "input" for block in blocks)
    if asks and not view.get("submit"):
        yield "missing required field: submit [json-pointer:/view]"
    yield from faults_of(blocks, known, modal=True)


def with_ids(blocks: Sequence[Body]) -> list[Body]:
    """Return the blocks as Slack keeps them: each with a `block_id`, each element with its id."""
    kept = []
    for block in blocks:
        one = {**block, "block_id": block.get("block_id") or _new_id()}
        if one["type"] == "actions":
            one["elements"] = [_named(element) for element in one["elements"]]
        for name in ("accessory", "element"):
            if isinstance(one.get(name), dict) and one[name].get("type") != "image":
                one[name] = _named(one[name])
        kept.append(one)
    return kept


def elements_of(blocks: Sequence[Body]) -> Iterator[tuple[str, Body]]:
    """Yield the interactive elements with their block's id, in the order they are shown."""
    for block in blocks:
        inside = block.get("elements", ()) if block["type"] == "actions" else ()
        for element in (*inside, block.get("accessory"), block.get("element")):
            if isinstance(element, dict) and "action_id" in element:
                yield block["block_id"], element


def _named(element: Body) -> Body:
    return {**element, "action_id": element.get("action_id") or _new_id()}


def _new_id() -> str:
    return secrets.token_urlsafe(4)[:5]


def _anything(_: Body, __: str, ___: Known) -> Iterator[str]:
    yield from ()


def _header(block: Body, at: str, _: Known) -> Iterator[str]:
    yield from _text(block.get("text"), 150, f"{at}/text", plain=True)


def _section(block: Body, at: str, known: Known) -> Iterator[str]:
    fields = block.get("fields")
    if "text" in block:
        yield from _text(block["text"], 3000, f"{at}/text")
    elif not fields:
        yield f"missing required field: fields [json-pointer:{at}]"
    if fields is not None:
        yield from _counted(fields, 10, f"{at}/fields")
        for number, item in enumerate(_listed(fields)):
            yield from _text(item, 2000, f"{at}/fields/{number}")
    if "accessory" in block:
        yield from _element(block["accessory"], f"{at}/accessory", known)


def _context(block: Body, at: str, known: Known) -> Iterator[str]:
    elements = _listed(block.get("elements"))
    if not elements:
        yield f"missing required field: elements [json-pointer:{at}]"
    yield from _counted(elements, 10, f"{at}/elements")
    for number, item in enumerate(elements):
        here = f"{at}/elements/{number}"
        if isinstance(item, dict) and item.get("type") == "image":
            yield from _image(item, here, known)
        else:
            yield from _text(item, 3000, here)


def _actions(block: Body, at: str, known: Known) -> Iterator[str]:
    elements = _listed(block.get("elements"))
    if not elements:
        yield f"missing required field: elements [json-pointer:{at}]"
    yield from _counted(elements, 25, f"{at}/elements")
    seen: set[str] = set()
    for number, element in enumerate(elements):
        here = f"{at}/elements/{number}"
        yield from _element(element, here, known)
        id_ = str(element.get("action_id") or "") if isinstance(element, dict) else ""
        if id_ and id_ in seen:
            yield (
                f"`action_id` {json.dumps(id_)} already exists for another action "
                f"[json-pointer:{here}/action_id]"
            )
        seen.add(id_)


def _input(block: Body, at: str, known: Known) -> Iterator[str]:
    yield from _text(block.get("label"), 2000, f"{at}/label", plain=True)
    yield from _element(block.get("element"), f"{at}/element", known)
    if "hint" in block:
        yield from _text(block["hint"], 2000, f"{at}/hint", plain=True)


def _image(block: Body, at: str, known: Known) -> Iterator[str]:
    alt, url, file = block.get("alt_text"), block.get("image_url"), block.get("slack_file")
    if not isinstance(alt, str) or not alt:
        yield f"missing required field: alt_text [json-pointer:{at}]"
    yield from _length(alt, 2000, f"{at}/alt_text")
    yield from _length(url, 3000, f"{at}/image_url")
    if "title" in block:
        yield from _text(block["title"], 2000, f"{at}/title", plain=True)
    if (url is None) == (file is None):
        yield f"must provide either image_url or slack_file [json-pointer:{at}]"
    elif file is not None and not (isinstance(file, dict) and known(file)):
        yield f"invalid slack file [json-pointer:{at}/slack_file]"


def _element(element: object, at: str, known: Known) -> Iterator[str]:
    if not isinstance(element, dict):
        yield f"must provide an object [json-pointer:{at}]"
        return
    kind = element.get("type")
    if kind == "image":
        yield from _image(element, at, known)
    elif _among(kind, _ELEMENTS):
        for name in sorted(element.keys() - _ELEMENTS[str(kind)] - {"type"}):
            yield f"invalid additional property: {name} [json-pointer:{at}]"
        yield from _length(element.get("action_id"), _ID, f"{at}/action_id")
        yield from _BY_ELEMENT[str(kind)](element, at)
        if "confirm" in element:
            yield from _confirm(element["confirm"], f"{at}/confirm")
    elif not _among(kind, _OTHERS):
        yield f"unsupported type: {kind} [json-pointer:{at}/type]"


def _button(element: Body, at: str) -> Iterator[str]:
    yield from _text(element.get("text"), 75, f"{at}/text", plain=True)
    for name, limit in (("value", 2000), ("url", 3000), ("accessibility_label", 75)):
        yield from _length(element.get(name), limit, f"{at}/{name}")
    if not _among(element.get("style", "primary"), _STYLES):
        yield f"must be a valid enum value [json-pointer:{at}/style]"


def _select(element: Body, at: str) -> Iterator[str]:
    if "placeholder" in element:
        yield from _text(element["placeholder"], 150, f"{at}/placeholder", plain=True)
    groups = element.get("option_groups")
    if groups is not None:
        yield from _counted(groups, _OPTIONS, f"{at}/option_groups")
        for number, given in enumerate(_listed(groups)):
            here, group = f"{at}/option_groups/{number}", given if isinstance(given, dict) else {}
            yield from _text(group.get("label"), 75, f"{here}/label", plain=True)
            yield from _options(group.get("options"), f"{here}/options")
    else:
        yield from _options(element.get("options"), f"{at}/options")


def _options(options: object, at: str) -> Iterator[str]:
    if not isinstance(options, list) or not options:
        yield f"missing required field: options [json-pointer:{at}]"
        return
    yield from _counted(options, _OPTIONS, at)
    for number, option in enumerate(options):
        given = option if isinstance(option, dict) else {}
        yield from _text(given.get("text"), 75, f"{at}/{number}/text", plain=True)
        if not given.get("value"):
            yield f"missing required field: value [json-pointer:{at}/{number}]"
        yield from _length(given.get("value"), 150, f"{at}/{number}/value")


def _written(element: Body, at: str) -> Iterator[str]:
    if "placeholder" in element:
        yield from _text(element["placeholder"], 150, f"{at}/placeholder", plain=True)
    for name in ("min_length", "max_length"):
        length = element.get(name) or 0
        if not isinstance(length, int) or not 0 <= length <= _METADATA:
            yield f"must be less than {_METADATA + 1} [json-pointer:{at}/{name}]"


def _confirm(confirm: object, at: str) -> Iterator[str]:
    if not isinstance(confirm, dict):
        yield f"must provide an object [json-pointer:{at}]"
        return
    for name, limit in _CONFIRM.items():
        if name in confirm or name == "text":
            plain = name != "text"
            yield from _text(confirm.get(name), limit, f"{at}/{name}", plain=plain)


def _among(value: object, known: Collection[str]) -> bool:
    return isinstance(value, str) and value in known


def _listed(items: object) -> list[Any]:
    return items if isinstance(items, list) else []


def _counted(items: object, most: int, at: str) -> Iterator[str]:
    if not isinstance(items, list):
        yield f"must be an array [json-pointer:{at}]"
    elif len(items) > most:
        yield f"no more than {most} items allowed [json-pointer:{at}]"


def _text(text: object, limit: int, at: str, *, plain: bool = False) -> Iterator[str]:
    said = text.get("text") if isinstance(text, dict) else None
    if not isinstance(said, str):
        yield f"missing required field: text [json-pointer:{at}]"
        return
    kind = text.get("type") if isinstance(text, dict) else None
    if not _among(kind, {"plain_text"} if plain else {"plain_text", "mrkdwn"}):
        yield f"unsupported type: {kind} [json-pointer:{at}/type]"
    if not said:
        yield f"must be more than 0 characters [json-pointer:{at}/text]"
    else:
        yield from _length(said, limit, f"{at}/text")


def _length(said: object, limit: int, at: str) -> Iterator[str]:
    if said is not None and not isinstance(said, str):
        yield f"must be a string [json-pointer:{at}]"
    elif said is not None and len(said) > limit:
        yield f"must be less than {limit + 1} characters [json-pointer:{at}]"


_BY_KIND: Mapping[str, Callable[[Body, str, Known], Iterator[str]]] = {
    "actions": _actions,
    "context": _context,
    "header": _header,
    "image": _image,
    "input": _input,
    "section": _section,
}
_BY_ELEMENT: Mapping[str, Callable[[Body, str], Iterator[str]]] = {
    "button": _button,
    "plain_text_input": _written,
    "static_select": _select,
}
