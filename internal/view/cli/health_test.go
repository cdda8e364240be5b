package cli

import (
	"testing"

	"portsentry/internal/view"
)

func TestHealth(t *testing.T) {
	ill := view.Health{Problems: []string{"the disk is full", "1 of 2 bans are not in the kernel"}, Bans: 2, Enforced: 1}
	const illJSON = `{"ok":false,"problems":["the disk is full","1 of 2 bans are not in the kernel"],"bans":2,"enforced":1,"checked":null}` + "\n"
	for _, tt := range []struct {
		answer  any
		args    []string
		stdout  string
		code    int
		message string
	}{
		{view.Health{OK: true, Problems: []string{}}, nil, "ok\n", 0, ""},
		{view.Health{OK: true, Problems: []string{}, Bans: 1200, Enforced: 1200}, nil, "ok; 1,200 of 1,200 bans enforced\n", 0, ""},
		{view.Health{OK: true, Problems: []string{}}, []string{"-q"}, "", 0, ""},
		{view.Health{OK: true, Problems: []string{}}, []string{"--json"}, `{"ok":true,"problems":[],"bans":0,"enforced":0,"checked":null}` + "\n", 0, ""},
		{ill, nil, "", 1, "the disk is full; 1 of 2 bans are not in the kernel"},
		{ill, []string{"--quiet"}, "", 1, ""},
		{ill, []string{"--json"}, illJSON, 1, ""},
		{ill, []string{"--json", "-q"}, "", 1, ""},
		{view.Refusal{Message: "portsentry is stopping"}, nil, "", 2, "portsentry says: portsentry is stopping"},
		{view.Refusal{Message: "portsentry is stopping"}, []string{"-q"}, "", 2, ""},
	} {
		socket := serve(t, map[string]any{"GET /v1/health": tt.answer})
		stdout, code, message := run(t, socket, append([]string{"health"}, tt.args...)...)
		if stdout != tt.stdout || code != tt.code || message != tt.message {
			t.Errorf("%v %v: %d, %q, %q", tt.answer, tt.args, code, stdout, message)
		}
	}
}
