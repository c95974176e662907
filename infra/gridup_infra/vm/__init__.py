"""A node on its own machine (VM): the code that all clouds share. No code here depends on a particular cloud.

A cloud's target creates the machine and its network and passes its address to `resources.declare`. That waits
for the first boot and deploys the node over ssh. asyncssh comes with a cloud's extra, so it is imported only
where it is used.
"""
