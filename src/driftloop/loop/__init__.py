"""The use cases, without Prefect and without tools: watch, renew, tell, roll back."""
