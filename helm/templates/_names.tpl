{{- define "wirthforge.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- (contains $name .Release.Name | ternary .Release.Name (printf "%s-%s" .Release.Name $name)) | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- /* What finds a component's pods. Never changes, since selectors cannot. (dict "root" $ "component" "server") */ -}}
{{- define "wirthforge.selectorLabels" -}}
app.kubernetes.io/name: {{ default .root.Chart.Name .root.Values.nameOverride | trunc 40 | trimSuffix "-" }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{- define "wirthforge.labels" -}}
{{ include "wirthforge.selectorLabels" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- with .root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- /* (dict "image" .Values.image "tag" .Chart.AppVersion) */ -}}
{{- define "wirthforge.image" -}}
{{- if .image.digest -}}
{{ .image.repository }}@{{ .image.digest }}
{{- else -}}
{{ .image.repository }}:{{ default .tag .image.tag }}
{{- end -}}
{{- end -}}

{{- define "wirthforge.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{ default (include "wirthforge.fullname" .) .Values.serviceAccount.name }}
{{- else -}}
{{ default "default" .Values.serviceAccount.name }}
{{- end -}}
{{- end -}}

{{- define "wirthforge.authSecret" -}}
{{ default (printf "%s-auth" (include "wirthforge.fullname" .)) .Values.auth.existingSecret }}
{{- end -}}

{{- define "wirthforge.dataClaim" -}}
{{ default (printf "%s-data" (include "wirthforge.fullname" .)) .Values.persistence.existingClaim }}
{{- end -}}

{{- /* What people type, without a slash at the end; empty if nothing says. */ -}}
{{- define "wirthforge.publicUrl" -}}
{{- if .Values.publicUrl -}}
{{- .Values.publicUrl | trimSuffix "/" -}}
{{- else if .Values.ingress.enabled -}}
{{- $first := first .Values.ingress.hosts -}}
{{- printf "%s://%s" (.Values.ingress.tls | empty | ternary "http" "https") $first.host -}}
{{- else if and .Values.route.enabled .Values.route.hostnames -}}
{{- printf "https://%s" (first .Values.route.hostnames) -}}
{{- end -}}
{{- end -}}

{{- /* One engine with its defaults and its image filled in, as YAML. (dict "root" $ "engine" $engine) */ -}}
{{- define "wirthforge.engine" -}}
{{- $merged := mergeOverwrite (deepCopy .root.Values.engineDefaults) (deepCopy .engine) -}}
{{- $hasGpu := gt (int $merged.gpu.count) 0 -}}
{{- $image := and (eq $merged.kind "llama-server") $hasGpu | ternary "llama-server-gpu" $merged.kind -}}
{{- $default := deepCopy (index .root.Values.engineImages $image) -}}
{{- $_ := set $merged "image" (mergeOverwrite $default (default dict $merged.image)) -}}
{{- $_ := set $merged "fullname" (printf "%s-engine-%s" (include "wirthforge.fullname" .root) $merged.name) -}}
{{- toYaml $merged -}}
{{- end -}}

{{- /* The setting `engines`: [name=][kind+]URL, divided by commas (docs/engines.md). */ -}}
{{- define "wirthforge.engineUrls" -}}
{{- $found := list -}}
{{- range .Values.engines -}}
{{- $engine := include "wirthforge.engine" (dict "root" $ "engine" .) | fromYaml -}}
{{- $path := eq $engine.kind "tgi" | ternary "" "/v1" -}}
{{- $found = append $found (printf "%s=%s+http://%s:8000%s" $engine.name $engine.kind $engine.fullname $path) -}}
{{- end -}}
{{- if .Values.ray.enabled -}}
{{- /* KubeRay makes this service, and moves it to a new cluster when that one is ready. */ -}}
{{- $found = append $found (printf "ray=openai+http://%s-ray-serve-svc:8000/v1" (include "wirthforge.fullname" .)) -}}
{{- end -}}
{{- range .Values.externalEngines -}}
{{- $found = append $found (printf "%s=%s+%s" .name .kind .url) -}}
{{- end -}}
{{- join "," $found -}}
{{- end -}}

{{- /* The variables that hold the keys of engines, and the setting `engine_keys` made of them: name=$(VARIABLE), which
     Kubernetes fills in, so that no manifest has a key. */ -}}
{{- define "wirthforge.engineKeysEnv" -}}
{{- $found := list -}}
{{- if .Values.engines }}
- name: ENGINE_KEY
  valueFrom:
    secretKeyRef:
      name: {{ include "wirthforge.authSecret" . }}
      key: engine-key
{{- range .Values.engines }}{{ $found = append $found (printf "%s=$(ENGINE_KEY)" .name) }}{{ end }}
{{- end }}
{{- range $place, $engine := .Values.externalEngines }}
{{- if $engine.existingSecret }}
- name: ENGINE_KEY_{{ $place }}
  valueFrom:
    secretKeyRef:
      name: {{ $engine.existingSecret }}
      key: {{ default "api-key" $engine.key }}
{{- $found = append $found (printf "%s=$(ENGINE_KEY_%d)" $engine.name $place) }}
{{- end }}
{{- end }}
{{- with $found }}
- name: WIRTHFORGE_ENGINE_KEYS
  value: {{ join "," . | quote }}
{{- end }}
{{- end -}}

{{- /* Where an engine that the chart runs looks for the key that it asks for. vLLM asks for it below /v1, TGI where text
     is made, llama-server everywhere but at /health, so probes need none. */ -}}
{{- define "wirthforge.engineKeyEnv" -}}
- name: {{ get (dict "vllm" "VLLM_API_KEY" "tgi" "API_KEY" "llama-server" "LLAMA_API_KEY") .kind }}
  valueFrom:
    secretKeyRef:
      name: {{ include "wirthforge.authSecret" .root }}
      key: engine-key
{{- end -}}
