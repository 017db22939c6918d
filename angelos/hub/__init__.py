"""ARAEL: the hub, to which nodes and agents connect.

The hub authenticates each node and agent by its certificate, delivers the queue's commands to
nodes, appends their facts to the journal, serves the control API to them, and cuts off a principal
that is quarantined.

    listeners = bind(pki, config)
    async with Hub(HubParts(listeners=listeners, journal=journal, ...)) as hub:
        serve(hub, routes)
        print(hub.url, hub.enrol_url)
        await hub.quarantine(PrincipalId("agent/rogue"), "wrote to a protected path")
"""
