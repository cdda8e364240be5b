package app

import (
	"context"
	"fmt"
	"os"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"portsentry/internal/config"
	"portsentry/internal/proc"
	"portsentry/internal/respond"
	"portsentry/internal/respond/command"
	"portsentry/internal/respond/hostsdeny"
)

// helperCommand is what the daemon starts itself with to get its helper.
const helperCommand = "helper"

// hostsDeny is the file that tcp wrappers read, hosts_access(5).
const hostsDeny = "/etc/hosts.deny"

// wantsHelper reports whether the configuration has commands to run or lines for
// hosts.deny. It may bring them in force later, with BLOCK_TCP="1" and a reload:
// then there is no way to start a helper any more.
func wantsHelper(c *config.Config) bool {
	p := respond.PlanFrom(c)
	return len(p.Ban) > 0 || len(p.Command) > 0
}

// helperTime is how long a reload waits for the helper.
const helperTime = 10 * time.Second

// reloadHelper has the helper read the configuration again.
func (d *daemon) reloadHelper(ctx context.Context) error {
	if d.runner == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, helperTime)
	defer cancel()
	return d.runner.client.Reload(ctx)
}

// openHelper starts the helper, the one process that may start programs and
// edit hosts.deny. It reads the configuration itself: from us it takes fixed
// records only.
func (d *daemon) openHelper() error {
	c := d.conf.Load()
	if !wantsHelper(c) {
		return nil
	}
	h, err := proc.StartHelper([]string{helperCommand, "--configfile", c.Path}, nil)
	if err != nil {
		return fmt.Errorf("the helper that runs commands: %w", err)
	}
	d.helper = h
	d.runner = newRunner(command.NewClient(h.Conn(), c.Modes, c.Dialect))
	return nil
}

func (d *daemon) stopHelper() error {
	if d.helper == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), stopTimeout)
	defer cancel()
	err := d.helper.Stop(ctx)
	if d.runner.ended() {
		return nil // it ended before, and status has said so since
	}
	return err
}

// newHelper is the helper's side: hidden, for it is nothing to run by hand.
func newHelper(path *string) *cobra.Command {
	return &cobra.Command{
		Use:    helperCommand,
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			conn, err := proc.HelperConn()
			if err != nil {
				return &exitError{code: 2, err: err}
			}
			return command.Serve(cmd.Context(), conn, func() (command.Templates, error) {
				if err := trusted(*path); err != nil {
					return command.Templates{}, err
				}
				c, err := config.Load(*path)
				if err != nil {
					return command.Templates{}, err
				}
				return command.TemplatesOf(c), nil
			}, &hostsdeny.File{Path: hostsDeny})
		},
	}
}

// trusted refuses a configuration whose commands somebody else than root could
// have written: the helper runs them as root.
func trusted(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if mode := info.Mode().Perm(); mode&0o022 != 0 {
		return fmt.Errorf("%s may be written by others than its owner (mode %04o), and its commands run as root: chmod go-w %[1]s", path, mode)
	}
	if uid, ok := owner(info); ok && uid != 0 {
		return fmt.Errorf("%s belongs to uid %d, and its commands run as root: chown root %[1]s", path, uid)
	}
	return nil
}

// owner is the user id of the file.
func owner(info os.FileInfo) (uint32, bool) {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, false
	}
	return st.Uid, true
}
