# A service of two clusters. A lost connection keeps what was known; removal drains it.
cluster paris 7
put home clustermesh/local/v1/services/shop/cart here
put paris cilium/state/services/v1/paris/shop/cart there
start
where 10.96.0.10:80 only-here
connect paris
where 10.96.0.10:80 both
outage paris
where 10.96.0.10:80 both
heal paris
settled
where 10.96.0.10:80 both
outage paris
forget paris                    # the peer is not needed for that
where 10.96.0.10:80 only-here

delete home clustermesh/local/v1/services/shop/cart
where 10.96.0.10:80 untouched
clean

-- here --
{"namespace":"shop","name":"cart","global":true,"shared":true,
 "frontends":[{"address":"10.96.0.10","port":80,"name":"http"}],
 "backends":[{"address":"10.1.0.1","ports":[{"name":"http","port":8080}]}]}
-- there --
{"cluster":"paris","namespace":"shop","name":"cart","clusterID":7,"shared":true,"includeExternal":true,
 "frontends":{},"backends":{"10.7.0.1":{"http":{"Protocol":"TCP","Port":8080}}}}
-- both --
10.1.0.1:8080
10.7.0.1:8080
-- only-here --
10.1.0.1:8080
