"""How ranks are fused, and what the benchmark reads of somebody else's questions."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

from angelos.memory.ranking import Ranks, fused, ranked
from tests.unit.llm.needs import need_ml

BENCHMARK = Path(__file__).resolve().parents[3] / "benchmarks" / "memory.py"


def test_what_both_ways_put_first_comes_first():
    both, meaning, words = Ranks(1, 1), Ranks(1, None), Ranks(None, 1)
    order = ranked([(way, way, 1.0) for way in (words, both, meaning)], 3)
    assert [way for way, _ in order] == [both, meaning, words]
    assert order[0][1] == fused(both) == 1.4 / 4


def test_what_is_middling_both_ways_does_not_beat_what_is_first_by_meaning():
    assert fused(Ranks(1, None)) > fused(Ranks(6, 6))


def _benchmark():
    need_ml()
    spec = importlib.util.spec_from_file_location("benchmark_memory", BENCHMARK)
    benchmark = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(benchmark)
    return benchmark


def test_a_file_of_locomo_is_read_as_questions_with_the_turns_that_answer_them(tmp_path):
    benchmark = _benchmark()
    turns = [{"dia_id": f"D1:{n}", "speaker": "Ada", "text": f"said {n}"} for n in (1, 2)]
    sample = {
        "conversation": {"speaker_a": "Ada", "session_1": turns, "session_1_date_time": "May"},
        "qa": [
            {"question": "What was second?", "evidence": ["D1:2", "D1:1"]},
            {"question": "Of another dialogue?", "evidence": ["D9:9"]},
            {"question": "Without evidence?", "evidence": []},
        ],
    }
    path = tmp_path / "locomo.json"
    path.write_text(json.dumps([sample]), encoding="utf-8")
    assert benchmark.locomo(path) == [("What was second?", "Ada: said 2")]


def test_questions_are_divided_by_their_passage_and_compared_with_an_interval():
    benchmark = _benchmark()
    pairs = benchmark.questions()
    asked = [(question, text) for question, text in pairs if question]
    assert len(asked) >= 100
    assert len(pairs) > len(asked)
    assert len({text for _, text in asked}) == len(asked)
    rows = [benchmark.Ranking(text, [text], []) for _, text in asked]
    assert 40 <= sum(row.tunes for row in rows) <= len(asked) - 40

    both = benchmark.compared([*rows, benchmark.Ranking("x", ["y", "x"], ["x"])] * 20)
    gain, low, high = both["hybrid - vector"]
    assert 0 <= low <= gain <= high
    assert both["hybrid - text"][1] > 0


def test_each_figure_stands_beside_its_bound():
    near = {"recall@10": 0.99, "p99": 20.0}
    found = {
        "nearest": {"vectors": 1000, "memory": near, "hnswlib": near},
        "insertions": {"a_minute": 9_000, "checked": 12_000},
        "questions": {"hybrid - vector": [0.02, -0.01, 0.05], "hybrid - text": [0.2, 0.1, 0.3]},
    }
    reached = [row["ratio"] >= row["at_least"] for row in _benchmark().bounds(found)]
    assert reached == [True, False, False, True, False, True]
