"""`driftloop slack-sandbox`: the stand-in for Slack by itself, for whoever writes to Slack."""

import re
import socket
from pathlib import Path
from typing import Annotated

import typer

from driftloop.errors import BadRequest

BOT = "xoxb-local"
APP = "xapp-local"


def slack_sandbox(
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 for any that is free.")] = 8402,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    store: Annotated[Path, typer.Option(help="The SQLite file that messages are kept in.")] = Path(
        "slack-sandbox.db"
    ),
    actions_url: Annotated[
        str,
        typer.Option(help="Where clicks are posted to, while no Socket Mode connection is open."),
    ] = "",
    signing_secret: Annotated[
        str, typer.Option(help="What such posts are signed with; a new one where it is not given.")
    ] = "",
    limits: Annotated[
        bool, typer.Option(help="Take a message a second in each channel, as Slack does.")
    ] = True,
) -> None:
    """Run a local stand-in for Slack, without an installation: read and click in a browser."""
    import secrets

    from driftloop.page.sandbox import sandbox_app
    from driftloop.page.sandbox.faults import Limits

    if actions_url and not re.fullmatch(r"https?://[^\s/]+\S*", actions_url):
        raise BadRequest(
            f"{actions_url!r} is no address to post to",
            where="--actions-url",
            hint="as in http://127.0.0.1:8406/slack/actions",
        )
    secret = signing_secret or secrets.token_hex(16)
    asgi = sandbox_app(
        store,
        actions_url=actions_url,
        signing_secret=secret,
        limits=Limits() if limits else None,
    )
    with _door(host, port) as door:
        _say(f"http://{host}:{door.getsockname()[1]}", secret, actions_url)
        _serve(asgi, door)


def _door(host: str, port: int) -> socket.socket:
    try:
        return socket.create_server((host, port))
    except OSError as error:
        raise BadRequest(
            f"cannot listen on {host}:{port}: {error.strerror}",
            where="--port",
            hint="--port 0 takes one that is free",
        ) from error


def _say(address: str, secret: str, actions_url: str) -> None:
    lines = {
        "read and click": f"{address}/",
        "Web API": f"{address}/api/  (base_url of slack_sdk's WebClient)",
        "bot token": BOT,
        "app token": f"{APP}  (for Socket Mode)",
        "signing secret": secret,
        "clicks go to": actions_url or "nowhere; --actions-url, or a Socket Mode connection",
        "of driftloop": f"DRIFTLOOP_SLACK_API={address}/api/ DRIFTLOOP_SLACK_TOKEN={BOT} "
        f"DRIFTLOOP_SLACK_SIGNING_SECRET={secret}",
    }
    typer.echo("A stand-in for Slack; what it is sent stays on this machine.")
    for name, value in lines.items():
        typer.echo(f"  {name:<15} {value}")


def _serve(asgi: object, door: socket.socket) -> None:
    import sys

    import uvicorn

    sys.stdout.flush()
    config = uvicorn.Config(
        asgi,  # type: ignore[arg-type]
        log_level="warning",
        access_log=False,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=1,
    )
    uvicorn.Server(config).run(sockets=[door])
