"""Dictionaries: chapter 02, 5; chapter 04, 4."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zt.protocol.address import Address
from zt.protocol.dictionary import METADATA_CAPACITY, Dictionary, DictionaryWriter, escape, unescape


def add(writer: DictionaryWriter, key: str, kind: str, value: object) -> bool:
    if kind in ("string", "binary"):
        return writer.blob(key, bytes.fromhex(value))
    if kind in ("u64", "i64"):
        return getattr(writer, kind)(key, int(value))
    if kind == "bool":
        return writer.boolean(key, value)
    assert kind == "address"
    return writer.u64(key, Address.parse(value))


def test_encode(vectors):
    for case in vectors("dictionary_format.json")["encode"]:
        writer = DictionaryWriter()
        for entry in case["adds"]:
            assert add(writer, entry["key"], entry["type"], entry["value"])
        assert bytes(writer).hex() == case["serialized"], case["description"]
        if "text" in case:
            assert bytes(writer).decode("latin-1") == case["text"]


def test_decode(vectors):
    for case in vectors("dictionary_format.json")["decode"]:
        blob = bytes.fromhex(case["blob"])
        dictionary = Dictionary.decode(blob, METADATA_CAPACITY)
        assert len(blob.partition(b"\0")[0][: METADATA_CAPACITY - 1]) == case["size_bytes"]
        for want in case["gets"]:
            value = dictionary.get(want["key"])
            if want["n"] < 0:
                assert value is None
                assert want["key"] not in dictionary
            else:
                assert value is not None
                assert value[: want["destlen"] - 1].hex() == want["value"], case["description"]


def test_numbers(vectors):
    for case in vectors("dictionary_format.json")["numbers"]["cases"]:
        dictionary = Dictionary.decode(b"k=" + case["text"].encode())
        assert dictionary.u64("k", 12345) == int(case["as_u64"]), case
        assert dictionary.i64("k", 12345) == int(case["as_i64"]), case
        assert dictionary.boolean("k", True) == case["as_bool"], case
        assert dictionary.address("k") == dictionary.u64("k") % 2**40


def test_capacity(vectors):
    for case in vectors("dictionary_format.json")["capacity"]:
        writer = DictionaryWriter(case["capacity"])
        for entry in case["adds"]:
            assert writer.blob(entry["key"], bytes.fromhex(entry["value"])) == entry["added"]
            assert len(writer) == entry["size_after"]
        assert bytes(writer).hex() == case["serialized"]


def test_networks_dictionaries(vectors):
    for case in vectors("dictionary.json")["cases"]:
        if "add" in case:
            writer = DictionaryWriter()
            for entry in case["add"]:
                key = entry["key"]
                if "u64" in entry:
                    writer.u64(key, int(entry["u64"], 16))
                elif "i64" in entry:
                    writer.i64(key, entry["i64"])
                elif "bool" in entry:
                    writer.boolean(key, entry["bool"])
                else:
                    writer.blob(key, bytes.fromhex(entry["hex"]))
            assert bytes(writer).hex() == case["dictionary"], case["description"]
        dictionary = Dictionary.decode(bytes.fromhex(case["dictionary"]))
        for want in case["got"]:
            value = dictionary.get(want["key"])
            assert (-1 if value is None else len(value)) == want["length"], case["description"]
            assert (value or b"").hex() == want["value"]
            assert dictionary.u64(want["key"], 0xDDDD) == int(want["as_u64"], 16)
            assert dictionary.boolean(want["key"]) == want["as_bool"]


def test_text_is_never_an_error():
    dictionary = Dictionary.decode(b"n=\xff\xfe" + b"x" * 200)
    assert dictionary.text("n", 4) == "\ufffd\ufffdxx"
    assert dictionary.text("none") == ""


@given(st.binary())
def test_escape_is_undone(value):
    escaped = escape(value)
    assert not set(b"\0\r\n=") & set(escaped)
    assert unescape(escaped) == value


def slow_unescape(value: bytes) -> bytes:
    out, i = bytearray(), 0
    while i < len(value):
        if value[i] == 0x5C:
            i += 1
            if i < len(value):
                c = value[i : i + 1]
                out += {b"0": b"\0", b"r": b"\r", b"n": b"\n", b"e": b"="}.get(c, c)
        else:
            out.append(value[i])
        i += 1
    return bytes(out)


@given(st.lists(st.sampled_from([b"\\", b"0", b"r", b"n", b"e", b"x", b"="])).map(b"".join))
def test_unescape_reads_from_the_left(value):
    assert unescape(value) == slow_unescape(value)


@given(st.dictionaries(st.text("abcXYZ .", max_size=4), st.binary(max_size=40), max_size=8))
def test_round_trip(entries):
    writer = DictionaryWriter()
    for key, value in entries.items():
        writer.blob(key, value)
    assert dict(Dictionary.decode(bytes(writer)).items()) == entries


@pytest.mark.parametrize("value", [0, 1, 2**64 - 1])
def test_u64_round_trip(value):
    writer = DictionaryWriter()
    writer.u64("k", value)
    assert Dictionary.decode(bytes(writer)).u64("k") == value
