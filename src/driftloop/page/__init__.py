"""Notice to message: told once, to the right person. The door to Slack."""
