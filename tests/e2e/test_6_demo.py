"""The demonstration proves what it prints."""

import re

from tests.e2e.world import World


def test_the_demonstration_runs_on_a_lab_that_is_up(mesh: World):
    try:
        said = mesh.lab("demo").stdout
    finally:
        mesh.lab("scale", "cluster-b/rebel-base", "2")
    print(said)
    failures = re.findall(r"failures (\d+)", said)
    assert len(failures) >= 4
    assert set(failures) == {"0"}
    assert "map writes 0;" in said
    assert re.search(r"VNI \d+ \(0x01", said)
    assert re.search(r"cluster-a \d+, cluster-b \d+", said)
    assert "meshctl lab down" in said
