package past_test

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"portsentry/test/harness"
	"portsentry/test/lab"
)

func TestMain(m *testing.M) { os.Exit(lab.Main(m)) }

// soon is when anything is to have happened on a busy machine.
const soon = 20 * time.Second

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// stage is a Lab whose host runs portsentry.
type stage struct {
	*lab.Lab
	*harness.Daemon
	t       *testing.T
	schemas *jsonschema.Compiler
}

func newStage(t *testing.T, config map[string]string) *stage {
	t.Helper()
	s := &stage{Lab: lab.New(t), t: t, schemas: schemas(t)}
	check(t, s.Scanner.StaticNeighbours())
	base := map[string]string{
		"TCP_PORTS": "1,11,23", "UDP_PORTS": "7", "IGNORE_FILE": filepath.Join(t.TempDir(), "ignore"),
		"DATABASE_FILE": filepath.Join(t.TempDir(), "db"), "BLOCK_TCP": "0", "BLOCK_UDP": "0",
	}
	check(t, os.WriteFile(base["IGNORE_FILE"], nil, 0o600))
	for key, value := range config {
		base[key] = value
	}
	s.Daemon = s.Lab.Start(t, base)
	return s
}

// schemas are those of docs/openapi.json. A reader passes over fields that he does not
// know; here each has to be documented.
func schemas(t *testing.T) *jsonschema.Compiler {
	t.Helper()
	raw, err := os.ReadFile("../../../docs/openapi.json")
	check(t, err)
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(raw))
	check(t, err)
	shut(doc)
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	check(t, c.AddResource("openapi.json", doc))
	return c
}

// shut has every object of a schema refuse what is not in it.
func shut(v any) {
	switch v := v.(type) {
	case map[string]any:
		if _, is := v["properties"].(map[string]any); is && v["type"] == "object" {
			v["additionalProperties"] = false
		}
		for _, sub := range v {
			shut(sub)
		}
	case []any:
		for _, sub := range v {
			shut(sub)
		}
	}
}

// fits reports what is wrong with an answer that is to be a noun.
func (s *stage) fits(noun string, answer []byte) {
	s.t.Helper()
	schema, err := s.schemas.Compile("openapi.json#/components/schemas/" + noun)
	check(s.t, err)
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(answer))
	if err == nil {
		err = schema.Validate(v)
	}
	if err != nil {
		s.t.Errorf("no %s: %v\n%s", noun, err, answer)
	}
}

// ask runs a command with --json, whose answer is a noun, and reads it into v.
func (s *stage) ask(noun string, v any, args ...string) {
	s.t.Helper()
	out, err := s.Command(s.t.Context(), append(args, "--json")...)
	if err != nil {
		s.t.Fatalf("%q: %v\n%s", args, err, out)
	}
	s.fits(noun, out)
	if v != nil {
		check(s.t, json.Unmarshal(out, v))
	}
}

// say runs a command, which has to go well, and gives what it printed.
func (s *stage) say(args ...string) string {
	s.t.Helper()
	out, err := s.Command(s.t.Context(), args...)
	if err != nil {
		s.t.Fatalf("%q: %v\n%s", args, err, out)
	}
	return string(out)
}
