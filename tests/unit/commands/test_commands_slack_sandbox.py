import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from slack_sdk import WebClient
from slack_sdk.errors import SlackApiError
from typer.testing import CliRunner

from driftloop.cli import app
from driftloop.errors import BadRequest


def test_it_runs_alone_and_says_how_to_reach_it(tmp_path: Path) -> None:
    """No installation, no settings: the SDK works with what is printed, and limits hold."""
    asked = [sys.executable, "-m", "driftloop", "slack-sandbox", "--port", "0"]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("DRIFTLOOP_")}
    with subprocess.Popen(
        asked, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True
    ) as server:
        try:
            said = ""
            while "DRIFTLOOP_SLACK_SIGNING_SECRET=" not in said:
                assert server.poll() is None
                said += server.stdout.readline()
            base = re.search(r"http://\S+/api/", said)[0]
            client = WebClient("xoxb-local", base_url=base, timeout=5, retry_handlers=[])
            assert client.auth_test()["team"] == "driftloop-local"
            for _ in range(4):
                client.chat_postMessage(channel="#c", text="x")
            with pytest.raises(SlackApiError, match="ratelimited"):
                client.chat_postMessage(channel="#c", text="x")
        finally:
            server.send_signal(signal.SIGINT)
    assert (tmp_path / "slack-sandbox.db").is_file()


@pytest.mark.parametrize("url", ["nowhere", "ftp://host/x", "http://"])
def test_clicks_need_an_address(url: str) -> None:
    """What cannot be posted to is said before anything listens."""
    result = CliRunner().invoke(app, ["slack-sandbox", "--actions-url", url])
    assert isinstance(result.exception, BadRequest)
    assert "no address to post to" in str(result.exception)


def test_a_taken_port_is_told(tmp_path: Path) -> None:
    """With a hint, and without a file left half made."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        given = ["slack-sandbox", "--port", port, "--store", str(tmp_path / "a.db")]
        result = CliRunner().invoke(app, given)
    assert isinstance(result.exception, BadRequest)
    assert "--port 0" in str(result.exception)
