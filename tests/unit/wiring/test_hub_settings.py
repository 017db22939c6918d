"""Where the hub listens: options before the environment before `angelos.toml`."""

from __future__ import annotations

import pytest

from angelos.core.errors import InvalidInput
from angelos.core.ids import PrincipalId
from angelos.hub.fairness import IdentityLimits
from angelos.wiring.settings import HubSettings, enrol_address, load

FILE = '[hub]\nhost = "0.0.0.0"\nport = 7443\nnames = ["angelos.example.org", "10.0.0.7"]\n'


def test_without_settings_it_listens_on_this_machine_alone(tmp_path):
    assert load({}, data_dir=tmp_path).hub == HubSettings(host="127.0.0.1", port=0, names=())


def test_options_go_before_the_environment_and_that_before_the_file(tmp_path):
    (tmp_path / "angelos.toml").write_text(FILE)
    by_file = load({}, data_dir=tmp_path).hub
    assert by_file == HubSettings(
        host="0.0.0.0", port=7443, names=("angelos.example.org", "10.0.0.7")
    )
    env = {"ANGELOS_HUB_PORT": "7500", "ANGELOS_HUB_NAMES": " a.example , ::1 ,"}
    by_env = load(env, data_dir=tmp_path).hub
    assert by_env == HubSettings(host="0.0.0.0", port=7500, names=("a.example", "::1"))
    options = {"host": "10.1.1.1", "port": None, "names": ()}
    by_option = load(env, data_dir=tmp_path, hub=options).hub
    assert by_option == HubSettings(host="10.1.1.1", port=7500, names=("a.example", "::1"))


@pytest.mark.parametrize(
    "env",
    [
        {"ANGELOS_HUB_PORT": "many"},
        {"ANGELOS_HUB_PORT": "-1"},
        {"ANGELOS_HUB_PORT": "65535"},  # the next one is for enrolment
        {"ANGELOS_HUB_PORT": "٣"},
        {"ANGELOS_HUB_HOST": "a b"},
        {"ANGELOS_HUB_HOST": "0.0.0.0"},  # nobody could tell others where it is
        {"ANGELOS_HUB_HOST": "::"},
        {"ANGELOS_HUB_NAMES": "ok.example,https://no.example"},
        {"ANGELOS_HUB_NAMES": "-no.example"},
        {"ANGELOS_HUB_NAMES": "a" * 300},
        {"ANGELOS_HUB_GATEWAY": "gw.example"},
        {"ANGELOS_HUB_GATEWAY": "gw.example:0"},
        {"ANGELOS_HUB_GATEWAY": "gw.example:65535"},
        {"ANGELOS_HUB_GATEWAY": "https://gw.example:7443"},
    ],
)
def test_what_cannot_be_is_refused(tmp_path, env):
    with pytest.raises(InvalidInput):
        load(env, data_dir=tmp_path)


def test_tokens_name_the_port_after_that_of_the_gateway(tmp_path):
    hub = load({"ANGELOS_HUB_GATEWAY": " [::1]:7443 "}, data_dir=tmp_path).hub
    assert enrol_address(hub.gateway) == "https://[::1]:7444"


@pytest.mark.parametrize(
    "text",
    [
        "[hub",
        "[hub]\nports = 1\n",
        "[hub.limits]\nitems = 0\n",
        "[hub.limits]\ncpu = nan\n",
        "[hub.limits]\nbytes = inf\n",
        "[hub.limits]\nmessages = 5\n",
        "[other]\n",
        '[hub]\nport = "x"\n',
        "[hub]\nport = 70000\n",
        b"\xff",
    ],
)
def test_a_file_that_is_none_is_named(tmp_path, text):
    body = text if isinstance(text, bytes) else text.encode()
    (tmp_path / "angelos.toml").write_bytes(body)
    with pytest.raises(InvalidInput, match=r"angelos\.toml"):
        load({}, data_dir=tmp_path)


def test_detection_and_budgets_stand_in_the_file_and_mistakes_in_them_are_named(tmp_path):
    file = tmp_path / "angelos.toml"
    file.write_text(
        '[detection]\nstatistical = "enforce"\n[budgets.every]\ntasks = 9\n'
        "[budgets.agents.ada]\ncpu_s = 5\n"
    )
    settings = load({}, data_dir=tmp_path)
    assert settings.detection.statistical == "enforce"
    ada, eve = (settings.budgets.of(PrincipalId(f"agent/{name}")) for name in ("ada", "eve"))
    assert (ada.cpu_s, ada.tasks, eve.tasks) == (5, 9, 9)
    assert eve.cpu_s == 14_400
    for wrong in (
        "[detection]\ncertain = 'perhaps'",
        "[detection]\nwindow_s = -1",
        "[budgets.every]\ntasks = -1",
        "[budgets.agents.ada]\nbananas = 3",
        "[detecton]",
    ):
        file.write_text(wrong)
        with pytest.raises(InvalidInput):
            load({}, data_dir=tmp_path)


def test_limits_of_each_identity_come_from_the_file(tmp_path):
    (tmp_path / "angelos.toml").write_text("[hub.limits]\nitems = 500\ncpu = 0.25\n")
    limits = load({}, data_dir=tmp_path).hub.limits
    assert (limits.items, limits.cpu) == (500, 0.25)
    assert limits.requests == IdentityLimits().requests
