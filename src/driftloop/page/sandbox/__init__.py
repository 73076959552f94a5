"""A local stand-in for Slack: its Web API, its clicks, and a page to read and click on.

Without a token driftloop posts here through the same client code; only the base URL differs.
It answers in Slack's shapes with Slack's error codes, keeps its messages in one SQLite file
and sends nothing anywhere but to the address that clicks are for. Unlike Slack it makes a channel
on the first post to "#name", and it refuses a reply to a message that does not exist.
"""

from driftloop.page.sandbox.app import sandbox_app

__all__ = ["sandbox_app"]
