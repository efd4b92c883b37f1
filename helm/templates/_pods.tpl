{{- /* What every pod of the chart says. Service links are off: a service called wirthforge would otherwise put
     WIRTHFORGE_PORT=tcp://… into the environment, which the server reads as its port. */ -}}
{{- define "wirthforge.podBasics" -}}
serviceAccountName: {{ include "wirthforge.serviceAccountName" . }}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- /* (dict "user" 999): the users of official images differ. */ -}}
{{- define "wirthforge.podSecurityOf" -}}
runAsNonRoot: true
runAsUser: {{ .user }}
runAsGroup: {{ .user }}
fsGroup: {{ .user }}
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- define "wirthforge.placement" -}}
{{- with .nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .topologySpreadConstraints }}
topologySpreadConstraints:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .runtimeClassName }}
runtimeClassName: {{ . }}
{{- end }}
{{- end -}}

{{- /* The archive's volume can be on one node at a time, unless it is ReadWriteMany: then a new server starts where the
     old one is (the first one anywhere), and jobs go there too if they can. Own affinities count before these. */ -}}
{{- define "wirthforge.besideArchive" -}}
{{- $term := dict "topologyKey" "kubernetes.io/hostname" "labelSelector" (dict "matchLabels" (include "wirthforge.selectorLabels" (dict "root" .root "component" "server") | fromYaml)) -}}
{{- $rule := dict "requiredDuringSchedulingIgnoredDuringExecution" (list $term) -}}
{{- if not (eq .component "server") -}}
{{- $rule = dict "preferredDuringSchedulingIgnoredDuringExecution" (list (dict "weight" 100 "podAffinityTerm" $term)) -}}
{{- end -}}
{{- $own := dict -}}
{{- with .root.Values.persistence -}}
{{- if and .enabled (not .existingClaim) (not (has "ReadWriteMany" .accessModes)) -}}
{{- $own = dict "podAffinity" $rule -}}
{{- end -}}
{{- end -}}
{{- mergeOverwrite $own (deepCopy (default dict .root.Values.affinity)) | toYaml -}}
{{- end -}}

{{- /* Where the server logs in. (dict "root" $ "as" "app"), or "owner" for those who may change tables. */ -}}
{{- define "wirthforge.databaseEnv" -}}
{{- $values := .root.Values -}}
{{- if $values.postgresql.enabled }}
{{- /* The chart's own Postgres has no certificate; a policy keeps others from it. */ -}}
{{- $user := eq .as "owner" | ternary "wirthforge" "wirthforge_login" }}
- name: POSTGRES_LOGIN_PASSWORD
  valueFrom:
    secretKeyRef:
      name: {{ include "wirthforge.authSecret" .root }}
      key: {{ .as }}-password
- name: {{ eq .as "owner" | ternary "DATABASE_OWNER_URL" "DATABASE_URL" }}
  value: postgresql://{{ $user }}:$(POSTGRES_LOGIN_PASSWORD)@{{ include "wirthforge.fullname" .root }}-postgresql:5432/wirthforge?sslmode=disable
{{- else }}
- name: {{ eq .as "owner" | ternary "DATABASE_OWNER_URL" "DATABASE_URL" }}
  valueFrom:
    secretKeyRef:
      name: {{ $values.externalDatabase.existingSecret }}
      key: {{ eq .as "owner" | ternary $values.externalDatabase.ownerUrlKey $values.externalDatabase.urlKey }}
{{- end }}
{{- end -}}

{{- define "wirthforge.redisEnv" -}}
{{- if .Values.redis.enabled }}
- name: REDIS_PASSWORD
  valueFrom:
    secretKeyRef:
      name: {{ include "wirthforge.authSecret" . }}
      key: redis-password
- name: REDIS_URL
  value: redis://:$(REDIS_PASSWORD)@{{ include "wirthforge.fullname" . }}-redis:6379/0
{{- else }}
- name: REDIS_URL
  valueFrom:
    secretKeyRef:
      name: {{ .Values.externalRedis.existingSecret }}
      key: {{ .Values.externalRedis.urlKey }}
{{- end }}
{{- end -}}

{{- /* A container of the server's image, without its name and what it runs. */ -}}
{{- define "wirthforge.containerBasics" -}}
image: {{ include "wirthforge.image" (dict "image" .Values.image "tag" .Chart.AppVersion) }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
securityContext:
  {{- toYaml .Values.containerSecurityContext | nindent 2 }}
{{- end -}}

{{- /* A CA of one's own for a Postgres or Redis elsewhere: /tls/database/ca.crt, /tls/redis/ca.crt.
     (dict "root" $ "of" (list "database" "redis")) */ -}}
{{- define "wirthforge.caVolumes" -}}
{{- $values := .root.Values -}}
{{- $all := dict "database" (dict "on" (not $values.postgresql.enabled) "ca" $values.externalDatabase.ca) "redis" (dict "on" (not $values.redis.enabled) "ca" $values.externalRedis.ca) -}}
{{- range .of }}
{{- $one := get $all . }}
{{- if and $one.on (or $one.ca.existingSecret $one.ca.existingConfigMap) }}
- name: {{ . }}-ca
  {{- with $one.ca.existingSecret }}
  secret:
    secretName: {{ . }}
  {{- else }}
  configMap:
    name: {{ $one.ca.existingConfigMap }}
  {{- end }}
    items:
      - key: {{ $one.ca.key }}
        path: ca.crt
{{- end }}
{{- end }}
{{- end -}}

{{- define "wirthforge.caMounts" -}}
{{- $of := .of -}}
{{- range include "wirthforge.caVolumes" . | fromYamlArray }}
- name: {{ .name }}
  mountPath: /tls/{{ trimSuffix "-ca" .name }}
  readOnly: true
{{- end }}
{{- end -}}

{{- /* Waits until the migration has run, ten minutes at the most. `serve` would end at once and be started again later
     and later. */ -}}
{{- define "wirthforge.waitForSchema" -}}
- name: wait-for-schema
  {{- include "wirthforge.containerBasics" . | nindent 2 }}
  args: [migrate, --wait, "600"]
  env:
    {{- include "wirthforge.databaseEnv" (dict "root" . "as" "app") | trim | nindent 4 }}
  resources:
    {{- toYaml .Values.jobResources | nindent 4 }}
  volumeMounts:
    - name: tmp
      mountPath: /tmp
    {{- with include "wirthforge.caMounts" (dict "root" . "of" (list "database")) | trim }}
    {{- . | nindent 4 }}
    {{- end }}
{{- end -}}
