{{/* The labels by which the DaemonSet finds its Pods. */}}
{{- define "kube-dnat.selectorLabels" -}}
app.kubernetes.io/name: kube-dnat
{{- end }}

{{/* The labels of every object. */}}
{{- define "kube-dnat.labels" -}}
{{- $own := include "kube-dnat.selectorLabels" . | fromYaml }}
{{- $_ := set $own "app.kubernetes.io/instance" .Release.Name }}
{{- $_ := set $own "app.kubernetes.io/version" .Chart.AppVersion }}
{{- $_ := set $own "app.kubernetes.io/managed-by" .Release.Service }}
{{- $_ := set $own "helm.sh/chart" (printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_") }}
{{- merge $own (.Values.commonLabels | default dict) | toYaml }}
{{- end }}

{{- define "kube-dnat.image" -}}
{{- with .Values.image }}
{{- if .digest }}{{ .repository }}@{{ .digest }}
{{- else }}{{ .repository }}:{{ .tag | default $.Chart.AppVersion }}
{{- end }}
{{- end }}
{{- end }}

{{/* The kubeconfig in the Secret. */}}
{{- define "kube-dnat.kubeconfig" -}}
/etc/kube-dnat/kubeconfig
{{- end }}

{{/* The KubeProxyConfiguration. */}}
{{- define "kube-dnat.config" -}}
{{- $config := deepCopy (.Values.config | default dict) }}
{{- if not $config.mode }}
{{- $_ := set $config "mode" "nftables" }}
{{- end }}
{{- if .Values.kubeconfigSecret }}
{{- $client := $config.clientConnection | default dict }}
{{- $_ := set $client "kubeconfig" (include "kube-dnat.kubeconfig" .) }}
{{- $_ := set $config "clientConnection" $client }}
{{- end }}
{{- toYaml $config }}
{{- end }}

{{/* Host and port of an address, as JSON: of "ADDRESS:PORT", "[ADDRESS]:PORT" or "ADDRESS". */}}
{{- define "kube-dnat.split" -}}
{{- $address := .address | default "" }}
{{- $host := $address }}
{{- $port := .port }}
{{- if regexMatch "^(\\[.*\\]|[^:]+):[0-9]+$" $address }}
{{- $host = regexReplaceAll ":[0-9]+$" $address "" | trimPrefix "[" | trimSuffix "]" }}
{{- $port = regexReplaceAll "^.*:" $address "" | int }}
{{- end }}
{{- dict "host" $host "port" $port | toJson }}
{{- end }}

{{/* The port of the metrics. */}}
{{- define "kube-dnat.metricsPort" -}}
{{- $config := .Values.config | default dict }}
{{- $split := include "kube-dnat.split" (dict "address" $config.metricsBindAddress "port" 10249) | fromJson }}
{{- .Values.monitoring.port | default $split.port }}
{{- end }}

{{/* The probe of an endpoint. Kubeadm's ConfigMap can move the port: there the program asks, which reads
the same file as the daemon. */}}
{{- define "kube-dnat.probe" -}}
{{- $config := .root.Values.config | default dict }}
{{- if .root.Values.existingConfigMap }}
exec:
  command:
    - /usr/local/bin/kube-dnat
    - probe
    - {{ .endpoint }}
    - --config=/var/lib/kube-proxy/config.conf
{{- else }}
{{- $loopback := ternary "::1" "127.0.0.1" (contains ":" ($config.bindAddress | default "")) }}
{{- $split := include "kube-dnat.split" (dict "address" $config.healthzBindAddress "port" 10256) | fromJson }}
httpGet:
  host: {{ get (dict "" $loopback "0.0.0.0" "127.0.0.1" "::" "::1") $split.host | default $split.host | quote }}
  path: /{{ .endpoint }}
  port: {{ $split.port }}
{{- end }}
{{- end }}

{{/* How Prometheus names the targets. */}}
{{- define "kube-dnat.relabelings" -}}
# Instances have the names of their nodes, as for kube-proxy.
- sourceLabels: [__meta_kubernetes_pod_node_name]
  targetLabel: instance
{{- with .root.Values.monitoring.job }}
- targetLabel: job
  replacement: {{ . | quote }}
{{- end }}
{{- with .monitor.relabelings }}
{{ toYaml . }}
{{- end }}
{{- end }}
