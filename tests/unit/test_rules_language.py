"""Safe mode, explaining and formatting of the rules language."""

import gc
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zt.rules import RuleError, compile_rules, explain, format_rules

WORDS = (
    "macro tag cap drop accept tee watch redirect break priority id default enum flag include "
    "and or not ethertype arp ipprotocol tcp icmp dport 80 80-90 sport chr tcp_syn,tcp_ack random "
    "0.5 teq tseq t m m(1) m($a) $a 1 0 31 -1 deadbeef11 ipsrc 10.0.0.0/8 fd00::/8 ipdest 64 "
    "accept; drop; ; ;; # constructor __proto__ 0x10 4294967295 framesize vlan macsrc "
    "02:00:5e:10:00:01 ztsrc iptos 255 Accept TAG yes Yes 😀"
).split()
BLANKS = [" ", "\n", "\r\n", "\t", " # x\n", "; "]

texts = st.lists(st.tuples(st.sampled_from(WORDS), st.sampled_from(BLANKS)), max_size=60).map(
    lambda pairs: "".join(word + blank for word, blank in pairs)
)

MATCHES = [
    "ethertype arp", "ipprotocol tcp", "ipprotocol icmp", "dport 80", "sport 1000-2000",
    "chr inbound,multicast", "chr tcp_syn", "teq role 1", "tand role admin", "tseq 7 9",
    "random 0.25", "ipsrc 10.0.0.0/8", "ipdest fd00::/8", "icmp 8 -1", "icmp 3 1",
    "framesize 64-1500", "vlan 5", "iptos 255 0-3", "macsrc 02:00:5e:10:00:01",
    "ztdest deadbeef11",
]  # fmt: skip
JOINTS = ["", "and ", "or ", "not ", "or not ", "and not "]
ACTIONS = [
    "accept", "drop", "break", "tee 128 deadbeef11", "watch -1 deadbeef11", "redirect DEADBEEF11",
]  # fmt: skip

matches = st.tuples(
    st.sampled_from(JOINTS),
    st.sampled_from(MATCHES),
    st.sampled_from(["", " # why\n", "\n# above\n"]),
).map("".join)
statements = st.tuples(st.sampled_from(ACTIONS), st.lists(matches, max_size=4)).map(
    lambda pair: f"{pair[0]} {' '.join(pair[1])} ;\n"
)
statement_lists = st.lists(statements, max_size=4).map("".join)
programs = st.tuples(
    st.just("tag role id 3 enum 2 guest flag 31 admin default guest;\n"),
    statement_lists,
    statement_lists.map(lambda text: f"cap c id 1 default {text} ;\n"),
    statement_lists.map(lambda text: f"macro m {text} ;\ninclude m\n"),
).map("".join)


def accepted(text: str, *, compatible: bool = False) -> dict[str, Any] | None:
    try:
        return compile_rules(text, compatible=compatible).output()
    except RuleError:
        return None


@given(texts, st.booleans())
def test_any_words_give_json_or_a_position_inside_the_text(text: str, compatible: bool) -> None:
    try:
        compiled = compile_rules(text, compatible=compatible)
    except RuleError as error:
        assert 0 <= error.line <= text.count("\n") + text.count("\r") + 1
        assert error.column >= 0
        assert error.message
    else:
        json.dumps(compiled.output())


@given(st.text(max_size=200), st.booleans())
def test_any_text_raises_nothing_else(text: str, compatible: bool) -> None:
    try:
        compile_rules(text, compatible=compatible)
    except RuleError as error:
        assert error.code[0] in "ED"


@given(programs)
def test_explained_rules_compile_to_the_same_json(text: str) -> None:
    output = compile_rules(text).output()
    assert compile_rules(explain(output)).output() == output
    # Without names: the same entries and ids.
    assert compile_rules(explain(output["config"])).config == output["config"]


@given(programs)
def test_format_is_stable_and_keeps_meaning_and_comments(text: str) -> None:
    formatted = format_rules(text)
    assert format_rules(formatted) == formatted
    assert compile_rules(formatted).output() == compile_rules(text).output()
    assert formatted.count("#") == text.count("#")


@given(texts)
def test_format_of_any_accepted_text_keeps_its_meaning(text: str) -> None:
    before = accepted(text)
    if before is None:
        return
    try:
        formatted = format_rules(text)
    except RuleError:
        return  # a macro that nobody includes makes no sense
    assert accepted(formatted) == before
    assert format_rules(formatted) == formatted


def formatted_alike(text: str) -> bool:
    """A second formatting changes nothing, and the first nothing that counts."""
    try:
        formatted = format_rules(text)
    except RuleError:
        return True  # a macro that nobody includes makes no sense
    return format_rules(formatted) == formatted and accepted(formatted) == accepted(text)


def test_explain_and_format_agree_with_the_recorded_programs(vectors: Any) -> None:
    for case in vectors("rule_language.json")["cases"]:
        output = accepted(case["source"])
        if output is not None:
            assert compile_rules(explain(output)).output() == output, case["id"]
            assert formatted_alike(case["source"]), case["id"]
        if case["ok"]:  # what the original wrote, its defects included
            text = explain(case["output"])
            assert case["output"] in (accepted(text), accepted(text, compatible=True)), case["id"]


REFUSED = [  # defect, text, position and a part of the message
    ("D4", "tag t id 1 enum 3 x default nosuch;", (1, 28), "a number or one of x"),
    ("D5", "tag t id 1 default -5;", (1, 19), "write 0 to 4294967295"),
    ("D5", "tag t id 1 default 4294967296;", (1, 19), "write 0 to 4294967295"),
    ("D7", "accept ipsrc 10.0.0.0/99;", (1, 13), "write 10.0.0.0/8"),
    ("D7", "accept ipdest foo::bar/64;", (1, 14), "write fd00::/8"),
    ("D8", "accept dport 80x-90y;", (1, 13), 'write "80-90"'),
    ("D8", "accept macsrc 02:00:5E:10:00:01:99;", (1, 14), 'write "02:00:5e:10:00:01"'),
    ("D8", "accept icmp 3 any;", (1, 14), "write -1"),
    ("D8", "macro m($p) accept vlan $p ; ; include m(12abc)", (1, 24), 'write "12"'),
    ("D9", "tee xyz deadbeef11;", (1, 4), "write a number of bytes"),
    ("D10", "redirect abcdefghij;", (1, 9), "write its 10 hex digits"),
    ("D13", "macro a include b ;\nmacro b include a ;\ninclude a", (2, 9), "a -> b -> a"),
    ("E24", "tee 64;", (1, 4), "needs a node address"),  # D14
    ("E57", "tag t id 1 default accept x; ;", (1, 19), "cannot stand in a tag"),  # D14
    ("E23", "tee\n  65536\n     deadbeef11\n;", (2, 3), "outside -1 to 65535"),  # D15
    ("E01", "# remark\r\naccept bogus;", (2, 8), "bogus"),  # D16
    ("E01", "accept # x\r\n\r\n bogus;", (3, 2), "bogus"),  # D16
    ("D17", "accept dport 80\n drop\n", (2, 2), 'end it with ";"'),
    ("E01", "accept constructor;", (1, 7), "is no match"),  # D18
]


@pytest.mark.parametrize(("code", "text", "place", "part"), REFUSED)
def test_safe_mode_refuses(code: str, text: str, place: tuple[int, int], part: str) -> None:
    with pytest.raises(RuleError) as caught:
        compile_rules(text)
    error = caught.value
    assert (error.code, (error.line, error.column)) == (code, place)
    assert part in error.message


TAGGED = "tag t id 1 flag 31 high enum 1 yes default"
CORRECTED = [  # defect, text, the same without it, a part of the warning
    ("D1", "drop; accept vlan 1;", None, 'write "drop framesize 0-65535;"'),
    ("D2", "Accept vlan 1; DROP vlan 2;", "accept vlan 1; drop vlan 2;", 'write "accept"'),
    ("D3", "accept chr inbound,multicast;", None, "4000000000000000"),
    ("D4", f"{TAGGED} YES;", f"{TAGGED} yes;", 'write "yes"'),
    ("D5", f"{TAGGED} 0x80000000;", f"{TAGGED} 2147483648;", "write 0 to 2147483647"),
    ("D6", f"{TAGGED} 0; drop tand t high;", f"{TAGGED} 0; drop tand t 2147483648;", "0 to 30"),
    ("D10", "tee 9 DEADBEEF11;", "tee 9 deadbeef11;", 'write "deadbeef11"'),
    ("D11", "macro m($a) tee 9 $a ; ; include m(deadbeef11)", "tee 9 deadbeef11;", "its value"),
    ("D12", "accept ipprotocol icmp;", "accept ipprotocol icmp4;", 'write "icmp4"'),
    ("D18", "cap constructor id 1;", None, "write another"),
]


@pytest.mark.parametrize(("code", "text", "same", "part"), CORRECTED)
def test_safe_mode_corrects_and_warns(code: str, text: str, same: str | None, part: str) -> None:
    compiled = compile_rules(text)
    assert part in next(w.message for w in compiled.warnings if w.code == code)
    if same is not None:
        assert compiled.output() == compile_rules(same).output()
    try:
        reference = compile_rules(text, compatible=True).output()
    except RuleError:
        return
    assert reference != compiled.output() or code == "D2"


def test_every_defect_has_its_case() -> None:
    named = {case[0] for case in (*REFUSED, *CORRECTED)} | {"D14", "D15", "D16"}
    assert {f"D{number}" for number in range(1, 19)} <= named


def test_what_safe_mode_makes_of_repaired_rules() -> None:
    compiled = compile_rules("drop;\naccept chr inbound,multicast;")
    kinds = [rule["type"] for rule in compiled.config["rules"]]
    assert kinds == ["ACTION_DROP", "MATCH_CHARACTERISTICS", "ACTION_ACCEPT"]
    assert compiled.config["rules"][1]["mask"] == "c000000000000000"
    assert {"D1", "D3", "L6"} <= {warning.code for warning in compiled.warnings}


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("tag a id 1; tag b id 1 default 0; accept;", "L1"),
        ("tag a id 1; accept;", "L2"),
        ("accept vlan 1;\n" * 600, "L3"),
        ("accept or ethertype arp;", "L4"),
        ("drop ethertype arp;", "L5"),
        ("accept; drop ethertype arp;", "L6"),
        ("accept random 50%;", "L7"),
    ],
)
def test_lint(text: str, code: str) -> None:
    assert code in {warning.code for warning in compile_rules(text).warnings}


@pytest.mark.parametrize(
    "entry",
    [
        {"type": "ACTION_PRIORITY"},
        {"type": "INTEGER_RANGE", "not": False, "or": False},
        {"type": "MATCH_VLAN_ID", "vlanId": 1},  # no action behind it
        {"type": "ACTION_TEE", "address": "deadbeef11", "length": 1, "flags": 4},
        {"type": "ACTION_TEE"},
        {"type": 7},
        "ACTION_DROP",
    ],
)
def test_explain_refuses_what_has_no_words(entry: Any) -> None:
    with pytest.raises(RuleError):
        explain({"rules": [entry]})


KEYS = ["rules", "tags", "capabilities", "id", "type", "default", "tagsByName", "config"]
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=3)
    ),
    max_leaves=20,
)


@given(st.dictionaries(st.sampled_from(KEYS), json_values, max_size=4))
def test_explain_of_any_json_raises_nothing_else(value: dict[str, Any]) -> None:
    try:
        explain(value)
    except RuleError as error:
        assert error.code == "E92"


def test_hostile_sizes_are_bounded() -> None:
    bomb = "".join(f"macro m{i} include m{i + 1} include m{i + 1} ; " for i in range(40))
    with pytest.raises(RuleError, match="more than"):
        compile_rules(f"{bomb} macro m40 accept ethertype arp; ; include m0")
    values = f"macro m($a) {'accept chr $a; ' * 5000} ; include m({'1' * 5000})"
    with pytest.raises(RuleError):
        compile_rules(values)


@pytest.mark.parametrize("enabled", [True, False])
def test_the_collector_is_left_as_it_was(enabled: bool) -> None:
    before = gc.isenabled()
    try:
        (gc.enable if enabled else gc.disable)()
        compile_rules("accept;")
        assert gc.isenabled() is enabled
        with pytest.raises(RuleError):
            compile_rules("accept nonsense;")
        assert gc.isenabled() is enabled
    finally:
        (gc.enable if before else gc.disable)()
