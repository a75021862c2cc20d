# Ports are matched by name and protocol, never by number; each family is for itself.
# A port without a name matches every name, on either side.
cluster paris 7
connect paris
put home clustermesh/local/v1/services/shop/dns here
put paris cilium/state/services/v1/paris/shop/dns there
start
where 10.96.0.10:53/UDP udp
where 10.96.0.10:53 tcp
where 10.96.0.10:9/SCTP sctp
where [fd96::10]:53/UDP six
where 10.96.0.10:80 plain

put paris cilium/state/services/v1/paris/shop/dns renamed
where 10.96.0.10:53/UDP refused
where 10.96.0.10:53 tcp
where 10.96.0.10:9/SCTP refused
where [fd96::10]:53/UDP refused
where 10.96.0.10:80 tcp

put home clustermesh/local/v1/services/shop/dns unnamed
where 10.96.0.10:53/UDP udp
where 10.96.0.10:80 untouched
delete home clustermesh/local/v1/services/shop/dns
where 10.96.0.10:53/UDP untouched
clean

-- here --
{"namespace":"shop","name":"dns","global":true,"frontends":[
 {"address":"10.96.0.10","port":53,"name":"dns","protocol":"UDP"},
 {"address":"10.96.0.10","port":53,"name":"dns-tcp"},
 {"address":"10.96.0.10","port":9,"name":"assoc","protocol":"SCTP"},
 {"address":"fd96::10","port":53,"name":"dns","protocol":"UDP"},
 {"address":"10.96.0.10","port":80}]}
-- unnamed --
{"namespace":"shop","name":"dns","global":true,"frontends":[
 {"address":"10.96.0.10","port":53,"protocol":"UDP"}]}
-- there --
{"cluster":"paris","namespace":"shop","name":"dns","clusterID":7,"shared":true,"includeExternal":true,
 "frontends":{},"backends":{
 "10.7.0.1":{"dns":{"Protocol":"UDP","Port":5353},"dns-tcp":{"Protocol":"TCP","Port":5353}},
 "10.7.0.2":{"":{"Protocol":"SCTP","Port":9},"probe":{"Protocol":"TCP","Port":8080}},
 "fd07::1":{"dns":{"Protocol":"UDP","Port":5300},"other":{"Protocol":"UDP","Port":5300}}}}
-- renamed --
{"cluster":"paris","namespace":"shop","name":"dns","clusterID":7,"shared":true,"includeExternal":true,
 "frontends":{},"backends":{
 "10.7.0.1":{"domain":{"Protocol":"UDP","Port":5353},"dns-tcp":{"Protocol":"TCP","Port":5353}},
 "fd07::1":{"assoc":{"Protocol":"sctp","Port":5300}}}}
-- udp --
10.7.0.1:5353
-- tcp --
10.7.0.1:5353
-- sctp --
10.7.0.2:9
-- six --
[fd07::1]:5300
-- plain --
10.7.0.1:5353
10.7.0.2:8080
