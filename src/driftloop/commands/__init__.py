"""Commands of a topic each, which `cli` brings together."""
