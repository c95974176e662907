"""The sandbox: approved code runs in a process of its own, outside of the node.

`python -m gridup_node.sandbox` is the service. It has no network, no secret and no data. It listens on a
socket in a folder that it shares with the api, and creates a process for each job (`supervisor`, `job`,
`confining`). Outside of a container it looks for another isolation layer (`shells`). The api passes source
text and arguments and receives a result, in a format of Gridup's own (`values`, `client`). `approved` makes
syft run code here.
"""
