{{- define "tidings.name" -}}
{{- .Values.nameOverride | default .Chart.Name | trunc 63 | trimSuffix "-" -}}
{{- end }}

{{- define "tidings.fullname" -}}
{{- $name := include "tidings.name" . -}}
{{- $full := ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) -}}
{{- .Values.fullnameOverride | default $full | trunc 63 | trimSuffix "-" -}}
{{- end }}

{{/* The full name with a suffix, of at most 63 characters: list . "lease". */}}
{{- define "tidings.named" -}}
{{- $suffix := last . -}}
{{- include "tidings.fullname" (first .) | trunc (int (sub 62 (len $suffix))) | trimSuffix "-" }}-{{ $suffix }}
{{- end }}

{{- define "tidings.selectorLabels" -}}
app.kubernetes.io/name: {{ include "tidings.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "tidings.labels" -}}
{{ include "tidings.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "tidings.serviceAccountName" -}}
{{- $default := ternary (include "tidings.fullname" .) "default" .Values.serviceAccount.create -}}
{{- .Values.serviceAccount.name | default $default -}}
{{- end }}

{{- define "tidings.image" -}}
{{- with .Values.image -}}
{{- $repository := required "image.repository is not set: build the image from the Dockerfile, push it to a registry, and set image.repository to its repository there" .repository -}}
{{- if .digest -}}
{{ $repository }}@{{ .digest }}
{{- else -}}
{{ $repository }}:{{ .tag | default $.Chart.AppVersion }}
{{- end -}}
{{- end -}}
{{- end }}

{{/* "true" where this release installs the policy that checks access to Secrets, else empty. */}}
{{- define "tidings.checksSecretAccess" -}}
{{- $policy := .Values.crds.secretAccessPolicy -}}
{{- $wanted := or (eq $policy "Always") (and (eq $policy "Auto") (not .Values.requireSecretConsent)) -}}
{{- if and .Values.crds.install $wanted -}}true{{- end -}}
{{- end }}

{{/* Everything the operator may do, in a namespace or in all of them. Add nothing that it can work without. */}}
{{- define "tidings.rules" -}}
- apiGroups: [tidings.dev]
  resources: [subscribers, notifications]
  verbs: [get, list, watch]
- apiGroups: [tidings.dev]
  resources: [subscribers/status, notifications/status]
  verbs: [patch]
- apiGroups: [tidings.dev]
  resources: [notifications]
  verbs: [delete]
- apiGroups: [""]
  resources: [secrets, configmaps]
  verbs: [get, list, watch]
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create, patch]
{{- end }}

{{/* A Lease has no name yet when it is created, so that right cannot be bound to one. */}}
{{- define "tidings.leaseRules" -}}
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  verbs: [create]
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  resourceNames: [{{ include "tidings.fullname" . | quote }}]
  verbs: [get, update]
{{- end }}

{{- define "tidings.subject" -}}
- kind: ServiceAccount
  name: {{ include "tidings.serviceAccountName" . }}
  namespace: {{ .Release.Namespace }}
{{- end }}

{{/* What every Pod of the release runs as, and how its image is pulled. */}}
{{- define "tidings.podSecurity" -}}
securityContext:
  runAsNonRoot: true
  {{- with .Values.runAsUser }}
  runAsUser: {{ int64 . }}
  {{- end }}
  {{- with .Values.runAsGroup }}
  runAsGroup: {{ int64 . }}
  {{- end }}
  seccompProfile:
    type: RuntimeDefault
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "tidings.containerSecurity" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities:
    drop: [ALL]
{{- end }}
