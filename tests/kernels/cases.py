"""Recorded data of docs/protocol/01 in the line format of check.c.

usage: python -m tests.kernels.cases [DIR]  (default tests/vectors), lines on standard output
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def lines(folder: Path) -> Iterator[str]:
    """One line per case; files that are not there give none."""

    def load(name: str) -> dict[str, Any]:
        path = folder / name
        return json.loads(path.read_text()) if path.exists() else {}

    def line(*words: Any) -> str:
        return " ".join(str(word) or "-" for word in words)

    salsa = load("crypto_salsa20.json")
    for c in salsa.get("cases", []):
        yield line("salsa20", c["rounds"], c["key"], c["iv"], 0, c["input"], c["output"])
    for c in salsa.get("chunked_cases", []):
        counter = 0
        for data, output in zip(c["inputs"], c["outputs"], strict=True):
            yield line("salsa20", c["rounds"], c["key"], c["iv"], counter, data, output)
            counter += -(-len(data) // 128)
    for c in load("crypto_poly1305.json").get("cases", []):
        yield line("poly1305", c["key"], c["message"], c["tag"])
    for c in load("kbkdf.json").get("cases", []):
        yield line("kbkdf", c["key"], c["label"], c["context"], c["iteration"], c["output"])
    for name in ("armor_salsa.json", "armor_aes_gmac_siv.json"):
        armor = load(name)
        for c in armor.get("cases", []):
            suite = c.get("suite", 3)
            yield line("seal", c["key48"], suite, c["packet_plain"], c["packet_armored"])
            yield line("open", c["key48"], c["packet_armored"], c["packet_dearmored"])
        for c in armor.get("relayed", []):
            yield line("open", c["key48"], c["packet"], c["packet_dearmored"])
        for c in armor.get("tampered", []):
            yield line("fail", c["key48"], c["packet"])
        for c in armor.get("gmac", []):
            if len(c["data"]) > 2 * 16:
                yield line("gmac", c["key"], c["iv"], c["data"], c["tag"])
    for c in load("hello_cryptfield.json").get("cases", []):
        start = c["crypted_start"]
        yield line("hello", c["key48"], c["packet_plain"], start, c["tail_crypted"])
    for c in load("identity.json").get("memory_hard", []):
        yield line("memhash", c["public_key"], c["final_digest"])


if __name__ == "__main__":
    for text in lines(Path(sys.argv[1] if len(sys.argv) > 1 else "tests/vectors")):
        print(text)
