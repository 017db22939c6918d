"""Trees: what has to be loaded, what differs, and paths that exclude each other."""

from __future__ import annotations

import random

from angelos.angelgit.storage import trees
from angelos.core.revision_v2 import EntryMode, TreeEntry, build_tree, update_tree


def loading(step, nodes):
    """Run a step that names what it lacks, until it lacks nothing; what was loaded."""
    loaded = dict(trees.EMPTY)
    while True:
        result, missing = step(loaded)
        if not missing:
            return result, loaded
        loaded |= {digest: nodes[digest] for digest in missing}


def test_differences_read_only_what_differs():
    rng = random.Random(3)
    paths = [f"d{i % 7}/e/f{i}.py" for i in range(900)]
    files = {path: TreeEntry.of(path, path.encode()) for path in paths}
    before = build_tree(files.values())
    changes = dict.fromkeys(rng.sample(sorted(files), 3))
    changes |= {p: TreeEntry.of(p, b"new") for p in ("d1/e/f1.py", "new/x", "d2/e/f2.py/y")}
    changes["d2/e/f2.py"] = None
    changes["d3/e/f3.py"] = files["d3/e/f3.py"]
    after = update_tree(before.root, before.objects.__getitem__, changes)
    nodes = {**before.objects, **after.objects}
    rows, loaded = loading(lambda known: trees.differences(before.root, after.root, known), nodes)
    new = {**files, **changes}
    assert {path: (a, b) for path, a, b in rows} == {
        path: (files.get(path), new.get(path)) for path in new if files.get(path) != new.get(path)
    }
    assert len(loaded) < len(before.objects) / 2
    back, _ = loading(lambda known: trees.differences(after.root, before.root, known), nodes)
    assert {(p, b, a) for p, a, b in back} == set(rows)
    pairs = trees.predecessors(before.root, after.root, nodes)
    assert pairs[after.root] == before.root


def test_a_directory_that_becomes_a_fan_differs_by_its_names():
    few = {f"f{i}": TreeEntry.of(f"f{i}", b"x") for i in range(60)}
    many = {**few, **{f"g{i}": TreeEntry.of(f"g{i}", b"y") for i in range(60)}}
    one, two = build_tree(few.values()), build_tree(many.values())
    nodes = {**one.objects, **two.objects}
    rows, _ = loading(lambda known: trees.differences(one.root, two.root, known), nodes)
    assert {path for path, _, _ in rows} == many.keys() - few.keys()


def test_only_the_way_to_a_path_is_loaded():
    tree = build_tree(TreeEntry.of(f"d{i}/f", b"x") for i in range(500))

    def step(paths):
        return lambda nodes: (None, trees.missing_nodes(tree.root, nodes, paths))

    _, some = loading(step(["d7/f", "none/x"]), tree.objects)
    assert len(some) < 8
    _, every = loading(step(None), tree.objects)
    assert every.keys() == {*tree.objects, *trees.EMPTY}


def test_files_and_folders_cannot_share_a_name():
    tree = build_tree([TreeEntry.of("a", b"", EntryMode.executable), TreeEntry.of("b/c/d", b"")])
    clash = [trees.clash(tree.root, tree.objects, path) for path in ("a/x/y", "b/c", "b/x", "c")]
    assert clash == ["a", "b/c", None, None]
    assert trees.first_below(tree.root, tree.objects, "b") == "b/c/d"
    assert trees.file_below_file(["a/b/c", "b", "a/b"]) == ("a/b", "a/b/c")
    assert trees.file_below_file(["a/b", "ab", "a/c", "a.b"]) is None
