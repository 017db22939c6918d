"""Detection of agents that misbehave: pure, from facts.

Certain signals rest on single facts that no honest agent causes, statistical ones on how an agent
departs from what it, or its role, has done before. See `signals` for what is watched, `rates` and
`calls` for the statistics, `tracks` for what is kept of each agent.
"""
