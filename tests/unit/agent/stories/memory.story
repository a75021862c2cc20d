# What a node remembers from one run of its agent to the next: the last good policy of a service
# whose annotations are refused, and the name of a cluster that only the maps have heard of.
cluster paris 7
connect paris
put home clustermesh/local/v1/services/shop/cart drained
put paris cilium/state/services/v1/paris/shop/cart there
start
settled
where 10.96.0.10:80 only-here
put home clustermesh/local/v1/services/shop/cart misspelt
restart
settled
where 10.96.0.10:80 only-here-moved
restart                         # what was restored is kept for the next run, too
settled
where 10.96.0.10:80 only-here-moved
put home clustermesh/local/v1/services/shop/cart plain
where 10.96.0.10:80 both
put home clustermesh/local/v1/services/shop/cart misspelt
restart                         # the last good policy was none
settled
where 10.96.0.10:80 both-moved

put home clustermesh/local/v1/services/shop/cart plain
where 10.96.0.10:80 both
outage paris
lose_state
put home clustermesh/local/v1/services/shop/cart drained
start
overdue paris
where 10.96.0.10:80 only-here
put home clustermesh/local/v1/services/shop/cart plain
where 10.96.0.10:80 both
forget paris
restart
where 10.96.0.10:80 only-here

-- drained --
{"namespace":"shop","name":"cart","global":true,"shared":true,
 "annotations":{"service.clustermesh.io/weights":"paris=0"},
 "frontends":[{"address":"10.96.0.10","port":80,"name":"http"}],
 "backends":[{"address":"10.1.0.1","ports":[{"name":"http","port":8080}]}]}
-- misspelt --
{"namespace":"shop","name":"cart","global":true,"shared":true,
 "annotations":{"service.clustermesh.io/weights":"paris=none"},
 "frontends":[{"address":"10.96.0.10","port":80,"name":"http"}],
 "backends":[{"address":"10.1.0.2","ports":[{"name":"http","port":8080}]}]}
-- plain --
{"namespace":"shop","name":"cart","global":true,"shared":true,
 "frontends":[{"address":"10.96.0.10","port":80,"name":"http"}],
 "backends":[{"address":"10.1.0.1","ports":[{"name":"http","port":8080}]}]}
-- there --
{"cluster":"paris","namespace":"shop","name":"cart","clusterID":7,"shared":true,"includeExternal":true,
 "frontends":{},"backends":{"10.7.0.1":{"http":{"Protocol":"TCP","Port":8080}}}}
-- only-here --
10.1.0.1:8080
-- only-here-moved --
10.1.0.2:8080
-- both --
10.1.0.1:8080
10.7.0.1:8080
-- both-moved --
10.1.0.2:8080
10.7.0.1:8080
