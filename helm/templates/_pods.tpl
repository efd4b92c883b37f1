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

{{- /* Where the server logs in. (dict "root" $ "as" "app"), or "owner" for those who may change tables. */ -}}
{{- define "wirthforge.databaseEnv" -}}
{{- $values := .root.Values -}}
{{- if $values.postgresql.enabled }}
{{- $user := eq .as "owner" | ternary "wirthforge" "wirthforge_login" }}
- name: POSTGRES_LOGIN_PASSWORD
  valueFrom:
    secretKeyRef:
      name: {{ include "wirthforge.authSecret" .root }}
      key: {{ .as }}-password
- name: {{ eq .as "owner" | ternary "DATABASE_OWNER_URL" "DATABASE_URL" }}
  value: postgresql://{{ $user }}:$(POSTGRES_LOGIN_PASSWORD)@{{ include "wirthforge.fullname" .root }}-postgresql:5432/wirthforge
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

{{- /* Waits until the migration has run, ten minutes at the most. `serve` would end at once and be started again later
     and later. */ -}}
{{- define "wirthforge.waitForSchema" -}}
- name: wait-for-schema
  {{- include "wirthforge.containerBasics" . | nindent 2 }}
  command:
    - python
    - -c
    - |
      import asyncio, os, sys, time
      from server.db.migrate import require_newest
      from server.errors import StartError
      last = ""
      for _ in range(300):
          try:
              asyncio.run(require_newest(os.environ["DATABASE_URL"]))
          except StartError as error:
              if error.message != last:
                  print(last := error.message, flush=True)
              time.sleep(2)
          else:
              sys.exit(0)
      sys.exit("Waited for ten minutes: the migration job's log says more.")
  env:
    {{- include "wirthforge.databaseEnv" (dict "root" . "as" "app") | trim | nindent 4 }}
  resources:
    {{- toYaml .Values.jobResources | nindent 4 }}
  volumeMounts:
    - name: tmp
      mountPath: /tmp
{{- end -}}
