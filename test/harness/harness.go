// Package harness runs a built portsentry for the end-to-end tests and the
// bench: a binary, a configuration and a network namespace go in; a daemon that
// is ready, its lines, its counters and its use of the machine come out.
package harness

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"portsentry/internal/pktgen"
	"portsentry/internal/view"
)

// ReadyLine ends the start of every version of PortSentry.
const ReadyLine = "Portsentry is now active and listening."

// SocketName is the control socket in a daemon's folder.
const SocketName = "control.sock"

const (
	readyTimeout = 60 * time.Second // half a million bans may have to be put back
	stopTimeout  = 10 * time.Second
	poll         = 500 * time.Microsecond
)

// Options of one daemon.
type Options struct {
	Binary string
	NS     *pktgen.NS        // nil: the namespace of the caller
	Dir    string            // holds the configuration, the socket and the output; of one daemon alone
	Config map[string]string // keys of portsentry.conf
	Args   []string          // further arguments
	Env    []string          // further KEY=value
}

// Daemon is a running portsentry. Its standard output and error go to files, so
// no line can be lost and none of them holds it up.
type Daemon struct {
	ReadyAfter time.Duration // from exec to the ready line
	Out, Err   Output

	o      Options
	cmd    *exec.Cmd
	exited chan struct{}
	killed bool
	wait   error // of cmd.Wait, once exited is closed
}

// Build compiles cmd/portsentry of this module into dir and gives its path.
func Build(ctx context.Context, dir string) (string, error) {
	binary := filepath.Join(dir, "portsentry")
	cmd := exec.CommandContext(ctx, "go", "build", "-o", binary, "portsentry/cmd/portsentry")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build: %w\n%s", err, out)
	}
	return binary, nil
}

// WriteConfig writes values as a portsentry.conf, and CAPTURE as Capture has it.
func WriteConfig(path string, values map[string]string) error {
	values = withCapture(values)
	var b strings.Builder
	for _, k := range slices.Sorted(maps.Keys(values)) {
		if strings.ContainsAny(values[k], "\"\n") {
			return fmt.Errorf("%s: the format has no way to write %q", k, values[k])
		}
		fmt.Fprintf(&b, "%s=\"%s\"\n", k, values[k])
	}
	return os.WriteFile(path, []byte(b.String()), 0o600)
}

// Start runs a daemon and returns when it has said that it is ready. A daemon
// that ends before that is an error that quotes what it said.
func Start(ctx context.Context, o Options) (*Daemon, error) {
	d := &Daemon{
		o: o, exited: make(chan struct{}),
		Out: Output(filepath.Join(o.Dir, "stdout")), Err: Output(filepath.Join(o.Dir, "stderr")),
	}
	conf := filepath.Join(o.Dir, "portsentry.conf")
	if err := WriteConfig(conf, o.Config); err != nil {
		return nil, err
	}
	d.cmd = exec.Command(o.Binary, append([]string{"-c", conf, "--socket", d.socket()}, o.Args...)...)
	d.cmd.Env = append(os.Environ(), o.Env...)
	// A group of its own: Ctrl-C is for us, and its helpers end with it.
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	start := time.Now()
	if err := d.launch(); err != nil {
		return nil, err
	}
	if err := d.waitReady(ctx); err != nil {
		d.Kill()
		said, _ := os.ReadFile(string(d.Err))
		return nil, fmt.Errorf("%w\n%s", err, bytes.TrimSpace(said))
	}
	d.ReadyAfter = time.Since(start)
	return d, nil
}

// Capture is how the daemons of this run read packets where a test does not say:
// PORTSENTRY_CAPTURE, a value of CAPTURE; "" for their own choice.
func Capture() string { return os.Getenv("PORTSENTRY_CAPTURE") }

// CaptureLine is the line of portsentry.conf that says so, "" for none.
func CaptureLine() string {
	if Capture() == "" {
		return ""
	}
	return "CAPTURE=\"" + Capture() + "\"\n"
}

func withCapture(config map[string]string) map[string]string {
	if _, said := config["CAPTURE"]; said || Capture() == "" {
		return config
	}
	config = maps.Clone(config)
	if config == nil {
		config = make(map[string]string)
	}
	config["CAPTURE"] = Capture()
	return config
}

func (d *Daemon) launch() error {
	out, err := os.Create(string(d.Out))
	if err != nil {
		return err
	}
	defer out.Close()
	errs, err := os.Create(string(d.Err))
	if err != nil {
		return err
	}
	defer errs.Close()
	d.cmd.Stdout, d.cmd.Stderr = out, errs
	if err := d.inside(d.cmd.Start); err != nil {
		return fmt.Errorf("start %s: %w", d.o.Binary, err)
	}
	go func() {
		d.wait = d.cmd.Wait()
		close(d.exited)
	}()
	return nil
}

func (d *Daemon) inside(f func() error) error {
	if d.o.NS == nil {
		return f()
	}
	return d.o.NS.Do(f)
}

func (d *Daemon) waitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	_, err := d.WaitLine(ctx, func(line string) bool { return strings.Contains(line, ReadyLine) })
	if err != nil {
		return fmt.Errorf("not ready: %w", err)
	}
	return nil
}

// ErrExited says that the daemon has ended.
var ErrExited = errors.New("portsentry has ended")

// WaitLine gives the first line of standard output that matches, whether it was
// written already or comes before ctx ends.
func (d *Daemon) WaitLine(ctx context.Context, match func(line string) bool) (string, error) {
	r, err := d.Out.open()
	if err != nil {
		return "", err
	}
	defer r.Close()
	for {
		ended := d.hasExited() // asked first: what was written before it ended still counts
		for line, err := range r.lines() {
			if err != nil {
				return "", err
			}
			if match(string(line)) {
				return string(line), nil
			}
		}
		if ended {
			return "", fmt.Errorf("%w: %v", ErrExited, d.wait)
		}
		select {
		case <-ctx.Done():
			return "", fmt.Errorf("no such line: %w", ctx.Err())
		case <-time.After(poll):
		}
	}
}

func (d *Daemon) hasExited() bool {
	select {
	case <-d.exited:
		return true
	default:
		return false
	}
}

// PID of the daemon.
func (d *Daemon) PID() int { return d.cmd.Process.Pid }

// Signal sends a signal to the daemon alone.
func (d *Daemon) Signal(s os.Signal) error { return d.cmd.Process.Signal(s) }

// Command runs portsentry with args against the daemon's socket, in its
// namespace. The error carries what it said on standard error.
func (d *Daemon) Command(ctx context.Context, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, d.o.Binary, append(args, "--socket", d.socket())...)
	cmd.Env = d.cmd.Env
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := d.inside(cmd.Run); err != nil {
		return out.Bytes(), fmt.Errorf("portsentry %s: %w: %s", strings.Join(args, " "), err, bytes.TrimSpace(errs.Bytes()))
	}
	return out.Bytes(), nil
}

// Status asks the daemon what `portsentry status --json` says.
func (d *Daemon) Status(ctx context.Context) (Status, error) {
	out, err := d.Command(ctx, "status", "--json")
	if err != nil {
		return Status{}, err
	}
	var s Status
	if err := json.Unmarshal(out, &s.Status); err != nil {
		return Status{}, fmt.Errorf("portsentry status --json: %w", err)
	}
	return s, nil
}

// Status is the answer with its counters by name.
type Status struct{ view.Status }

// Counter is the value of a counter, and whether there is one of that name.
func (s *Status) Counter(name string) (uint64, bool) {
	for _, c := range s.Counters {
		if c.Name == name {
			return c.Value, true
		}
	}
	return 0, false
}

// Usage is what the daemon and its helpers use now.
func (d *Daemon) Usage() (Usage, error) { return usage(d.PID()) }

// Stop interrupts the daemon and waits for it. One that does not end in time is
// killed; that, or an exit code other than 0, is an error.
func (d *Daemon) Stop() error {
	if err := d.Signal(os.Interrupt); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("interrupt portsentry: %w", err)
	}
	select {
	case <-d.exited:
	case <-time.After(stopTimeout):
		d.Kill()
		return fmt.Errorf("portsentry did not stop within %v and was killed", stopTimeout)
	}
	if d.wait != nil {
		said, _ := os.ReadFile(string(d.Err))
		return fmt.Errorf("portsentry ended with %w\n%s", d.wait, bytes.TrimSpace(said))
	}
	return nil
}

// Kill ends the daemon and its helpers without a word, as a crash would.
func (d *Daemon) Kill() {
	d.killed = true
	if !d.hasExited() {
		syscall.Kill(-d.PID(), syscall.SIGKILL)
		<-d.exited
	}
}

func (d *Daemon) socket() string { return filepath.Join(d.o.Dir, SocketName) }
