# A peer that was read directly is read as a copy of kvstoremesh, and directly again: facts that are
# told again stay, what only the other layout has is gone.
cluster paris 7
connect paris
put home clustermesh/local/v1/services/shop/cart here
put paris cilium/state/services/v1/paris/shop/cart there
put paris cilium/cache/services/v1/paris/shop/cart copied
start
where 10.96.0.10:80 direct
cluster paris 7 cached
where 10.96.0.10:80 copy
put paris cilium/state/services/v1/paris/shop/cart copied
delete paris cilium/cache/services/v1/paris/shop/cart
where 10.96.0.10:80 refused
cluster paris 7
where 10.96.0.10:80 copy
settled

-- here --
{"namespace":"shop","name":"cart","global":true,"frontends":[{"address":"10.96.0.10","port":80}]}
-- there --
{"cluster":"paris","namespace":"shop","name":"cart","clusterID":7,"shared":true,"includeExternal":true,
 "frontends":{},"backends":{"10.7.0.1":{"http":{"Protocol":"TCP","Port":8080}}}}
-- copied --
{"cluster":"paris","namespace":"shop","name":"cart","clusterID":7,"shared":true,"includeExternal":true,
 "frontends":{},"backends":{"10.7.0.2":{"http":{"Protocol":"TCP","Port":8080}}}}
-- direct --
10.7.0.1:8080
-- copy --
10.7.0.2:8080
