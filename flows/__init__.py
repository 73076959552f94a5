"""Prefect flows: schedules, retries and artifacts; no arithmetic, no SQL."""
