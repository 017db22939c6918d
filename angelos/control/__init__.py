"""Control (ADAM): decides what may run and what becomes `main`, and carries both roads out.

Control has no table but that of people: its state is a fold of the journal's facts (`state`), and
what remains to be done is a function of that state. So it can be killed at any point and continues
where it was. Cedar decides on permission (`policy/engine.py`, `policy/*.cedar`).

    async with Control(context, PeopleStore(database, journal, clock)) as control:
        view = await control.tasks.submit(principal, SubmitTask(code="print(6 * 7)"))
        view = await control.tasks.view(view.id, wait_s=30)

Reading order: state -> policy -> projection -> effect_runner -> tasks, proposals, rollout.
"""
