"""The router, with vectors that stand for meanings."""

from __future__ import annotations

import pytest

from tests.unit.llm.needs import need_ml

need_ml()

from angelos.core.errors import InvalidInput  # noqa: E402
from angelos.ml.roles.base import Example  # noqa: E402
from angelos.ml.roles.router import TaskRouter  # noqa: E402

MEANINGS = {"dog": (1.0, 0.0), "cat": (0.8, 0.6), "car": (0.0, 1.0), "bus": (0.0, 1.0)}


def embed(texts):
    return [MEANINGS[text.split()[-1]] for text in texts]


def examples(**labels):
    return [Example(text=t, label=label) for label, texts in labels.items() for t in texts]


TASKS = examples(animals=["a dog", "my dog", "one cat"], machines=["a car", "my bus", "one car"])


def test_a_task_goes_where_its_like_went():
    router = TaskRouter(embed)
    model = router.train(TASKS, {}, seed=0)

    assert [label for label, _ in router.rank(model, "this cat")] == ["animals", "machines"]
    assert router.rank(model, "this bus")[0][0] == "machines"
    assert model.state["centres"].norm(dim=1).tolist() == pytest.approx([1, 1])


def test_it_is_measured_beside_keywords_and_the_majority():
    router = TaskRouter(embed, {"animals": ["dog"], "machines": ["car"]})
    model = router.train([*TASKS, *examples(machines=["the bus"])], {}, seed=0)
    metrics = router.evaluate(model, examples(animals=["the cat", "the dog"], machines=["the bus"]))

    figures = {metric.peer: (metric.value, metric.baseline) for metric in metrics}
    assert figures["keywords"] == (1.0, pytest.approx(2 / 3))  # a cat goes to the majority
    assert figures["the majority"] == (1.0, pytest.approx(1 / 3))


@pytest.mark.parametrize(
    ("data", "config", "says"),
    [
        (examples(animals=["a dog"] * 3), {}, "two labels"),
        (examples(animals=["a dog"] * 3, machines=["a car"]), {}, "'machines'"),
        (TASKS, {"rate": 1}, "'rate'"),
    ],
)
def test_what_cannot_work_is_refused(data, config, says):
    with pytest.raises(InvalidInput, match=says):
        TaskRouter(embed).train(data, config, seed=0)
