"""The main job, end to end, on a real repository (`angelos demo`).

study.py    the repository: two modules of the standard library with their doctests
patches.py  what the agents and the person change, as pure functions of the text
agent.py    an agent: a process of its own with its own certificate
world.py    the running system as the steps see it
steps/      the nine steps, each returning the evidence for what it says
"""
