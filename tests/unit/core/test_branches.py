"""Names of branches: what we take, git takes."""

import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from angelos.core.branches import (
    BranchName,
    branch_clash,
    branch_name,
    is_branch_name,
    proposal_branch,
    proposal_of,
)
from angelos.core.errors import InvalidInput
from angelos.core.ids import ProposalId, new_proposal_id

GOOD = ["main", "dev", "ada/faster-median", "über/größe", "a", "v1.2", "a@b", "x/y/z", "a-", "#1"]
BAD = [
    "", "/", "a/", "/a", "a//b", ".a", "a/.b", "a.", "a./b", "a.lock", "a.lock/b", "a..b", "a b",
    "a~b", "a^b", "a:b", "a?b", "a*b", "a[b", "a\\b", "a\x7fb", "a\nb", "a@{b", "@", "HEAD", "-a",
    "a" * 201, "a/" * 8 + "a", "e\u0301", "a\u200bb", "\ud800", "0" * 40, "f" * 64,
]  # fmt: skip


@pytest.mark.parametrize("name", GOOD)
def test_a_good_name_is_taken(name):
    assert branch_name(name) == name
    assert is_branch_name(name)


@pytest.mark.parametrize("name", BAD)
def test_a_bad_name_is_refused(name):
    assert not is_branch_name(name)
    with pytest.raises(InvalidInput, match="no name of a branch"):
        branch_name(name)


@settings(max_examples=60, deadline=None)
@given(st.text(alphabet="ab.@{}~^:?*[\\/- \x01é-lockHEAD", min_size=1, max_size=12))
def test_what_we_take_git_takes(name):
    if is_branch_name(name):
        git = ["git", "check-ref-format", "--branch", name]
        answer = subprocess.run(git, capture_output=True, check=False)
        assert answer.returncode == 0, name


def test_a_proposals_branch_names_it():
    proposal = new_proposal_id()
    branch = proposal_branch(proposal)
    assert branch_name(branch) == branch
    assert proposal_of(branch) == proposal
    assert proposal_of(BranchName("proposals/ada")) is None
    assert proposal_of(BranchName("main")) is None
    with pytest.raises(InvalidInput):
        proposal_branch(ProposalId("../main"))


def test_a_branch_cannot_stand_below_or_above_another():
    assert branch_clash({"ada", "bob"}, BranchName("ada/faster")) == "ada"
    assert branch_clash({"ada/faster/still"}, BranchName("ada/faster")) == "ada/faster/still"
    assert branch_clash({"ada/faster", "adam"}, BranchName("ada/slower")) is None
    assert branch_clash({"ada"}, BranchName("ada")) is None
