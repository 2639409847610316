"""Settings that the original does not have: which suite we send, which offloads are used."""

from zt.service import localconf


def parse(text: str) -> localconf.LocalConf:
    return localconf.parse(text.encode())


def test_suite_1_can_be_asked_for() -> None:
    assert parse("{}").node.aes
    assert parse('{"settings": {"cipherSuite": 3}}').node.aes
    assert not parse('{"settings": {"cipherSuite": 1}}').node.aes


def test_features_of_the_data_plane_can_be_forced_off() -> None:
    conf = parse('{"settings": {"dataPlane": {"tap_tso": false, "udp_gso": true}}}')
    assert conf.data_plane == {"tap_tso": False, "udp_gso": True}
    assert conf.warnings == ()


def test_what_is_no_feature_is_warned_about_and_left_out() -> None:
    conf = parse('{"settings": {"dataPlane": {"warp": true, "udp_gro": 1, "udp_threads": 2}}}')
    assert conf.data_plane == {}
    assert [line.split(": ")[2] for line in conf.warnings] == [
        "settings.dataPlane.warp",
        "settings.dataPlane.udp_gro",
        "settings.dataPlane.udp_threads",
    ]
    conf = parse('{"settings": {"dataPlane": 5}}')
    assert conf.data_plane == {}
    assert "settings.dataPlane" in conf.warnings[0]
