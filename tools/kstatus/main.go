// kstatus reads objects as JSON from the standard input and prints a line for each object: the status that kstatus computes
// and its message, separated by a tab. With -current, it prints what Flux computes from these expressions instead.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"os"

	"github.com/fluxcd/pkg/apis/kustomize"
	"github.com/fluxcd/pkg/runtime/cel"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/cli-utils/pkg/kstatus/status"
)

func main() {
	var of kustomize.HealthCheckExpressions
	flag.StringVar(&of.Current, "current", "", "healthCheckExprs.current of a Flux Kustomization")
	flag.StringVar(&of.Failed, "failed", "", "healthCheckExprs.failed")
	flag.StringVar(&of.InProgress, "in-progress", "", "healthCheckExprs.inProgress")
	flag.Parse()
	for objects := json.NewDecoder(os.Stdin); ; {
		object := unstructured.Unstructured{}
		err := objects.Decode(&object)
		if errors.Is(err, io.EOF) {
			return
		}
		orFatal(err)
		if of.Current != "" {
			flux, err := cel.NewStatusEvaluator(&of)
			orFatal(err)
			result, err := flux.Evaluate(context.Background(), &object)
			orFatal(err)
			fmt.Printf("%s\t\n", result.Status)
			continue
		}
		result, err := status.Compute(&object)
		orFatal(err)
		fmt.Printf("%s\t%s\n", result.Status, result.Message)
	}
}

func orFatal(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
