package cli

import (
	"errors"
	"io"
	"net/http"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/spf13/cobra"

	"portsentry/internal/view"
)

// The caller is told by the error itself that nobody reads any more, or that the disk is
// full: the one ends a command silently.
func TestAnswerThatCannotBeWritten(t *testing.T) {
	socket := serve(t, map[string]any{
		"GET " + view.PathStatus:               view.Status{},
		"GET " + view.PathBans:                 view.BanList{Bans: []view.Ban{}},
		"GET " + view.PathEvents:               `{"type":"change","text":"a reload"}` + "\n",
		"GET " + view.PathSources:              view.SourceList{},
		"GET " + view.PathReport:               view.Report{},
		"GET " + view.PathHealth:               view.Health{OK: true},
		"GET " + view.PathPending:              view.PendingList{},
		"GET " + view.PathWhy + "/192.0.2.1":   view.Why{Verdict: view.VerdictSeen},
		"POST " + view.PathReload:              view.Changed{},
		"POST " + view.PathBans + "/192.0.2.1": view.Changed{},
	})
	refuses := serveHTTP(t, func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusConflict)
		_, _ = io.WriteString(w, `{"error":"no"}`)
	})
	r, gone, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	_ = r.Close()
	defer gone.Close()
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer full.Close()
	for _, line := range []string{
		"status", "status --json", "bans", "bans --json", "events", "events --json", "events -f", "events -f --json", "sources", "sources --json",
		"report", "report --json", "report --format html", "report --format markdown", "health", "health --json", "pending", "pending --json",
		"why 192.0.2.1", "why 192.0.2.1 --json", "reload", "reload --json", "ban 192.0.2.1", "ban 192.0.2.1 --json", "REFUSED bans --json",
	} {
		for out, want := range map[*os.File]error{gone: syscall.EPIPE, full: syscall.ENOSPC} {
			at := socket
			words, refused := strings.CutPrefix(line, "REFUSED ")
			if refused {
				at = refuses
			}
			root := &cobra.Command{Use: "portsentry", SilenceErrors: true, SilenceUsage: true}
			root.AddCommand(Commands(Options{Socket: &at})...)
			root.SetArgs(strings.Fields(words))
			root.SetOut(out)
			err := root.ExecuteContext(t.Context())
			if !errors.Is(err, want) || ExitCode(err) != 2 || !strings.HasPrefix(err.Error(), "cannot write the answer: ") {
				t.Errorf("%s: exit %d, %v; want 2, %v", line, ExitCode(err), err, want)
			}
		}
	}
}
