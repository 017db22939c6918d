"""Control (ADAM): decides what may run and what becomes `main`, and sees both roads through.

Control keeps no tables but people: its state is a fold of the journal's facts (`state.py`), and
what remains to be done is a function of that state. So it can be killed at any point and goes on
where it was. Decisions about permission are Cedar's (`policy.py`, `policy/*.cedar`).

    async with Control(parts, People(database)) as control:
        view = await control.tasks.submit(principal, SubmitTask(code="print(6 * 7)"))
        view = await control.tasks.view(view.id, wait_s=30)

Reading order: models -> state -> policy -> ledger -> supervisor -> tasks, pipeline, rollout.
"""
