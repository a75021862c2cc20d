"""Every story of this folder comes true."""

import asyncio
from pathlib import Path

import pytest

from tests.support.story import Steps, read

STORIES = sorted(Path(__file__).parent.glob("*.story"))


@pytest.mark.parametrize("story", STORIES, ids=lambda path: path.stem)
def test_the_story_comes_true(story: Path, tmp_path: Path) -> None:
    steps, texts = read(story.read_text())
    asyncio.run(Steps(tmp_path, texts).play(steps))
