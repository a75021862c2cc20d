# A copy made by kvstoremesh: the cluster's name is in other places, the outcome is the same.
# What is not shared is no offer; a service without backends refuses at once.
cluster paris 7 cached
connect paris
put home clustermesh/local/v1/services/shop/cart here-empty
put paris cilium/cache/services/v1/paris/shop/cart there
start
where 10.96.0.10:80 theirs
put paris cilium/cache/services/v1/paris/shop/cart not-shared
where 10.96.0.10:80 refused
put paris cilium/cache/services/v1/paris/shop/cart there
where 10.96.0.10:80 theirs
put home clustermesh/local/v1/services/shop/cart not-global
where 10.96.0.10:80 untouched
clean

-- here-empty --
{"namespace":"shop","name":"cart","global":true,"frontends":[{"address":"10.96.0.10","port":80}]}
-- not-global --
{"namespace":"shop","name":"cart","frontends":[{"address":"10.96.0.10","port":80}]}
-- there --
{"cluster":"paris","namespace":"shop","name":"cart","clusterID":7,"shared":true,"includeExternal":true,
 "frontends":{},"backends":{"10.7.0.1":{"http":{"Protocol":"TCP","Port":8080}}}}
-- not-shared --
{"cluster":"paris","namespace":"shop","name":"cart","clusterID":7,"shared":false,
 "backends":{"10.7.0.1":{"http":{"Protocol":"TCP","Port":8080}}}}
-- theirs --
10.7.0.1:8080
