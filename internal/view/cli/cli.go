// Package cli holds the commands that ask a running daemon over its control
// socket: status, bans, unban. Arguments in; an answer for a person, or the
// JSON of docs/json.md, out. Exit status: 0 yes, 1 no, 2 could not ask.
package cli

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"runtime/debug"
	"time"

	"github.com/spf13/cobra"

	"portsentry/internal/view"
)

// Options is what the commands share.
type Options struct {
	Socket *string          // where the parent's --socket flag keeps the path
	Now    func() time.Time // for "2 min ago", and its location for exact times; nil: time.Now
}

// Error is an answer other than yes.
type Error struct {
	Code    int // exit status
	Message string
	Hint    string
}

func (e *Error) Error() string {
	if e.Hint == "" {
		return e.Message
	}
	return e.Message + "; " + e.Hint
}

// ExitCode is the exit status for what a command returned. Whatever cobra
// itself finds wrong is a mistake in the command line.
func ExitCode(err error) int {
	var e *Error
	switch {
	case err == nil:
		return 0
	case errors.As(err, &e):
		return e.Code
	}
	return 2
}

// Commands are those that ask a daemon. They print no error and no usage of
// their own: the caller prints what they return.
func Commands(o Options) []*cobra.Command {
	if o.Now == nil {
		o.Now = time.Now
	}
	return []*cobra.Command{statusCommand(o), bansCommand(o), banCommand(o), unbanCommand(o),
		pendingCommand(o), confirmCommand(o), reloadCommand(o), healthCommand(o),
		eventsCommand(o), sourcesCommand(o), whyCommand(o), reportCommand(o)}
}

// tellCommand makes a command that prints the answer to one question.
func tellCommand[T any](o Options, use, short, path string, write func(w *bufio.Writer, answer *T, now time.Time, width int)) *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   use,
		Short: short,
		Args:  noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			answer, out := new(T), cmd.OutOrStdout()
			if err := o.get(cmd.Context(), path, answer, asJSON, out); err != nil || asJSON {
				return err
			}
			return buffered(out, func(w *bufio.Writer) { write(w, answer, o.Now(), width(out)) })
		},
	}
	return finish(c, &asJSON)
}

func statusCommand(o Options) *cobra.Command {
	return tellCommand(o, "status", "Say whether portsentry is at work, on what, and what it lost", view.PathStatus, writeStatus)
}

func bansCommand(o Options) *cobra.Command {
	var asJSON, exact bool
	c := &cobra.Command{
		Use:   "bans",
		Short: "List who is banned, newest first",
		Args:  noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			out := cmd.OutOrStdout()
			if asJSON {
				return o.get(cmd.Context(), view.PathBans, nil, true, out)
			}
			defer debug.SetGCPercent(debug.SetGCPercent(400)) // all of it is kept to the end
			t := newBanTable(o.Now(), exact)
			if err := o.eachBan(cmd.Context(), t.add); err != nil {
				return err
			}
			return buffered(out, func(w *bufio.Writer) { t.write(w, width(out)) })
		},
	}
	c.Flags().BoolVar(&exact, "exact", false, "exact times instead of \"in 41 min\"")
	return finish(c, &asJSON)
}

// finish adds what all commands have.
func finish(c *cobra.Command, asJSON *bool) *cobra.Command {
	c.Flags().BoolVar(asJSON, "json", false, "print the daemon's answer as JSON (docs/json.md)")
	c.SilenceErrors, c.SilenceUsage = true, true
	c.ValidArgsFunction = cobra.NoFileCompletions
	return c
}

func noArguments(c *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	return &Error{2, fmt.Sprintf("%s takes no argument, and %.60q is one", c.Name(), args[0]), ""}
}

// get asks for path and decodes the answer into v, or with asJSON copies it to
// out as it is.
func (o *Options) get(ctx context.Context, path string, v any, asJSON bool, out io.Writer) error {
	body, err := o.ask(ctx, http.MethodGet, path, asJSON, out)
	if err != nil {
		return err
	}
	defer func() { _ = body.Close() }()
	if !asJSON {
		return decode(body, v)
	}
	_, err = io.Copy(out, body)
	return cutShort(err)
}

func decode(r io.Reader, v any) error {
	d := json.NewDecoder(r)
	if err := d.Decode(v); err != nil {
		return cutShort(err)
	}
	_, err := io.Copy(io.Discard, r)
	return cutShort(err)
}

func buffered(out io.Writer, write func(w *bufio.Writer)) error {
	w := bufio.NewWriterSize(out, 64<<10)
	write(w)
	return unwritten(w.Flush())
}

// unwritten says that nobody takes the answer: the disk is full, or the reader has gone.
func unwritten(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("cannot write the answer: %w", err)
}
