package sight_test

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"portsentry/internal/pktgen"
	"portsentry/test/harness"
	"portsentry/test/lab"
)

func TestMain(m *testing.M) { os.Exit(lab.Main(m)) }

const (
	// lastPort is a trap in every test. A SYN to it ends what a source sends: all
	// packets of a source are looked at in order, so once its line is there,
	// every line about an earlier packet of that source is.
	lastPort = 61001
	// patience with a machine that does other things too.
	patience = 20 * time.Second
)

// scanLine is a whole line of PortSentry 2.x about a probe that is only logged.
func scanLine(src netip.Addr, proto string, port int, kind, opts string) string {
	return fmt.Sprintf("Scan from: [%s] (%[1]s) protocol: [%s] port: [%d] type: [%s] IP opts: [%s] "+
		"ignored: [false] triggered: [true] noblock: [true] blocked: [false]", src, proto, port, kind, opts)
}

// wire is the scanner's end of a lab and the eyes on a daemon at the other.
type wire struct {
	lab  *lab.Lab
	out  harness.Output
	send *pktgen.Sender
	read int // lines of out that were looked at
}

// listen starts a daemon that logs only, with lastPort among its traps.
func listen(t *testing.T, l *lab.Lab, config map[string]string) (*wire, *harness.Daemon) {
	t.Helper()
	config["TCP_PORTS"] = strings.TrimPrefix(config["TCP_PORTS"]+fmt.Sprintf(",%d", lastPort), ",")
	d := l.Start(t, config)
	return watch(t, l, d.Out), d
}

func watch(t *testing.T, l *lab.Lab, out harness.Output) *wire {
	t.Helper()
	return &wire{lab: l, out: out, send: sender(t, l.Scanner)}
}

func sender(t *testing.T, e *pktgen.End) *pktgen.Sender {
	t.Helper()
	s, err := e.Sender()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// addAddress gives one end of the wire one more address, which the kernel does
// not choose by itself to send from.
func addAddress(t *testing.T, e *pktgen.End, prefix string) {
	t.Helper()
	args := []string{"ip", "address", "add", prefix, "dev", e.Name}
	if strings.Contains(prefix, ":") {
		args = append(args, "nodad", "preferred_lft", "0")
	}
	lab.Command(t, e.NS, args...)
}

// packet is a bare SYN from the scanner to the host; edit makes it another.
func (w *wire) packet(port int, v6 bool, edit func(*pktgen.Packet)) pktgen.Packet {
	p := pktgen.Packet{
		Src: w.lab.Scanner.Addr4(), Dst: w.lab.Host.Addr4(), Proto: pktgen.ProtoTCP,
		SrcPort: 40000, DstPort: uint16(port), Flags: pktgen.SYN, Seq: 7, Window: 1024,
	}
	if v6 {
		p.Src, p.Dst = w.lab.Scanner.Addr6(), w.lab.Host.Addr6()
	}
	if edit != nil {
		edit(&p)
	}
	return p
}

func (w *wire) sendPacket(t *testing.T, p pktgen.Packet) {
	t.Helper()
	if err := w.send.SendPacket(p); err != nil {
		t.Fatal(err)
	}
}

func (w *wire) sendFrames(t *testing.T, frames ...[]byte) {
	t.Helper()
	if _, err := w.send.Send(t.Context(), frames, 0); err != nil {
		t.Fatal(err)
	}
}

func (w *wire) frames(t *testing.T, p pktgen.Packet) [][]byte {
	t.Helper()
	f, err := p.Frames(w.send.Link())
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// scans ends what the sources send and gives the scan lines since the last
// call, sorted, without those of the ends. Without sources: the scanner's two.
func (w *wire) scans(t *testing.T, sources ...netip.Addr) []string {
	t.Helper()
	if len(sources) == 0 {
		sources = []netip.Addr{w.lab.Scanner.Addr4(), w.lab.Scanner.Addr6()}
	}
	ends := make(map[string]bool)
	for _, src := range sources {
		ends[fmt.Sprintf("Scan from: [%s] (%[1]s) protocol: [TCP] port: [%d] ", src, lastPort)] = true
		w.sendPacket(t, w.packet(lastPort, src.Is6(), func(p *pktgen.Packet) { p.Src = src }))
	}
	isEnd := func(line string) bool {
		for end := range ends {
			if strings.HasPrefix(line, end) {
				return true
			}
		}
		return false
	}
	var all []string
	lab.Wait(t, patience, "the last line of every source", func() bool {
		all = lines(t, w.out)
		n := 0
		for _, line := range all[w.read:] {
			if isEnd(line) {
				n++
			}
		}
		return n == len(sources)
	})
	var scans []string
	for _, line := range all[w.read:] {
		if strings.HasPrefix(line, harness.ScanPrefix) && !isEnd(line) {
			scans = append(scans, line)
		}
	}
	w.read = len(all)
	slices.Sort(scans)
	return scans
}

func lines(t *testing.T, out harness.Output) []string {
	t.Helper()
	all, err := out.Lines()
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// counter is a counter of a running daemon.
func counter(t *testing.T, d *harness.Daemon, name string) uint64 {
	t.Helper()
	s, err := d.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	v, ok := s.Counter(name)
	if !ok {
		t.Fatalf("no counter %s", name)
	}
	return v
}

// run is a portsentry that need not become ready, nor live.
type run struct {
	cmd      *exec.Cmd
	out, err harness.Output
	exited   chan struct{}
}

// start runs the program in ns with these arguments, until the test ends.
func start(t *testing.T, ns *pktgen.NS, edit func(*exec.Cmd), args ...string) *run {
	t.Helper()
	dir := t.TempDir()
	r := &run{
		cmd: exec.Command(lab.Binary(t), args...), exited: make(chan struct{}),
		out: harness.Output(filepath.Join(dir, "stdout")), err: harness.Output(filepath.Join(dir, "stderr")),
	}
	r.cmd.Stdout, r.cmd.Stderr = create(t, r.out), create(t, r.err)
	if edit != nil {
		edit(r.cmd)
	}
	if err := ns.Do(r.cmd.Start); err != nil {
		t.Fatal(err)
	}
	go func() {
		r.cmd.Wait()
		close(r.exited)
	}()
	t.Cleanup(func() {
		r.signal(t, syscall.SIGKILL)
		<-r.exited
	})
	return r
}

func create(t *testing.T, path harness.Output) *os.File {
	t.Helper()
	f, err := os.Create(string(path))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func (r *run) signal(t *testing.T, s os.Signal) {
	t.Helper()
	if err := r.cmd.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		t.Error(err)
	}
}

// code waits for the end and gives the exit code.
func (r *run) code(t *testing.T) int {
	t.Helper()
	select {
	case <-r.exited:
	case <-time.After(patience):
		t.Fatalf("still running after %s", patience)
	}
	return r.cmd.ProcessState.ExitCode()
}

// says waits for a line of out that contains text.
func says(t *testing.T, out harness.Output, text string) {
	t.Helper()
	lab.Wait(t, patience, text, func() bool {
		return slices.ContainsFunc(lines(t, out), func(line string) bool { return strings.Contains(line, text) })
	})
}

// configFile writes a portsentry.conf of its own directory and gives its path.
func configFile(t *testing.T, config map[string]string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "portsentry.conf")
	if err := harness.WriteConfig(path, config); err != nil {
		t.Fatal(err)
	}
	return path
}
