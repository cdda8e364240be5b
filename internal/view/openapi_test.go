package view_test

import (
	"encoding/json"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"portsentry/internal/view"
)

// schema is as much of a JSON schema as a Go type says by itself.
type schema struct {
	Type       any               // string or array of strings
	Required   []string          // sorted
	Properties map[string]schema // nil: no object
	Items      *schema
	Ref        string `json:"$ref"`
}

// TestOpenAPI: the schemas of docs/openapi.json are the nouns of this package, field by
// field.
func TestOpenAPI(t *testing.T) {
	raw, err := os.ReadFile("../../docs/openapi.json")
	if err != nil {
		t.Fatal(err)
	}
	var doc struct {
		Components struct{ Schemas map[string]schema }
	}
	if err := json.Unmarshal(raw, &doc); err != nil {
		t.Fatal(err)
	}
	for _, noun := range []any{
		view.Refusal{}, view.Watched{}, view.Counter{}, view.Status{}, view.Health{}, view.Ban{}, view.PastBan{}, view.BanList{},
		view.Changed{}, view.Unbanned{}, view.Pending{}, view.PendingList{}, view.Modes{}, view.Event{}, view.EventList{}, view.Source{},
		view.SourceList{}, view.Packet{}, view.Rule{}, view.Why{}, view.Tally{}, view.Report{},
	} {
		of := reflect.TypeOf(noun)
		said, ok := doc.Components.Schemas[of.Name()]
		if !ok {
			t.Errorf("no schema %s", of.Name())
			continue
		}
		delete(doc.Components.Schemas, of.Name())
		slices.Sort(said.Required)
		for name, p := range said.Properties { // of a slice nothing says whether it may be null
			if p.Items != nil {
				p.Type = "array"
				said.Properties[name] = p
			}
		}
		if diff := cmp.Diff(objectOf(of), said); diff != "" {
			t.Errorf("%s: (-Go +docs/openapi.json):\n%s", of.Name(), diff)
		}
	}
	for name := range doc.Components.Schemas {
		t.Errorf("schema %s is of no noun", name)
	}
}

// objectOf is the schema of a struct.
func objectOf(of reflect.Type) schema {
	s := schema{Type: "object", Properties: make(map[string]schema)}
	for _, f := range reflect.VisibleFields(of) {
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		if f.Anonymous || name == "-" {
			continue
		}
		optional := strings.Contains(options, "omitempty") || strings.Contains(options, "omitzero")
		s.Properties[name] = schemaOf(f.Type, optional)
		if !optional {
			s.Required = append(s.Required, name)
		}
	}
	slices.Sort(s.Required)
	return s
}

func schemaOf(of reflect.Type, optional bool) schema {
	switch {
	case of == reflect.TypeFor[time.Time]():
		return schema{Type: "string"}
	case of.Kind() == reflect.Pointer:
		s := schemaOf(of.Elem(), true)
		if !optional && s.Ref == "" {
			s.Type = []any{s.Type, "null"}
		}
		return s
	case of.Kind() == reflect.Slice:
		items := schemaOf(of.Elem(), true)
		return schema{Type: "array", Items: &items}
	case of.Kind() == reflect.Struct && strings.HasSuffix(of.PkgPath(), "/view"):
		return schema{Ref: "#/components/schemas/" + of.Name()}
	case of.Kind() == reflect.Bool:
		return schema{Type: "boolean"}
	case of.Kind() == reflect.Float64:
		return schema{Type: "number"}
	case of.Kind() == reflect.String, of.Kind() == reflect.Struct:
		return schema{Type: "string"} // of the others, addresses and the like are text
	}
	return schema{Type: "integer"}
}
