"""What every plane shares: message types, ids, errors, grants, revisions and the ports.

Pure code only: nothing here opens a socket, starts a task or reads the environment. Planes
meet here and nowhere else.

    >>> from angelos.core.ids import new_task_id
    >>> new_task_id(now_ms=0).startswith("task-")
    True
"""
