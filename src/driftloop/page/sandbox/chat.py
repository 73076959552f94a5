"""The stand-in's messages and channels: chat.* and conversations.*."""

import re
from collections.abc import Mapping, Sequence

from driftloop.page.sandbox.asked import BOT, DOMAIN, TS, Body, Refused, decoded, flag, part
from driftloop.page.sandbox.blocks import faults_of, with_ids
from driftloop.page.sandbox.files import file_id, shown_file
from driftloop.page.sandbox.people import named
from driftloop.page.sandbox.store import Store, Stored, micros_of, ts_of
from driftloop.page.sandbox.workspace import Method, Whisper, Workspace

_TEXT = 40_000
_NAME = re.compile(r"#?(?P<name>[a-z0-9_-]{1,80})")
_GONE: Body = {
    "user": "USLACKBOT",
    "subtype": "tombstone",
    "text": "This message was deleted.",
    "blocks": [],
    "hidden": True,
}


def shown(store: Store, message: Stored, *, metadata: bool = True) -> Body:
    """Return a message as Slack tells it."""
    body = {k: v for k, v in message.body.items() if metadata or k != "metadata"}
    told: Body = {"type": "message", **BOT, "ts": message.ts, **body}
    if "files" in body:
        told["files"] = [shown_file(file) for file in map(store.file, body["files"]) if file]
    if message.thread is not None:
        return told | {"thread_ts": ts_of(message.thread), "parent_user_id": BOT["user"]}
    replies = store.replies(message.channel, message.at)
    if not replies:
        return told
    return told | {
        "thread_ts": message.ts,
        "reply_count": len(replies),
        "reply_users_count": 1,
        "reply_users": [BOT["user"]],
        "latest_reply": replies[-1].ts,
        "is_locked": False,
        "subscribed": False,
    }


def message_of(slack: Workspace, asked: Body) -> Body:
    """Return what a message that is asked for says, as it is kept.

    Raises:
        Refused: Slack would not take it.
    """
    text, blocks = str(asked.get("text") or ""), decoded(asked, "blocks", "invalid_blocks_format")
    metadata = decoded(asked, "metadata", "invalid_metadata_format")
    if not text and not blocks:
        raise Refused("no_text")
    if len(text) > _TEXT:
        raise Refused("msg_too_long")
    if blocks and not isinstance(blocks, list):
        raise Refused("invalid_blocks_format")
    if faults := tuple(faults_of(blocks or [], lambda file: _has(slack, file))):
        raise Refused("invalid_blocks", *faults)
    body: Body = {"text": text, "blocks": with_ids(blocks or [])}
    if not metadata:
        return body
    if not isinstance(metadata, dict) or metadata.keys() != {"event_type", "event_payload"}:
        raise Refused("invalid_metadata_format")
    return body | {"metadata": metadata}


def channel_of(store: Store, asked: Body, *, missing: bool | None = None) -> str:
    """Return the id of the channel that is asked for.

    With `missing` it may be asked for by name, and where that is True it is made if need be.

    Raises:
        Refused: there is none.
    """
    wanted = str(asked.get("channel") or "")
    if wanted in store.channels():
        return wanted
    name = _NAME.fullmatch(wanted)
    if (
        missing is None
        or name is None
        or not (missing or name["name"] in store.channels().values())
    ):
        raise Refused("channel_not_found")
    return store.channel(name["name"])


def thread_of(store: Store, channel: str, thread: object) -> int | None:
    """Return the time of the message whose thread is meant, None for no thread.

    Raises:
        Refused: there is no such message.
    """
    if thread is None:
        return None
    if not TS.fullmatch(str(thread)):
        raise Refused("invalid_thread_ts")
    parent = store.message(channel, micros_of(str(thread)))
    if parent is None:
        raise Refused("thread_not_found")
    return parent.thread or parent.at


def deleted(store: Store, message: Stored) -> None:
    """Delete a message; one with replies leaves Slack's note that it is gone."""
    if message.thread is None and store.replies(message.channel, message.at):
        store.replace(Stored(message.channel, message.at, None, dict(_GONE)))
    else:
        store.delete(message)


def _post(slack: Workspace, asked: Body) -> Body:
    store, thread = slack.store, asked.get("thread_ts")
    body = message_of(slack, asked)
    if thread is not None and not TS.fullmatch(str(thread)):
        raise Refused("invalid_thread_ts")
    channel = channel_of(store, asked, missing=thread is None)
    if channel in store.archived():
        raise Refused("is_archived")
    message = store.add(channel, body, thread=thread_of(store, channel, thread))
    return {"channel": channel, "ts": message.ts, "message": shown(store, message)}


def _update(slack: Workspace, asked: Body) -> Body:
    store = slack.store
    channel = channel_of(store, asked)
    message = _found(store, channel, asked, "message_not_found")
    if channel in store.archived():
        raise Refused("is_inactive")
    kept = message.body
    # What is not said stays: the blocks, and the metadata.
    said = asked if "blocks" in asked else asked | {"blocks": kept["blocks"]}
    body = {k: kept[k] for k in ("metadata", "files") if k in kept} | message_of(slack, said)
    edit = {"user": BOT["user"], "ts": ts_of(store.now())}
    new = Stored(channel, message.at, message.thread, body | {"edited": edit})
    store.replace(new)
    slack.troubles.pop((channel, message.at), None)
    told = shown(store, new)
    return {"channel": channel, "ts": new.ts, "text": body["text"], "message": told}


def _delete(slack: Workspace, asked: Body) -> Body:
    channel = channel_of(slack.store, asked)
    message = _found(slack.store, channel, asked, "message_not_found")
    deleted(slack.store, message)
    return {"channel": channel, "ts": message.ts}


def _whisper(slack: Workspace, asked: Body) -> Body:
    body = message_of(slack, asked)
    channel = channel_of(slack.store, asked)
    if channel in slack.store.archived():
        raise Refused("is_archived")
    user = str(asked.get("user") or "")
    if user not in slack.store.people("U"):
        raise Refused("user_not_in_channel")
    thread = thread_of(slack.store, channel, asked.get("thread_ts"))
    at = slack.store.now()
    slack.whisper(Whisper(channel, at, thread, user, body))
    return {"message_ts": ts_of(at)}


def _permalink(slack: Workspace, asked: Body) -> Body:
    channel = channel_of(slack.store, asked)
    given = asked | {"ts": asked.get("message_ts")}
    message = _found(slack.store, channel, given, "message_not_found")
    anchor = f"m{message.ts}"
    return {"channel": channel, "permalink": f"{asked['_base']}?channel={channel}#{anchor}"}


def _history(slack: Workspace, asked: Body) -> Body:
    channel = channel_of(slack.store, asked)
    messages = _between(slack.store.history(channel), asked)
    return _paged(slack.store, messages, asked) | {"pin_count": 0}


def _replies(slack: Workspace, asked: Body) -> Body:
    store = slack.store
    channel = channel_of(store, asked)
    parent = _found(store, channel, asked, "thread_not_found")
    return _paged(store, (parent, *_between(store.replies(channel, parent.at), asked)), asked)


def _list(slack: Workspace, asked: Body) -> Body:
    store, archived = slack.store, slack.store.archived()
    public = "public_channel" in str(asked.get("types") or "public_channel")
    channels = [_channel(store, id_) for id_ in store.channels()] if public else []
    if flag(asked, "exclude_archived"):
        channels = [one for one in channels if one["id"] not in archived]
    some, cursor = part(channels, asked, lambda one: str(one["id"]))
    return {"channels": some, "response_metadata": {"next_cursor": cursor}}


def _info(slack: Workspace, asked: Body) -> Body:
    return {"channel": _channel(slack.store, channel_of(slack.store, asked))}


def _join(slack: Workspace, asked: Body) -> Body:
    channel = channel_of(slack.store, asked)
    if channel in slack.store.archived():
        raise Refused("is_archived")
    return {
        "channel": _channel(slack.store, channel),
        "warning": "already_in_channel",
        "response_metadata": {"warnings": ["already_in_channel"]},
    }


def _archive(slack: Workspace, asked: Body) -> Body:
    channel = channel_of(slack.store, asked)
    if channel in slack.store.archived():
        raise Refused("already_archived")
    slack.store.archive(channel, archived=True)
    return {}


def _unarchive(slack: Workspace, asked: Body) -> Body:
    channel = channel_of(slack.store, asked)
    if channel not in slack.store.archived():
        raise Refused("not_archived")
    slack.store.archive(channel, archived=False)
    return {}


def _auth_test(slack: Workspace, asked: Body) -> Body:
    return {
        "url": asked["_base"],
        "team": DOMAIN,
        "user": named(slack.store, BOT["user"])["name"],
        "team_id": BOT["team"],
        "user_id": BOT["user"],
        "bot_id": BOT["bot_id"],
        "is_enterprise_install": False,
    }


METHODS: Mapping[str, Method] = {
    "auth.test": _auth_test,
    "chat.delete": _delete,
    "chat.getPermalink": _permalink,
    "chat.postEphemeral": _whisper,
    "chat.postMessage": _post,
    "chat.update": _update,
    "conversations.archive": _archive,
    "conversations.history": _history,
    "conversations.info": _info,
    "conversations.join": _join,
    "conversations.list": _list,
    "conversations.replies": _replies,
    "conversations.unarchive": _unarchive,
}


def _found(store: Store, channel: str, asked: Body, error: str) -> Stored:
    ts = str(asked.get("ts") or "")
    message = store.message(channel, micros_of(ts)) if TS.fullmatch(ts) else None
    if message is None or (
        error == "message_not_found" and message.body.get("subtype") == "tombstone"
    ):
        raise Refused(error)
    return message


def _has(slack: Workspace, file: Mapping[str, object]) -> bool:
    found = slack.store.file(file_id(file))
    if found is None or not found.told["done"]:
        return False
    # As at Slack, what was just uploaded may not be ready to be shown.
    return slack.store.now() - int(found.told["done"]) >= slack.file_delay * 1e6


def _between(messages: Sequence[Stored], asked: Body) -> tuple[Stored, ...]:
    oldest, latest = (str(asked.get(name) or "") for name in ("oldest", "latest"))
    ends = flag(asked, "inclusive")
    try:
        first = micros_of(oldest) if oldest else 0
        last = micros_of(latest) if latest else 2**62
    except ValueError:
        raise Refused("invalid_ts_oldest" if oldest else "invalid_ts_latest") from None
    return tuple(
        one for one in messages if first < one.at < last or (ends and one.at in {first, last})
    )


def _paged(store: Store, messages: Sequence[Stored], asked: Body) -> Body:
    some, cursor = part(messages, asked, lambda one: one.ts)
    metadata = flag(asked, "include_all_metadata")
    answer: Body = {
        "messages": [shown(store, one, metadata=metadata) for one in some],
        "has_more": bool(cursor),
    }
    return answer | ({"response_metadata": {"next_cursor": cursor}} if cursor else {})


def _channel(store: Store, id_: str) -> Body:
    name = store.channels()[id_]
    return {
        "id": id_,
        "name": name,
        "name_normalized": name,
        "num_members": 1,
        "is_channel": True,
        "is_private": False,
        "is_archived": id_ in store.archived(),
        "is_member": True,
        "topic": {"value": "", "creator": "", "last_set": 0},
        "purpose": {"value": "", "creator": "", "last_set": 0},
    }
