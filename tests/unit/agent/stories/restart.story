# An agent that comes back to right maps writes nothing: neither with everybody there,
# nor beside a dead peer, whose backends stay through changes of the own cluster.
cluster paris 7
connect paris
put home clustermesh/local/v1/services/shop/cart here
put paris cilium/state/services/v1/paris/shop/cart there
start
where 10.96.0.10:80 both
settled
keep
restart
settled
unwritten

outage paris
restart
where 10.96.0.10:80 both
unwritten
put home clustermesh/local/v1/services/shop/cart here-moved
where 10.96.0.10:80 both-moved
heal paris
settled
where 10.96.0.10:80 both-moved

-- here --
{"namespace":"shop","name":"cart","global":true,"shared":true,
 "frontends":[{"address":"10.96.0.10","port":80,"name":"http"}],
 "backends":[{"address":"10.1.0.1","ports":[{"name":"http","port":8080}]}]}
-- here-moved --
{"namespace":"shop","name":"cart","global":true,"shared":true,
 "frontends":[{"address":"10.96.0.10","port":80,"name":"http"}],
 "backends":[{"address":"10.1.0.2","ports":[{"name":"http","port":8080}]}]}
-- there --
{"cluster":"paris","namespace":"shop","name":"cart","clusterID":7,"shared":true,"includeExternal":true,
 "frontends":{},"backends":{"10.7.0.1":{"http":{"Protocol":"TCP","Port":8080}}}}
-- both --
10.1.0.1:8080
10.7.0.1:8080
-- both-moved --
10.1.0.2:8080
10.7.0.1:8080
