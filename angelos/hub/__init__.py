"""ARAEL: everything that connects from outside connects here.

The hub knows each node and agent by its certificate, carries commands down to nodes as the queue
holds them, takes their facts up into the journal, serves the control API to them, and cuts off
whoever is quarantined.

    listeners = bind(pki, config)
    async with Hub(HubParts(listeners=listeners, journal=journal, ...)) as hub:
        serve(hub, routes)
        print(hub.url, hub.enrol_url)
        await hub.quarantine(PrincipalId("agent/rogue"), "wrote to a protected path")
"""
