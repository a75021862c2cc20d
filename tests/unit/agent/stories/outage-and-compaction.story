# What went while nobody listened is found out by the list that follows.
cluster paris 7
connect paris
put home clustermesh/local/v1/services/shop/cart here
put paris cilium/state/services/v1/paris/shop/cart there
start
where 10.96.0.10:80 both
outage paris
where 10.96.0.10:80 both
heal paris
delete paris cilium/state/services/v1/paris/shop/cart
compact paris
where 10.96.0.10:80 only-here

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
