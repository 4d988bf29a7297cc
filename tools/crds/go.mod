// The projects whose CustomResourceDefinitions examples/gitops is checked against. The Makefile downloads these modules and
// takes the definitions out of them; nothing is built.
module tidings.dev/tools/crds

go 1.26.0

require (
	github.com/external-secrets/external-secrets v1.3.2
	github.com/fluxcd/kustomize-controller v1.9.6
)
