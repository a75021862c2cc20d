{{/* Image of the programs. */}}
{{- define "clustermesh.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{/* Labels of everything. */}}
{{- define "clustermesh.labels" -}}
app.kubernetes.io/name: clustermesh
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{/* What other clusters and the apiserver have filled: it stays when the chart does not make it any more. */}}
{{- define "clustermesh.keep" -}}
helm.sh/resource-policy: keep
{{- end }}

{{/* Name under which the cluster reads the others: of its own where they list their peers. */}}
{{- define "clustermesh.remoteUser" -}}
{{- if or .Values.peers .Values.join.enabled }}remote-{{ .Values.cluster.name }}{{ else }}remote{{ end }}
{{- end }}

{{/* Who the programs are to the etcds, by the middle of the Secret's name. */}}
{{- define "clustermesh.users" -}}
server: clustermesh-apiserver.cilium.io
admin: admin-{{ .Values.cluster.name }}
local: local-{{ .Values.cluster.name }}
agent: agent-{{ .Values.cluster.name }}
remote: {{ include "clustermesh.remoteUser" . }}
{{- end }}

{{/* What the etcd's certificate is valid for, as YAML lists. */}}
{{- define "clustermesh.serverNames" -}}
{{- $service := printf "clustermesh-apiserver.%s.svc" .Release.Namespace }}
{{- concat (list "clustermesh-apiserver.cilium.io" "*.mesh.cilium.io" $service) .Values.tls.extraNames | toYaml }}
{{- end }}
{{- define "clustermesh.serverIPs" -}}
{{- concat (list "127.0.0.1" "::1") .Values.tls.extraIPs | toYaml }}
{{- end }}

{{/* The Secret with the way to the other clusters themselves, not to copies of them. */}}
{{- define "clustermesh.remotes" -}}
{{- if .Values.kvstoremesh.enabled }}cilium-kvstoremesh{{ else }}cilium-clustermesh{{ end }}
{{- end }}

{{/* What a client of the other clusters mounts: changes appear in the running process. */}}
{{- define "clustermesh.remotesVolume" -}}
- name: remotes
  projected:
    defaultMode: 0440
    sources:
      - secret:
          name: {{ include "clustermesh.remotes" . }}
          optional: true
      - secret:
          name: clustermesh-apiserver-remote-cert
          optional: true
          items:
            - key: tls.key
              path: common-etcd-client.key
            - key: tls.crt
              path: common-etcd-client.crt
            - key: ca.crt
              path: common-etcd-client-ca.crt
{{- end }}

{{/* What has to be so before anything is made. */}}
{{- define "clustermesh.check" -}}
{{- $name := required "cluster.name: the name of this cluster, different from all others of the mesh" .Values.cluster.name }}
{{- if eq $name "default" }}
{{- fail "cluster.name: `default` stands for a cluster outside of any mesh; choose another name" }}
{{- end }}
{{- if not .Values.cluster.id }}
{{- fail "cluster.id: the number of this cluster, different from all others of the mesh" }}
{{- end }}
{{- if gt (int .Values.cluster.id) (int .Values.cluster.maxConnectedClusters) }}
{{- fail (printf "cluster.id: %d needs cluster.maxConnectedClusters 511, in all clusters of the mesh" (int .Values.cluster.id)) }}
{{- end }}
{{- if and .Values.kvstoremesh.enabled (not .Values.apiserver.enabled) }}
{{- fail "kvstoremesh.enabled: it writes into the etcd of the apiserver, which is not enabled" }}
{{- end }}
{{- if and .Values.join.enabled (not .Values.apiserver.enabled) }}
{{- fail "join.enabled: it is the apiserver that lets clusters join, and it is not enabled" }}
{{- end }}
{{- if and .Values.join.enabled .Values.tls.issuerRef }}
{{- fail "join.enabled: it signs with the key in the Secret clustermesh-ca, which cert-manager (tls.issuerRef) keeps to itself" }}
{{- end }}
{{- if and .Values.agent.enabled .Values.agent.kubeProxyReplacement (not .Values.agent.etcd.ips) }}
{{- fail "agent.kubeProxyReplacement: agents cannot reach their etcd by a Service that they serve themselves; name addresses that need none in agent.etcd.ips" }}
{{- end }}
{{- if hasKey .Values.remotes $name }}
{{- fail (printf "remotes: %s is this cluster itself" $name) }}
{{- end }}
{{- range $other, $_ := .Values.remotes }}
{{- if not (regexMatch "^([a-z0-9][-a-z0-9]{0,30})?[a-z0-9]$" $other) }}
{{- fail (printf "remotes: %s cannot be a cluster's name: 1 to 32 of a-z, 0-9 and -" $other) }}
{{- end }}
{{- end }}
{{- if has $name .Values.peers }}
{{- fail (printf "peers: %s is this cluster itself" $name) }}
{{- end }}
{{- if and .Values.tls.auto (ne (empty .Values.tls.ca.cert) (empty .Values.tls.ca.key)) }}
{{- fail "tls.ca: give certificate and key, or neither" }}
{{- end }}
{{- $ports := list 2379 (int .Values.apiserver.port) (int .Values.apiserver.etcd.metricsPort) }}
{{- if .Values.kvstoremesh.enabled }}{{ $ports = append $ports (int .Values.kvstoremesh.port) }}{{ end }}
{{- if .Values.join.enabled }}{{ $ports = append $ports (int .Values.join.port) }}{{ end }}
{{- if ne (len $ports) (len (uniq $ports)) }}
{{- fail (printf "the containers of one pod share its ports, and one is given twice: %v (etcd's own is 2379)" $ports) }}
{{- end }}
{{- end }}

{{/* Where agents find the etcd of their own cluster, as lines of an etcd client file. */}}
{{- define "clustermesh.ownEtcd" -}}
{{- $server := printf "%s.mesh.cilium.io" .Values.cluster.name -}}
endpoints:
{{- if .Values.agent.etcd.ips }}
  - https://{{ $server }}:{{ .Values.agent.etcd.port }}
cilium-host-aliases:
  {{ $server }}:
    ips:
    {{- range .Values.agent.etcd.ips }}
      - {{ . | quote }}
    {{- end }}
{{- else }}
  - https://clustermesh-apiserver.{{ .Release.Namespace }}.svc:{{ .Values.apiserver.service.port }}
{{- end }}
{{- end }}
