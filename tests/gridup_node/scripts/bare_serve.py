"""The node's api process without its guard: what the benchmark holds the guarded one against."""

import sys

from gridup_node import app, serve

app.create = lambda folder, node, _proxies: app.syft_app(app.start_server(folder, node), node)
sys.exit(serve.main())
