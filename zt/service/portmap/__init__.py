"""Port mapping: asks the router for a public port by NAT-PMP, PCP or UPnP (chapter 03, 6.7).

mapper ──► policy      what to do next and when: no I/O, no clock
   ├─────► gateway     datagrams to the router, with messages (NAT-PMP, PCP)
   └─────► upnp        a child process that runs igd (miniupnpc)
"""
