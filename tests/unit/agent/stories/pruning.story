# Maps that hold what nobody wants any more, from before a restart: all of it goes.
cluster paris 7
connect paris
put home clustermesh/local/v1/services/shop/cart here
put paris cilium/state/services/v1/paris/shop/cart there
start
where 10.96.0.10:80 both
settled
keep
delete home clustermesh/local/v1/services/shop/cart
where 10.96.0.10:80 untouched
clean
stop
put_back
where 10.96.0.10:80 both         # as if nothing had been removed
start
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
