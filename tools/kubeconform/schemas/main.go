// Schemas writes the JSON schemas that kubeconform checks manifests with, one file for each kind:
//
//	schemas FOLDER FILE...
//
// Each FILE is the swagger.json of Kubernetes, or a CustomResourceDefinition in YAML. As kubeconform -strict expects, an
// object may have no property that its schema does not name.
package main

import (
	"encoding/json"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"strings"

	"sigs.k8s.io/yaml"
)

type object = map[string]any

const (
	definitions = "#/definitions/"
	intOrString = "int-or-string"
	quantity    = "io.k8s.apimachinery.pkg.api.resource.Quantity"
)

func main() {
	log.SetFlags(0)
	if len(os.Args) < 3 {
		log.Fatal("usage: schemas FOLDER FILE...")
	}
	folder, written := os.Args[1], 0
	if err := os.MkdirAll(folder, 0o755); err != nil {
		log.Fatal(err)
	}
	for _, file := range os.Args[2:] {
		text, err := os.ReadFile(file)
		if err != nil {
			log.Fatal(err)
		}
		var content object
		if err := yaml.Unmarshal(text, &content); err != nil {
			log.Fatalf("%s: %v", file, err)
		}
		if content["kind"] == "CustomResourceDefinition" {
			written += custom(folder, content)
		} else {
			written += builtIn(folder, content)
		}
	}
	if written == 0 {
		log.Fatal("the files define no kind")
	}
	fmt.Printf("%s: the schemas of %d kinds\n", folder, written)
}

// custom writes the schema of each version of a CustomResourceDefinition.
func custom(folder string, definition object) int {
	spec := definition["spec"].(object)
	versions := spec["versions"].([]any)
	for _, version := range versions {
		version := version.(object)
		schema := version["schema"].(object)["openAPIV3Schema"].(object)
		// The API server adds the fields of ObjectMeta.
		schema["properties"].(object)["metadata"] = object{"type": "object", "x-kubernetes-preserve-unknown-fields": true}
		write(folder, spec["group"], version["name"], spec["names"].(object)["kind"], strict(schema))
	}
	return len(versions)
}

// builtIn writes the schema of each kind of a swagger.json.
func builtIn(folder string, swagger object) int {
	all, written := swagger["definitions"].(object), 0
	// Numbers are quantities, too.
	all[quantity] = object{"type": []any{"string", "number"}}
	for name, schema := range all {
		kinds, _ := schema.(object)["x-kubernetes-group-version-kind"].([]any)
		for _, kind := range kinds {
			kind, reached := kind.(object), object{}
			reach(all, name, reached)
			of := object{"$ref": definitions + name, "definitions": reached}
			write(folder, kind["group"], kind["version"], kind["kind"], of)
			written++
		}
	}
	return written
}

// reach collects the definitions that the definition with this name uses, and itself.
func reach(all object, name string, reached object) {
	if _, known := reached[name]; known {
		return
	}
	reached[name] = nil
	schema := strict(all[name])
	reached[name] = schema
	references(schema, func(name string) { reach(all, name, reached) })
}

func references(schema any, found func(string)) {
	switch schema := schema.(type) {
	case object:
		if to, is := schema["$ref"].(string); is {
			found(strings.TrimPrefix(to, definitions))
		}
		for _, part := range schema {
			references(part, found)
		}
	case []any:
		for _, part := range schema {
			references(part, found)
		}
	}
}

// strict copies a schema without its descriptions, and closes each object whose properties it names.
func strict(schema any) any {
	switch schema := schema.(type) {
	case object:
		copied := object{}
		for key, part := range schema {
			if key == "properties" {
				// Here the keys are names of properties.
				properties := object{}
				for name, property := range part.(object) {
					properties[name] = strict(property)
				}
				copied[key] = properties
			} else if _, isText := part.(string); key != "description" || !isText {
				copied[key] = strict(part)
			}
		}
		if copied["format"] == intOrString || copied["x-kubernetes-int-or-string"] == true {
			return object{"type": []any{"string", "integer"}}
		}
		_, isClosed := copied["additionalProperties"]
		_, hasProperties := copied["properties"]
		if hasProperties && !isClosed && copied["x-kubernetes-preserve-unknown-fields"] != true {
			copied["additionalProperties"] = false
		}
		return copied
	case []any:
		copied := make([]any, len(schema))
		for number, part := range schema {
			copied[number] = strict(part)
		}
		return copied
	default:
		return schema
	}
}

// write writes the schema of a kind under the name that kubeconform gives it: {{.ResourceKind}}{{.KindSuffix}}.json.
func write(folder string, group, version, kind, schema any) {
	text, err := json.Marshal(schema)
	if err != nil {
		log.Fatal(err)
	}
	parts := []string{kind.(string)}
	if of, _, _ := strings.Cut(group.(string), "."); of != "" {
		parts = append(parts, of)
	}
	file := strings.ToLower(strings.Join(append(parts, version.(string)), "-")) + ".json"
	if err := os.WriteFile(filepath.Join(folder, file), text, 0o644); err != nil {
		log.Fatal(err)
	}
}
