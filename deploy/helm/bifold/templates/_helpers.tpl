{{- define "bifold.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" }}
{{- end }}

{{- define "bifold.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" }}
{{- else if contains (include "bifold.name" .) .Release.Name }}
{{- .Release.Name | trunc 40 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name (include "bifold.name" .) | trunc 40 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "bifold.selector" -}}
app.kubernetes.io/name: {{ include "bifold.name" .root }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .role }}
{{- end }}

{{- define "bifold.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
{{ include "bifold.selector" . }}
{{- end }}

{{- define "bifold.serviceAccount" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "bifold.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{- define "bifold.image" -}}
{{ .Values.image.repository }}:{{ default .Chart.AppVersion .Values.image.tag }}
{{- end }}

{{- define "bifold.pipeline" -}}
{{- default (printf "%s-pipeline" (include "bifold.fullname" .)) .Values.existingPipeline }}
{{- end }}

{{/* A key of bifold.toml as an environment variable: dots become two underscores. */}}
{{- define "bifold.variable" -}}
BIFOLD_{{ . | replace "." "__" | upper }}
{{- end }}

{{/* What a pod of any role is: .root, .role, .values, .args, .port (0: none). */}}
{{- define "bifold.pod" -}}
metadata:
  labels:
    {{- include "bifold.selector" . | nindent 4 }}
  annotations:
    checksum/settings: {{ include (print .root.Template.BasePath "/configmap.yaml") .root | sha256sum }}
    {{- with .values.podAnnotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  serviceAccountName: {{ include "bifold.serviceAccount" .root }}
  automountServiceAccountToken: false
  enableServiceLinks: false
  {{- with .root.Values.imagePullSecrets }}
  imagePullSecrets:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  securityContext:
    {{- toYaml .root.Values.podSecurityContext | nindent 4 }}
  {{- if .port }}
  # SIGTERM commits what is folded; it takes at most 30 s.
  terminationGracePeriodSeconds: 40
  topologySpreadConstraints:
    - maxSkew: 1
      topologyKey: kubernetes.io/hostname
      whenUnsatisfiable: ScheduleAnyway
      labelSelector:
        matchLabels:
          {{- include "bifold.selector" . | nindent 10 }}
  {{- else }}
  restartPolicy: Never
  {{- end }}
  containers:
    - name: {{ .role }}
      image: {{ include "bifold.image" .root | quote }}
      imagePullPolicy: {{ .root.Values.image.pullPolicy }}
      args:
        {{- toYaml .args | nindent 8 }}
      envFrom:
        - configMapRef:
            name: {{ include "bifold.fullname" .root }}
        {{- with .root.Values.store.existingSecret }}
        - secretRef:
            name: {{ . }}
        {{- end }}
      {{- if or .root.Values.kafka.secretProperties .root.Values.extraEnv }}
      env:
        {{- range $key, $secret := .root.Values.kafka.secretProperties }}
        - name: {{ include "bifold.variable" (printf "kafka.properties.%s" $key) }}
          valueFrom:
            secretKeyRef:
              {{- toYaml $secret | nindent 14 }}
        {{- end }}
        {{- with .root.Values.extraEnv }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      {{- end }}
      {{- if .port }}
      ports:
        - name: http
          containerPort: {{ .port }}
      startupProbe:
        httpGet: {path: /healthz, port: http}
        periodSeconds: 1
        failureThreshold: 60
      livenessProbe:
        httpGet: {path: /healthz, port: http}
        periodSeconds: 10
        timeoutSeconds: 5
        failureThreshold: 6
      readinessProbe:
        httpGet: {path: /readyz, port: http}
        periodSeconds: 3
        timeoutSeconds: 3
      {{- end }}
      resources:
        {{- toYaml .values.resources | nindent 8 }}
      securityContext:
        {{- toYaml .root.Values.securityContext | nindent 8 }}
      volumeMounts:
        - name: pipeline
          mountPath: /etc/bifold/pipeline
          readOnly: true
        - name: data
          mountPath: /var/lib/bifold
        - name: tmp
          mountPath: /tmp
  volumes:
    - name: pipeline
      configMap:
        name: {{ include "bifold.pipeline" .root }}
    - name: data
      emptyDir:
        sizeLimit: {{ .root.Values.scratch.sizeLimit }}
    - name: tmp
      emptyDir:
        sizeLimit: 64Mi
  {{- with .values.nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .values.tolerations }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .values.affinity }}
  affinity:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end }}
