package view_test

import (
	"bytes"
	"context"
	"iter"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"

	"portsentry/internal/view"
	"portsentry/internal/view/cli"
	"portsentry/internal/view/control"
)

// book answers for bans and their ends.
type book struct {
	control.Changes // what is not asked for here

	mu   sync.Mutex
	bans []view.Ban
}

func (b *book) Status(context.Context) (view.Status, error) {
	return view.Status{Version: "3.0.0", Config: "built-in defaults"}, nil
}

func (b *book) Bans(context.Context) (iter.Seq[*view.Ban], error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	bans := b.bans
	return func(yield func(*view.Ban) bool) {
		for i := range bans {
			if !yield(&bans[i]) {
				return
			}
		}
	}, nil
}

func (b *book) Join(_ context.Context, _ view.Caller, j view.Join) (view.Modes, error) {
	return view.Modes{PID: 7, TCP: j.TCP, UDP: j.UDP}, nil
}

func (b *book) Unban(_ context.Context, _ view.Caller, l view.Lifting) (view.Changed, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.bans) == 0 || !b.bans[0].Prefix.Overlaps(l.Prefix) {
		return view.Changed{}, nil
	}
	lifted := b.bans
	b.bans = nil
	return view.Changed{Lifted: lifted}, nil
}

// The commands and the socket understand each other: the way back works.
func TestCommandsOverTheSocket(t *testing.T) {
	if os.Geteuid() != 0 {
		if os.Getenv("CI") == "true" {
			t.Fatal("this test needs root")
		}
		t.Skip("needs root: the socket answers nobody else")
	}
	t.Setenv("COLUMNS", "")
	now := time.Date(2026, 11, 21, 9, 30, 0, 0, time.UTC)
	until := now.Add(9 * time.Minute)
	b := &book{bans: []view.Ban{{
		Prefix: netip.MustParsePrefix("203.0.113.9/32"), Scope: "all", Strength: "soft", Evidence: "E1", Since: now.Add(-time.Minute),
		Until: &until, Times: 1, Reason: "syn to trap port 23, unverified", Methods: []string{"nftables"},
	}}}
	socket := filepath.Join(t.TempDir(), "run", "s")
	server, err := control.Listen(socket, view.Group, control.Backend{State: b, Changes: b}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- server.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()

	for _, step := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"bans"}, 0, "1 ban\n" +
			"who          cut off from     ends      since      times  evidence    why\n" +
			"203.0.113.9  new connections  in 9 min  1 min ago  1      unverified  syn to trap port 23, unverified\n"},
		{[]string{"unban", "203.0.113.8"}, 1, "203.0.113.8 is not banned\n"},
		{[]string{"unban", "203.0.113.9"}, 0, "203.0.113.9 is no longer banned (was cut off from new connections, 9 min left; syn to trap port 23, unverified)\n"},
		{[]string{"unban", "203.0.113.9"}, 1, "203.0.113.9 is not banned\n"},
		{[]string{"bans"}, 0, "no bans\n"},
		{[]string{"bans", "--json"}, 0, "{\"bans\":[]}\n"},
	} {
		var out bytes.Buffer
		root := &cobra.Command{Use: "portsentry"}
		root.AddCommand(cli.Commands(cli.Options{Socket: &socket, Now: func() time.Time { return now }})...)
		root.SetArgs(step.args)
		root.SetOut(&out)
		err := root.ExecuteContext(t.Context())
		if err != nil {
			out.WriteString(err.Error() + "\n")
		}
		if d := cmp.Diff(step.want, out.String()); d != "" || cli.ExitCode(err) != step.code {
			t.Errorf("%q: exit %d, want %d (-want +got):\n%s", step.args, cli.ExitCode(err), step.code, d)
		}
	}
}
