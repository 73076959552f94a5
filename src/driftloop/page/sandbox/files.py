"""The stand-in's files: files.*, and the two addresses that bytes come and go by."""

import secrets
from collections.abc import Mapping
from pathlib import PurePosixPath
from urllib.parse import quote

from driftloop.page.sandbox.asked import BOT, TEAM, TS, Body, Refused, decoded
from driftloop.page.sandbox.store import Store, StoredFile, micros_of
from driftloop.page.sandbox.workspace import Method, Workspace

_LARGEST = 50 * 2**20
_SIGNATURES = {
    b"\x89PNG\r\n\x1a\n": ("image/png", "png", "PNG"),
    b"\xff\xd8\xff": ("image/jpeg", "jpg", "JPEG"),
    b"GIF8": ("image/gif", "gif", "GIF"),
}
_PLAIN = ("text/plain", "text", "Plain Text")


def take(store: Store, ticket: str, content: bytes) -> int:
    """Keep the bytes of an upload and return how many they are.

    Raises:
        Refused: nobody asked for the address, or for so many bytes.
    """
    id_, _, secret = ticket.partition("-")
    found = store.file(id_)
    if found is None or not secrets.compare_digest(secret.encode(), found.told["ticket"].encode()):
        raise Refused("file_not_found")
    if len(content) != found.told["size"]:
        raise Refused("length_mismatch")
    store.keep_file(StoredFile(id_, found.told, content))
    return len(content)


def file_id(file: Mapping[str, object]) -> str:
    """Return the id of a block's `slack_file`, which names it by id or by address.

    >>> file_id({"url": "http://host/files-pri/T0LOCAL-F0A/a-b.png"})
    'F0A'
    """
    if file.get("id"):
        return str(file["id"])
    _, __, place = str(file.get("url") or "").partition("/files-pri/")
    return place.partition("/")[0].rpartition("-")[2]


def address_of(file: StoredFile) -> str:
    """Return the path at which the bytes of a file are."""
    return f"files-pri/{TEAM}-{file.id}/{quote(file.told['name'])}"


def media_type(content: bytes) -> str | None:
    """Return the type of an image that a page may show, None for everything else.

    >>> media_type(b"GIF89a"), media_type(b"<svg>")
    ('image/gif', None)
    """
    found = _kind(content)
    return None if found is _PLAIN else found[0]


def shown_file(file: StoredFile) -> Body:
    """Return a file as Slack tells it."""
    told = file.told
    mimetype, filetype, pretty = _kind(file.content or b"")
    address = f"{told['base']}{address_of(file)}"
    return {
        "id": file.id,
        "created": told["created"],
        "timestamp": told["created"],
        "name": told["name"],
        "title": told["title"],
        "alt_txt": told["alt"],
        "mimetype": mimetype,
        "filetype": filetype,
        "pretty_type": pretty,
        "user": BOT["user"],
        "user_team": TEAM,
        "editable": False,
        "size": told["size"],
        "mode": "hosted",
        "is_external": False,
        "external_type": "",
        "is_public": bool(told["shares"]),
        "public_url_shared": False,
        "display_as_bot": False,
        "username": "",
        "url_private": address,
        "url_private_download": address,
        "permalink": address,
        "channels": list(told["shares"]),
        "groups": [],
        "ims": [],
        "shares": {"public": told["shares"]} if told["shares"] else {},
        "has_rich_preview": False,
        "file_access": "visible",
    }


def _upload_url(slack: Workspace, asked: Body) -> Body:
    name = PurePosixPath(str(asked.get("filename") or "").replace("\\", "/")).name
    length = str(asked.get("length") or "")
    if not name or not length:
        missing = "filename" if not name else "length"
        raise Refused("invalid_arguments", f"missing required field: {missing}")
    if not length.isdecimal() or not int(length) > 0:
        raise Refused("invalid_arguments", "must be greater than 0 [json-pointer:/length]")
    if int(length) > _LARGEST:
        raise Refused("file_upload_size_restricted")
    id_, ticket = f"F{secrets.token_hex(5).upper()}", secrets.token_hex(16)
    told: Body = {
        "name": name,
        "title": name,
        "alt": str(asked.get("alt_txt") or ""),
        "size": int(length),
        "ticket": ticket,
        "base": asked["_base"],
        "created": slack.store.now() // 1_000_000,
        "done": 0,
        "shares": {},
    }
    slack.store.keep_file(StoredFile(id_, told))
    return {"upload_url": f"{asked['_base']}upload/v1/{id_}-{ticket}", "file_id": id_}


def _complete(slack: Workspace, asked: Body) -> Body:
    store = slack.store
    wanted = decoded(asked, "files", "invalid_arguments")
    if not isinstance(wanted, list) or not wanted:
        raise Refused("invalid_arguments", "missing required field: files")
    ids = [str(one.get("id") or "") if isinstance(one, dict) else "" for one in wanted]
    found = [one for one in map(store.file, ids) if one is not None and one.content is not None]
    if len(found) != len(ids):
        raise Refused("file_not_found")
    channels = [str(asked.get("channel_id") or ""), *str(asked.get("channels") or "").split(",")]
    channels = list(dict.fromkeys(filter(None, channels)))
    thread = _places(store, channels, asked)
    for file, one in zip(found, wanted, strict=True):
        title = str(one.get("title") or file.told["name"])
        store.keep_file(StoredFile(file.id, file.told | {"title": title, "done": store.now()}))
    for channel in channels:
        _share(store, channel, ids, str(asked.get("initial_comment") or ""), thread)
    files = [file for file in map(store.file, ids) if file is not None]
    return {"files": [shown_file(file) for file in files]}


def _info(slack: Workspace, asked: Body) -> Body:
    found = slack.store.file(str(asked.get("file") or ""))
    if found is None or not found.told["done"]:
        raise Refused("file_not_found")
    return {
        "file": shown_file(found),
        "comments": [],
        "response_metadata": {"next_cursor": ""},
    }


METHODS: Mapping[str, Method] = {
    "files.completeUploadExternal": _complete,
    "files.getUploadURLExternal": _upload_url,
    "files.info": _info,
}


def _places(store: Store, channels: list[str], asked: Body) -> int | None:
    if any(channel not in store.channels() for channel in channels):
        raise Refused("channel_not_found")
    if any(channel in store.archived() for channel in channels):
        raise Refused("is_archived")
    if (thread := asked.get("thread_ts")) is None:
        return None
    parent = store.message(channels[0], micros_of(str(thread))) if _one(channels, thread) else None
    if parent is None:
        raise Refused("invalid_thread_ts")
    return parent.thread or parent.at


def _one(channels: list[str], thread: object) -> bool:
    return len(channels) == 1 and TS.fullmatch(str(thread)) is not None


def _share(store: Store, channel: str, ids: list[str], comment: str, thread: int | None) -> None:
    body: Body = {"text": comment, "blocks": [], "files": ids, "upload": True}
    message = store.add(channel, body, thread=thread)
    place = {"ts": message.ts, "channel_name": store.channels()[channel], "team_id": TEAM}
    for id_ in ids:
        file = store.file(id_)
        if file is not None:
            shares = {**file.told["shares"], channel: [place]}
            store.keep_file(StoredFile(id_, file.told | {"shares": shares}))


def _kind(content: bytes) -> tuple[str, str, str]:
    return next((kind for begin, kind in _SIGNATURES.items() if content.startswith(begin)), _PLAIN)
