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

{{/* Name under which the cluster reads the others: of its own where they list their peers. */}}
{{- define "clustermesh.remoteUser" -}}
{{- if .Values.peers }}remote-{{ .Values.cluster.name }}{{ else }}remote{{ end }}
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
{{- if hasKey .Values.remotes $name }}
{{- fail (printf "remotes: %s is this cluster itself" $name) }}
{{- end }}
{{- end }}
