"""With the real client: a domain asks a network node to be associated, its owner agrees, and both know it."""

import json
import sys
import time

import syft as sy

told = json.loads(sys.stdin.read())
root = sy.login(url=told["url"], email=told["email"], password=told["password"])
gateway = sy.login(url=told["network"], email=told["email"], password=told["network_password"])
seen = {"first": type(root.connect_to_gateway(gateway)).__name__}
for request in gateway.api.services.request.get_all():
    request.approve()
seen["after approval"] = str(root.connect_to_gateway(gateway).message)
seen["known there"] = [peer.name for peer in gateway.api.services.network.get_all_peers()]
seen["known here"] = [peer.name for peer in root.api.services.network.get_all_peers()]

# A data scientist's project names a route to the node, and the node does not follow it.
root.users.create(email=told["her"], name="Ada", password=told["hers"], password_verify=told["hers"])
her = sy.login(url=told["url"], email=told["her"], password=told["hers"])


@sy.syft_function(input_policy=sy.ExactMatch(), output_policy=sy.SingleExecutionExactOutput())
def one():
    return 1


project = her.create_project(name="P", description="d", user_email_address=told["her"])
seen["project"] = str(project.create_code_request(one, her).message)
seen["requests"] = len(root.api.services.request.get_all())
# The network node asks its peers by itself whether they are well.
for _ in range(150):
    status = gateway.api.services.network.get_all_peers()[0].ping_status
    seen["health"] = status.value if status else None
    # On a busy machine it may have missed the first answer.
    if seen["health"] == "ACTIVE":
        break
    time.sleep(2)
print(json.dumps(seen))
