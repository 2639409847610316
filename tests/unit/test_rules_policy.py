"""Policy tests: cases judged by the data plane's filter, and which rule decided."""

import json
import struct
from pathlib import Path
from typing import Any

import pytest

from zt.rules import compile_rules
from zt.rules.frames import FrameError, from_capture, from_fields
from zt.rules.main import main
from zt.rules.policy import Policy, PolicyError, Result, parse

RULES = """\
tag role id 100 enum 1 client enum 2 server default client;
cap administrator id 7 accept ipprotocol tcp and dport 22; ;

accept ethertype arp;
tee 64 deadbeef11 chr tcp_syn and not chr tcp_ack;
drop teq role client;
break ipprotocol tcp and dport 22;
accept;
"""

MEMBERS = """\
[members.anna]
address = "1111111111"
[members.ben]
address = "2222222222"
capabilities = ["administrator"]
[members.files]
address = "3333333333"
tags = { role = "server" }
"""

TCP = (
    'frame = { src = "10.1.0.1", dst = "10.1.0.2", protocol = "tcp", dport = %d, flags = ["syn"] }'
)


def judge(body: str, rules: str = RULES) -> Result:
    policy = Policy(compile_rules(rules))
    (case,) = policy.cases(parse(f"{MEMBERS}\n[[case]]\n{body}\n"), lambda name: b"")
    return policy.judge(case)


def line_of(text: str) -> int:
    return next(n for n, line in enumerate(RULES.splitlines(), 1) if text in line)


def test_the_rule_that_drops_is_named() -> None:
    result = judge(f'from = "anna"\nto = "ben"\nexpect = "drop"\n{TCP % 80}')
    assert result.ok
    assert result.decisions[-1].line == line_of("drop teq")
    assert not result.decisions[-1].passed


def test_both_sides_judge_and_copies_are_collected() -> None:
    result = judge(f'from = "anna"\nto = "files"\nexpect = "accept"\n{TCP % 80}')
    assert result.ok
    assert [decision.side for decision in result.decisions] == ["sender", "receiver"]
    assert all(decision.line == line_of("accept;") for decision in result.decisions)
    assert {str(address) for address in result.copies} == {"deadbeef11"}


def test_a_capability_lets_its_holder_through() -> None:
    without = judge(f'from = "anna"\nto = "files"\nexpect = "drop"\n{TCP % 22}')
    assert without.ok
    assert without.decisions[-1].line in (0, line_of("break"))
    holder = judge(f'from = "ben"\nto = "files"\nexpect = "accept"\n{TCP % 22}')
    assert holder.ok
    assert all("administrator" in decision.rule for decision in holder.decisions)


def test_multicast_is_judged_for_itself_and_for_the_receiver() -> None:
    result = judge(
        'from = "anna"\nto = "files"\nexpect = "accept"\n'
        'frame = { ethertype = "arp", dst_mac = "ff:ff:ff:ff:ff:ff", src = "10.1.0.1" }'
    )
    assert result.ok
    assert [decision.side for decision in result.decisions] == ["sender", "sender", "receiver"]


def test_ownership_authenticates_the_sender() -> None:
    rules = "drop not chr ipauth; accept;"
    body = 'from = "%s"\nto = "anna"\nexpect = "%s"\nframe = { src = "10.1.0.9", dst = "10.1.0.1" }'
    members = (
        '[members.owner]\naddress = "4444444444"\nowns = ["10.1.0.9"]\n'
        '[members.ben]\naddress = "2222222222"\n[members.anna]\naddress = "1111111111"\n'
    )
    policy = Policy(compile_rules(rules))
    for sender, expected in (("owner", "accept"), ("ben", "drop")):
        document = parse(f"{members}\n[[case]]\n{body % (sender, expected)}\n")
        (case,) = policy.cases(document, lambda name: b"")
        assert policy.judge(case).ok


def pcap(frames: list[bytes], linktype: int = 1) -> bytes:
    header = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, linktype)
    records = (struct.pack("<IIII", 0, 0, len(f), len(f)) + f for f in frames)
    return header + b"".join(records)


def test_frames_from_hex_and_captures_are_the_same() -> None:
    frame = bytes.fromhex("0200000000020200000000010800") + bytes(40)
    assert from_capture(pcap([bytes(60), frame]), 1).payload == bytes(40)
    result = judge(f'from = "files"\nto = "files"\nexpect = "accept"\nhex = "{frame.hex(":")}"')
    assert result.ok


@pytest.mark.parametrize(
    "data",
    [b"", b"\xd4\xc3\xb2\xa1", pcap([bytes(60)], linktype=113), pcap([bytes(60)])[:-1], pcap([])],
)
def test_bad_captures(data: bytes) -> None:
    with pytest.raises(FrameError):
        from_capture(data, 0)


@pytest.mark.parametrize(
    "fields",
    [
        {"src": "10.0.0.1", "dst": "fd00::1"},
        {"src": "nonsense"},
        {"protocol": "nonsense"},
        {"protocol": "tcp", "dport": 70000},
        {"protocol": "tcp", "flags": ["bogus"]},
        {"colour": "red"},
        {"size": -1},
        {"tos": 999},
        {"src_mac": "zz"},
        {"icmp": [], "protocol": "icmp4"},
    ],
)
def test_bad_fields(fields: dict[str, Any]) -> None:
    with pytest.raises(FrameError):
        from_fields(fields, 1, 2)


@pytest.mark.parametrize(
    "text",
    [
        "[",
        "",
        'network = "x"\n[[case]]',
        "[[case]]\nname = 'x'",
        '[members.a]\naddress = "zz"\n[[case]]',
        '[members.a]\naddress = "1111111111"\ntags = { nosuch = 1 }\n[[case]]',
        '[members.a]\naddress = "1111111111"\ntags = { role = "nosuch" }\n[[case]]',
        '[members.a]\naddress = "1111111111"\ncapabilities = ["nosuch"]\n[[case]]',
        '[members.a]\naddress = "1111111111"\nowns = ["nosuch"]\n[[case]]',
        '[members.a]\naddress = "1111111111"\n[[case]]\nfrom = "a"\nto = "a"\nexpect = "maybe"',
        '[members.a]\naddress = "1111111111"\n[[case]]\nfrom="a"\nto="a"\nexpect="drop"\nhex="0"',
    ],
)
def test_bad_files_say_what_is_wrong(text: str) -> None:
    with pytest.raises(PolicyError, match=r"\w"):
        Policy(compile_rules(RULES)).cases(parse(text), lambda name: b"")


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "office.rules").write_text(RULES)
    cases = tmp_path / "cases.toml"
    case = f'[[case]]\nname = "isolated"\nfrom = "anna"\nto = "ben"\n{TCP % 80}\n'
    cases.write_text(f'rules = "office.rules"\n{MEMBERS}{case}expect = "drop"\n')
    assert main(["test", str(cases)]) == 0
    assert "1 cases, 0 failed" in capsys.readouterr().out
    cases.write_text(f'rules = "office.rules"\n{MEMBERS}{case}expect = "accept"\n')
    assert main(["test", str(cases)]) == 1
    assert f"office.rules:{line_of('drop teq')}:" in capsys.readouterr().out
    assert main(["test", "-j", str(cases)]) == 1
    assert json.loads(capsys.readouterr().out)["failed"] == 1
    (tmp_path / "office.rules").write_text("bogus")
    assert main(["test", str(cases)]) == 1
    assert "office.rules:1:0" in capsys.readouterr().err
