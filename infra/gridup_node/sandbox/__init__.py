"""The sandbox: code that a data owner has approved runs in a process of its own, without the node.

`python -m gridup_node.sandbox` is the service: it has no network, no secret and no data, listens on a
socket in a folder that it shares with the api, and makes a process for each job (`supervisor`, `job`,
`confining`). Where no container is around it, it looks for what else there is (`shells`). The api hands over
source text and arguments and takes a result back, in a form of our own (`values`, `client`); `approved` has
syft run code here.
"""
