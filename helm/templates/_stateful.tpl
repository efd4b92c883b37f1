{{- /* The volume of a StatefulSet, which Kubernetes keeps over upgrades, rollbacks and the end of the release. */ -}}
{{- define "wirthforge.statefulVolume" -}}
volumeClaimTemplates:
  - apiVersion: v1
    kind: PersistentVolumeClaim
    metadata:
      name: data
      {{- with .persistence.annotations }}
      annotations:
        {{- toYaml . | nindent 8 }}
      {{- end }}
    spec:
      accessModes: [ReadWriteOnce]
      {{- with .persistence.storageClass }}
      storageClassName: {{ . | quote }}
      {{- end }}
      resources:
        requests:
          storage: {{ .persistence.size }}
{{- end -}}

{{- define "wirthforge.statefulService" -}}
apiVersion: v1
kind: Service
metadata:
  name: {{ .name }}
  labels:
    {{- include "wirthforge.labels" .labels | nindent 4 }}
spec:
  clusterIP: None
  selector:
    {{- include "wirthforge.selectorLabels" .labels | nindent 4 }}
  ports:
    - name: {{ .portName }}
      port: {{ .port }}
      targetPort: {{ .portName }}
{{- end -}}

{{- /* The three probes of a part that a command asks. The list is the command. */ -}}
{{- define "wirthforge.execProbes" -}}
{{- $probe := dict "exec" (dict "command" .) "timeoutSeconds" 5 -}}
startupProbe:
  {{- merge (dict "periodSeconds" 5 "failureThreshold" 120) $probe | toYaml | nindent 2 }}
livenessProbe:
  {{- merge (dict "periodSeconds" 10 "failureThreshold" 6) $probe | toYaml | nindent 2 }}
readinessProbe:
  {{- merge (dict "periodSeconds" 5 "failureThreshold" 3) $probe | toYaml | nindent 2 }}
{{- end -}}
