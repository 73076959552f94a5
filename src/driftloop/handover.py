"""Hands a new version to who serves it elsewhere: a command is run, or a URL is posted to."""

import json
import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from driftloop.errors import BadRequest, HandoverFailed
from driftloop.records import Head
from driftloop.spec import Family, HandoverPolicy

TAIL = 400
"""Characters of what a command or a server said that an error repeats."""


class Handover:
    """Implements `ports.Handover`.

    What is told, as one JSON object: `model`, `version`, `previous` (a version or null),
    `artifact` (path of the ONNX file, or of `pipeline.skops` where `retrain.serve` lets it be; null
    for a version that was found answering), `digest` (its SHA-256), `features` (in the model's
    order), of a multiclass model `classes` (it answers with a
    place in that list, counted from 0), and `key`, which is the same whenever the same
    version is handed over again for the same reason. `Idempotency-Key` carries it over HTTP.

    Args:
        folder: of the monitor files: where commands are run.
        token: sent to URLs as `Authorization: Bearer ...`.
    """

    def __init__(self, folder: Path, *, token: str | None = None) -> None:
        """Call nobody yet."""
        self._folder = folder
        self._token = token

    def hand_over(self, family: Family, head: Head, *, previous: Head | None, key: str) -> None:
        """Return once `head` was taken in place of `previous`.

        Raises:
            HandoverFailed: the monitor names nobody, a command ended with another code than 0 or
                took too long, or a URL did not answer with 2xx.
        """
        where = f"{family.name}.toml: handover"
        policy = family.handover
        if policy is None:
            raise HandoverFailed(
                "nobody is named to hand a version to", where=where, hint="give command or url"
            )
        told = {
            "model": head.model,
            "version": head.version,
            "previous": previous.version if previous is not None else None,
            "artifact": None if head.found else str(Path(head.artifact).absolute()),
            "digest": head.digest,
            "features": list(family.inputs),
            **({"classes": list(family.classes)} if family.classes else {}),
            "key": key,
        }
        if policy.url is None:
            self._run(policy, told, where)
        else:
            self._post(policy, policy.url, told, where)

    def check(self, family: Family) -> None:
        """Check that the command could be run from here; nobody is called.

        Raises:
            BadRequest: there is no such program, or it may not be executed.
        """
        policy = family.handover
        if policy is None or not policy.command:
            return
        where = f"{family.name}.toml: handover.command"
        program = policy.command[0]
        if "/" not in program:
            if shutil.which(program) is None:
                raise BadRequest(
                    f"there is no program {program!r} on the PATH",
                    where=where,
                    hint=f"one beside the monitor files is './{program}'",
                )
            return
        file = self._folder.absolute() / program
        if not file.is_file():
            raise BadRequest(
                f"there is no program {program!r}",
                where=where,
                hint=f"it would be {file}: names go from the folder of the monitor files on",
            )
        if not os.access(file, os.X_OK):
            raise BadRequest(
                f"the program {program!r} is not executable", where=where, hint=f"chmod +x {file}"
            )

    def _run(self, policy: HandoverPolicy, told: dict[str, Any], where: str) -> None:
        with tempfile.TemporaryFile() as output:
            try:
                # A group of its own: what it starts ends with it.
                process = subprocess.Popen(
                    policy.command,
                    cwd=self._folder,
                    stdin=subprocess.PIPE,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            except OSError as error:
                raise HandoverFailed(
                    f"the command {policy.command[0]!r} cannot be run: {error.strerror}",
                    where=where,
                ) from error
            limit = policy.time_limit.total_seconds()
            try:
                process.communicate(json.dumps(told).encode(), timeout=limit)
            except subprocess.TimeoutExpired as error:
                raise HandoverFailed(
                    f"the command took longer than {limit:g} s and was ended", where=where
                ) from error
            finally:
                _end(process)
            output.seek(0)
            said = output.read().decode(errors="replace").strip()[-TAIL:]
        if process.returncode != 0:
            raise HandoverFailed(
                f"the command ended with {process.returncode}: {said or 'it said nothing'}",
                where=where,
            )

    def _post(self, policy: HandoverPolicy, url: str, told: dict[str, Any], where: str) -> None:
        import httpx

        headers = {"Idempotency-Key": str(told["key"])}
        if self._token is not None:
            headers["Authorization"] = f"Bearer {self._token}"
        try:
            answer = httpx.post(
                url, json=told, headers=headers, timeout=policy.time_limit.total_seconds()
            )
        except httpx.HTTPError as error:
            raise HandoverFailed(
                f"{url} does not answer: {error or type(error).__name__}", where=where
            ) from error
        if not answer.is_success:
            raise HandoverFailed(
                f"{url} answered {answer.status_code}: {answer.text.strip()[:TAIL]}", where=where
            )


def _end(process: "subprocess.Popen[bytes]") -> None:
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
