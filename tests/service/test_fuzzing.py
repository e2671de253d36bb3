"""Every endpoint of a service under what no client sends; longer: `make fuzz SECONDS=3600`."""

from pathlib import Path

from service.fuzzing import MODEL, fuzz, open_service

SECONDS = 12.0


def test_nothing_sent_makes_a_fault(tmp_path: Path) -> None:
    """No 500, no trace in an answer or in what the service says, no request without an answer."""
    with open_service(tmp_path) as (service, routes):
        assert len(routes) > len(MODEL) + 20
        found = fuzz(service, routes, SECONDS, seed=20261126)
        assert found.faults == []
        # Control: it gets far enough to be taken, refused and not understood.
        assert {200, 202, 204, 400, 401, 404, 405} <= found.statuses.keys()
        assert service.process.poll() is None


def test_a_fault_is_found(tmp_path: Path) -> None:
    """Control: a receiver that fails on what it does not understand is found within seconds."""
    from counterparts.services import serving
    from service import fuzzing

    changes = fuzzing.TELL.format(path=str(tmp_path / "routes.json"))
    changes += "import bailee.flows.survey.receiver as receiver\n"
    changes += "receiver.read_body = None\n"
    with serving(tmp_path / "state", tmp_path, "--upstream", "rehearsal", changes=changes) as service:
        found = fuzz(service, [("POST", "/api/survey")], 5.0, seed=1)
    assert any(": 500 " in fault for fault in found.faults)
