package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"time"

	"portsentry/internal/pktgen"
	"portsentry/test/harness"
)

// trapPorts are the ports of the shipped configuration of 2.x.
const trapPorts = "1,11,15,79,111,119,143,540,635,1080,1524,2000,5742,6667,12345,12346,20034,27665,31337,32771,32772,32773,32774,40421,49724,54320"

const (
	trapPort   = 11
	servedPort = 80
)

// forged is where floods pretend to come from. The host has no way back there,
// as routers drop its answers to most forged sources, so that its resets do not
// slow the generator, which runs the host's receive path on its own core.
const forged = "100.64.0.0/10"

// world is a scanner and the host that runs portsentry, joined by a cable.
type world struct {
	net           *pktgen.Net
	scanner, host *pktgen.End
	send          *pktgen.Sender
	open          []io.Closer // in order of opening
}

// cable joins the two of a world; plain and card are ones.
type cable func(w *world, scanner, host *pktgen.NS) error

// plain is a veth pair.
func plain(w *world, scanner, host *pktgen.NS) (err error) {
	w.scanner, w.host, err = w.net.Link(scanner, host, scannerAddrs(), hostAddrs())
	if err != nil {
		return err
	}
	return w.scanner.StaticNeighbours()
}

func scannerAddrs() []netip.Prefix { return prefixes("10.77.0.2/24", "fd77::2/64") }
func hostAddrs() []netip.Prefix    { return prefixes("10.77.0.1/24", "fd77::1/64") }

func newWorld(join cable) (_ *world, err error) {
	w := &world{}
	if w.net, err = pktgen.NewNet(); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, w.close())
		}
	}()
	scanner, err := w.net.NewNS()
	if err != nil {
		return nil, err
	}
	host, err := w.net.NewNS()
	if err != nil {
		return nil, err
	}
	if err := join(w, scanner, host); err != nil {
		return nil, err
	}
	// Room for every probe of a served port that does get through.
	err = errors.Join(
		host.Sysctl("net.core.somaxconn", "8192"), host.Sysctl("net.ipv4.tcp_max_syn_backlog", "8192"))
	for _, dst := range prefixes("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", "198.18.0.0/15") {
		err = errors.Join(err, host.Route(dst, w.scanner.Addr4()))
	}
	for _, dst := range prefixes("2001:db8::/32") {
		err = errors.Join(err, host.Route(dst, w.scanner.Addr6()))
	}
	if err != nil {
		return nil, err
	}
	if w.send, err = w.scanner.Sender(); err != nil {
		return nil, err
	}
	w.open = append(w.open, w.send)
	return w, nil
}

func (w *world) close() error {
	var errs []error
	for _, c := range slices.Backward(w.open) {
		errs = append(errs, c.Close())
	}
	return errors.Join(append(errs, w.net.Close())...)
}

// serve opens the served port. Nothing accepts: the kernel answers.
func (w *world) serve() error {
	return w.host.NS.Do(func() error {
		l, err := net.Listen("tcp", ":"+strconv.Itoa(servedPort))
		if err == nil {
			w.open = append(w.open, l)
		}
		return err
	})
}

// syn is one SYN to the host.
func (w *world) syn(src netip.Addr, srcPort, dstPort uint16) pktgen.Packet {
	p := pktgen.Packet{
		Src: src, Dst: w.host.Addr4(), Proto: pktgen.ProtoTCP,
		SrcPort: srcPort, DstPort: dstPort, Flags: pktgen.SYN, Seq: 1, Window: 1024,
	}
	if src.Is6() {
		p.Dst = w.host.Addr6()
	}
	return p
}

// frames builds packets for Send.
func (w *world) frames(packets []pktgen.Packet) ([][]byte, error) {
	var all [][]byte
	for i := range packets {
		f, err := packets[i].Frames(w.send.Link())
		if err != nil {
			return nil, err
		}
		all = append(all, f...)
	}
	return all, nil
}

func prefixes(s ...string) []netip.Prefix {
	var p []netip.Prefix
	for _, s := range s {
		p = append(p, netip.MustParsePrefix(s))
	}
	return p
}

// closer is a way to take something down.
type closer func() error

func (c closer) Close() error { return c() }

// start starts a daemon on the host that runs until the world is closed.
func (b *bench) start(ctx context.Context, w *world, config map[string]string, args ...string) (*harness.Daemon, error) {
	dir, err := os.MkdirTemp(b.dir, "run")
	if err != nil {
		return nil, err
	}
	d, err := harness.Start(ctx, harness.Options{Binary: b.binary, NS: w.host.NS, Dir: dir, Config: config, Args: args})
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	w.open = append(w.open, closer(func() error { return errors.Join(d.Stop(), os.RemoveAll(dir)) }))
	return d, nil
}

// with runs f beside a daemon in a world of its own, and takes both down again.
func (b *bench) with(ctx context.Context, config map[string]string, f func(*world, *harness.Daemon) error, args ...string) (err error) {
	w, err := newWorld(plain)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.close()) }()
	d, err := b.start(ctx, w, config, args...)
	if err != nil {
		return err
	}
	return f(w, d)
}

// count is n, or a tenth of it in a quick run.
func (b *bench) count(n int) int {
	if b.quick {
		return n / 10
	}
	return n
}

const (
	settleStep = 100 * time.Millisecond
	settleMax  = time.Minute
)

// settle waits until the daemon has used next to no CPU for a third of a second,
// and gives what it uses then.
func settle(ctx context.Context, d *harness.Daemon) (harness.Usage, error) {
	last, err := d.Usage()
	quiet := 0
	for end := time.Now().Add(settleMax); err == nil && quiet < 3; {
		if time.Now().After(end) {
			return last, fmt.Errorf("portsentry is still busy after %v", settleMax)
		}
		if err := pause(ctx, settleStep); err != nil {
			return last, err
		}
		var now harness.Usage
		if now, err = d.Usage(); now.CPU-last.CPU < settleStep/50 {
			quiet++
		} else {
			quiet = 0
		}
		last = now
	}
	return last, err
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}
