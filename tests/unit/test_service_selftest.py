"""`zerotier-one --selftest` passes on what works, and fails on what does not."""

import pytest

from zt.service import selftest


@pytest.fixture
def only_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without speeds and devices."""
    kept = [(name, check) for name, check in selftest.checks() if ": " in name]
    monkeypatch.setattr(selftest, "checks", lambda: iter(kept))


def test_kernels(only_kernels: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert selftest.selftest() == 0
    out = capsys.readouterr().out
    assert "portable: armor 3 (AES-GMAC-SIV)" in out
    assert out.endswith("all checks passed\n")


def test_keys_time_and_offload() -> None:
    for check in (
        selftest._proof_of_work,
        selftest._public_key,
        selftest._random,
        selftest._clock,
        selftest._udp_offload,
    ):
        assert check()[0] is not False, check


def test_wrong_answers_and_crashes_fail(
    only_kernels: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(selftest.KNOWN, "Poly1305", "0" * 64)
    monkeypatch.delitem(selftest.KNOWN, "Salsa20/20")
    assert selftest.selftest() == 1
    out = capsys.readouterr().out
    assert "Poly1305                           FAILED\n" in out
    assert "FAILED   KeyError" in out
