"""The test API server answers as a real one did, whose answers were written down."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.kube.dialogue import GOLDEN, talk
from tests.support.kube.fake import fake_kube
from tests.support.kube.kubeserver import running

NEWER = {"internalTrafficPolicy"}
"""Fields that the release which was recorded did not have."""


def differences(ours: Any, theirs: Any, at: str) -> list[str]:
    """What of our answer is otherwise; a real server fills in more fields of objects than ours."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        found = [f"{at}.{key}: only ours" for key in ours.keys() - theirs.keys() - NEWER]
        for key in sorted(ours.keys() & theirs.keys()):
            found += differences(ours[key], theirs[key], f"{at}.{key}")
        if "reason" in theirs or "status" in theirs:
            found += [f"{at}.{key}: only theirs" for key in theirs.keys() - ours.keys()]
        return found
    if isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        pairs = zip(ours, theirs, strict=True)
        return [each for n, pair in enumerate(pairs) for each in differences(*pair, f"{at}[{n}]")]
    return [] if ours == theirs else [f"{at}: ours {ours!r}, theirs {theirs!r}"]


async def test_every_answer_is_that_of_a_real_server(tmp_path: Path) -> None:
    async with running(fake_kube, tmp_path) as kube:
        kube.server.api.options.watch_list = False  # type: ignore[attr-defined]  # the fake's
        ours = json.loads(json.dumps(await talk(kube)))
    theirs = json.loads(GOLDEN.read_text())
    assert ours.keys() == theirs.keys()
    found = [each for name in theirs for each in differences(ours[name], theirs[name], name)]
    if found:
        pytest.fail("\n".join(found))
