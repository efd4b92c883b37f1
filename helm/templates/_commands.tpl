{{- /* How each kind of engine is started on port 8000. Flags as of vLLM 0.32, text-generation-inference 3.3.7 and
     llama.cpp of 2026-10. `args` comes last: extraArgs follow. */ -}}

{{- define "wirthforge.command.vllm" -}}
command: [vllm, serve]
args:
  - {{ .model | quote }}
  - --port=8000
  {{- with .servedName }}
  - --served-model-name={{ . }}
  {{- end }}
  {{- if gt (int .gpu.count) 1 }}
  - --tensor-parallel-size={{ .gpu.count | int }}
  {{- end }}
{{- end -}}

{{- define "wirthforge.command.tgi" -}}
command: [text-generation-launcher]
args:
  - --model-id={{ .model }}
  - --hostname=0.0.0.0
  - --port=8000
  - --usage-stats=off
  {{- with .servedName }}
  - --served-model-name={{ . }}
  {{- end }}
  {{- if gt (int .gpu.count) 1 }}
  - --num-shard={{ .gpu.count | int }}
  {{- end }}
{{- end -}}

{{- /* The cache in main memory would mix people's prompts, so it is off (docs/engines.md). */ -}}
{{- define "wirthforge.command.llama-server" -}}
command: [/app/llama-server]
args:
  # A path below /cache, or a repository of Hugging Face with :QUANT behind it.
  - {{ hasPrefix "/" .model | ternary "--model" "--hf-repo" }}
  - {{ .model | quote }}
  - --host
  - 0.0.0.0
  - --port
  - "8000"
  - --parallel
  - {{ .slots | int | quote }}
  - --ctx-size
  - {{ mul (int .slots) (int .contextTokens) | quote }}
  - --cache-ram
  - "0"
  - --metrics
  - --slots
  - --no-webui
  {{- with .servedName }}
  - --alias
  - {{ . | quote }}
  {{- end }}
  {{- if gt (int .gpu.count) 0 }}
  - --n-gpu-layers
  - "999"
  {{- end }}
{{- end -}}
