"""Incidents as people see them, made of facts: one cause, one message. Pure."""
