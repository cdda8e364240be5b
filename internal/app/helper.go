package app

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
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

// helperSocket is where portsentry-helper.service serves the daemon, in a folder
// that is root's.
const helperSocket = "/run/portsentry-helper/socket"

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

// openHelper opens the way to the helper, the one process that may start programs
// and edit hosts.deny. It reads the configuration itself: from us it takes fixed
// records only. Root starts one of its own. Who is not root finds that of
// portsentry-helper.service; without it, detection and native bans go on.
func (d *daemon) openHelper() error {
	c := d.conf.Load()
	if !wantsHelper(c) {
		return nil
	}
	var h *proc.Helper
	var err error
	if os.Geteuid() == 0 {
		h, err = proc.StartHelper([]string{helperCommand, "--configfile", c.Path}, nil)
	} else if h, err = proc.DialHelper(helperSocket); err != nil {
		d.problems.set("helper", withoutHelper(err))
		return nil
	}
	if err != nil {
		return fmt.Errorf("the helper that runs commands: %w", err)
	}
	d.helper = h
	d.runner = newRunner(command.NewClient(h.Conn(), c.Modes, c.Dialect))
	return nil
}

func withoutHelper(why error) string {
	return fmt.Sprintf("no commands are run and hosts.deny is left alone: %v", why)
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
	var wanted, listen bool
	cmd := &cobra.Command{
		Use:    helperCommand,
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			conf, pace := cmp.Or(*path, DefaultConfig), new(command.Pace)
			serve := func(ctx context.Context, conn *net.UnixConn) error {
				return command.Serve(ctx, conn, func() (command.Templates, error) { return templates(conf) },
					&hostsdeny.File{Path: hostsDeny}, pace)
			}
			switch {
			case wanted:
				return mayRest(conf)
			case listen:
				return serveDaemons(cmd.Context(), conf, func(ctx context.Context, conn *net.UnixConn) {
					if err := serve(ctx, conn); err != nil {
						fmt.Fprintln(cmd.ErrOrStderr(), err) // the daemon says that its helper has gone
					}
				})
			}
			conn, err := proc.HelperConn()
			if err != nil {
				return &exitError{code: 2, err: err}
			}
			return serve(cmd.Context(), conn)
		},
	}
	cmd.Flags().BoolVar(&wanted, "wanted", false, "succeed if the configuration has something for a helper to do")
	cmd.Flags().BoolVar(&listen, "listen", false, "serve daemons that are not root, at "+helperSocket)
	return cmd
}

// templates are the commands of the configuration, if they are root's.
func templates(path string) (command.Templates, error) {
	if err := trusted(path); err != nil {
		return command.Templates{}, err
	}
	c, err := config.Load(path)
	if err != nil {
		return command.Templates{}, err
	}
	return command.TemplatesOf(c), nil
}

// mayRest ends with 1 where there is nothing to do for a helper: to
// portsentry-helper.service that is no failure. A configuration with mistakes keeps
// the daemon from starting, which says so.
func mayRest(path string) error {
	if c, err := config.Load(path); err != nil || !wantsHelper(c) {
		return &exitError{code: 1}
	}
	return nil
}

// serveDaemons is portsentry-helper.service.
func serveDaemons(ctx context.Context, path string, serve func(context.Context, *net.UnixConn)) error {
	if _, err := templates(path); err != nil { // now, where systemctl status shows it
		return err
	}
	uid, err := proc.UserID()
	if err != nil {
		return fmt.Errorf("whom to serve: %w", err)
	}
	s, err := proc.ListenHelper(helperSocket, uid)
	if err != nil {
		return fmt.Errorf("%s: %w", helperSocket, err)
	}
	if err := proc.Notify("READY=1"); err != nil {
		return err
	}
	return s.Serve(ctx, serve)
}

// trusted refuses a configuration whose commands somebody else than root could
// have written, or put in its place: the helper runs them as root. Every folder on
// the way counts, on that of the name and on that where symbolic links lead.
func trusted(path string) error {
	path, err := filepath.Abs(path)
	if err != nil {
		return err
	}
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return err
	}
	if err := rootsAlone(real); err != nil {
		return err
	}
	for _, p := range []string{path, real} {
		for dir := filepath.Dir(p); ; dir = filepath.Dir(dir) {
			if err := rootsAlone(dir); err != nil {
				return err
			}
			if dir == filepath.Dir(dir) {
				break
			}
		}
	}
	return nil
}

// rootsAlone refuses a file or folder that somebody else than root may change. Where
// everybody may make files and nobody may touch another's (the sticky bit), what
// root has made stays root's.
func rootsAlone(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return fmt.Errorf("%s: its owner is not known", path)
	}
	if st.Uid != 0 {
		return fmt.Errorf("%s belongs to uid %d, and the commands of the configuration run as root: chown root %[1]s", path, st.Uid)
	}
	if mode := info.Mode(); mode.Perm()&0o022 != 0 && !(mode.IsDir() && mode&os.ModeSticky != 0) {
		return fmt.Errorf("%s may be written by others than its owner (mode %04o), and the commands of the configuration run as root: chmod go-w %[1]s", path, mode.Perm())
	}
	return nil
}
